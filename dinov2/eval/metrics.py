"""Scores of a classifier from its class probabilities."""

import numpy as np
from torch import Tensor


def classification_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy and area under the ROC curve, all from 0 to 1.

    Args:
        probabilities: (n, C); rows need not sum to 1.
        labels: (n,) int64 in 0 .. C-1.
    Returns:
        acc; bacc, the mean recall of the classes that occur; auc, the true one for two classes and the
        mean of one-versus-rest over the classes that occur for more (NaN where only one occurs).
    """
    from sklearn.metrics import balanced_accuracy_score

    scores, truth = probabilities.double().cpu().numpy(), labels.cpu().numpy()
    predicted = scores.argmax(axis=1)
    return {
        "acc": float((predicted == truth).mean()),
        "bacc": float(balanced_accuracy_score(truth, predicted)),
        "auc": _auc(scores, truth),
    }


def _auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve of scores (n, C) for labels (n,)."""
    from sklearn.metrics import roc_auc_score

    present = np.unique(truth)
    if len(present) < 2:
        return float("nan")
    scores = scores / scores.sum(axis=1, keepdims=True).clip(min=np.finfo(float).tiny)
    if scores.shape[1] == 2:
        return float(roc_auc_score(truth, scores[:, 1]))
    return float(np.mean([roc_auc_score(truth == label, scores[:, label]) for label in present]))
