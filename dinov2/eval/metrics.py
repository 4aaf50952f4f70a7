"""How good class scores are, through torchmetrics.

Classes that do not occur are the difficulty. Every figure is what scikit-learn gives: averages of precision, recall
and F1 are over the classes that are true or predicted somewhere; balanced accuracy and the area under the ROC curve
are over those that are true somewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

TOP5_CLASSES = 6  # least number of classes for which "among the first five" says something
AVERAGES: tuple[Literal["macro", "weighted"], ...] = ("macro", "weighted")


@dataclass(frozen=True)
class ClassReport:
    """How well one class is found.

    Attributes:
        support: samples of it.
        auc: area under the ROC curve against all other classes; NaN where it has none or all samples.
    """

    name: str
    support: int
    precision: float
    recall: float
    f1: float
    auc: float


@dataclass(frozen=True)
class Report:
    """What is said about the scores of a test set.

    Attributes:
        metrics: those of `classification_metrics`.
        classes: in the order of their numbers.
        confusion: numbers of samples, a row for each true class and a column for each predicted one.
    """

    metrics: dict[str, float]
    classes: tuple[ClassReport, ...]
    confusion: list[list[int]]


def classification_metrics(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Figures from 0 to 1; only kappa may be negative.

    Args:
        scores: (n, C), none below 0; rows need not sum to 1. The class with the highest is predicted, the first one
            of several.
        labels: (n,) int64 in 0 .. C-1.
    Returns:
        acc: top-1 accuracy. top5: share of labels `among_five`, from six classes on. bacc: balanced accuracy, the mean
            recall.
        {f1|precision|recall}_{macro|weighted}. kappa: Cohen's.
        auc: area under the ROC curve, for two classes that of the second one, for more the mean of one versus rest;
            NaN where only one class occurs.
    """
    from torchmetrics.functional import classification as tm

    probabilities, labels, predicted = _prepared(scores, labels)
    count = probabilities.shape[1]
    present = labels.bincount(minlength=count) > 0
    found: dict[str, Any] = {
        "acc": accuracy(predicted, labels, count),
        "bacc": accuracy(predicted, labels, count, average="macro"),
        "kappa": tm.multiclass_cohen_kappa(predicted, labels, count),
        "auc": class_aucs(probabilities, labels)[1 if count == 2 else present].mean(),
    }
    for average in AVERAGES:
        found[f"f1_{average}"] = tm.multiclass_f1_score(predicted, labels, count, average=average)
        found[f"precision_{average}"] = tm.multiclass_precision(predicted, labels, count, average=average)
        found[f"recall_{average}"] = tm.multiclass_recall(predicted, labels, count, average=average)
    if count >= TOP5_CLASSES:
        found["top5"] = among_five(probabilities, labels).double().mean()
    return {name: float(value) for name, value in found.items()}


def accuracy(predicted: Tensor, labels: Tensor, num_classes: int, *, average: str = "micro") -> float:
    """Share of right predictions (n,): of all samples, or the mean share of the classes that occur for "macro"."""
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_recall

    if average == "micro":
        return float(multiclass_accuracy(predicted, labels, num_classes, average="micro"))
    present = labels.bincount(minlength=num_classes) > 0
    return float(multiclass_recall(predicted, labels, num_classes, average="none")[present].double().mean())


def classification_report(scores: Tensor, labels: Tensor, names: Sequence[str]) -> Report:
    """Figures of all classes together and of each, and the confusion matrix.

    Args:
        scores, labels: (n, C), (n,), as for `classification_metrics`.
        names: (C) of the classes.
    """
    from torchmetrics.functional import classification as tm

    probabilities, labels, predicted = _prepared(scores, labels)
    count = probabilities.shape[1]
    columns = (
        labels.bincount(minlength=count),
        tm.multiclass_precision(predicted, labels, count, average="none"),
        tm.multiclass_recall(predicted, labels, count, average="none"),
        tm.multiclass_f1_score(predicted, labels, count, average="none"),
        class_aucs(probabilities, labels),
    )  # (C,) each
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    confusion = tm.multiclass_confusion_matrix(predicted, labels, count)  # (C, C)
    return Report(classification_metrics(scores, labels), tuple(ClassReport(*row) for row in rows), confusion.tolist())


def class_aucs(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve of every class against all others, (C,) float64; NaN where there is none.

    torchmetrics gives 0 for a class without samples.
    """
    from torchmetrics.functional.classification import binary_auroc

    aucs = torch.full((probabilities.shape[1],), float("nan"), dtype=torch.float64)
    for label, samples in enumerate(labels.bincount(minlength=len(aucs)).tolist()):
        if 0 < samples < len(labels):
            aucs[label] = binary_auroc(probabilities[:, label], (labels == label).long())
    return aucs


def among_five(scores: Tensor, labels: Tensor) -> Tensor:
    """Whether the label is among the five classes with the highest scores (n, C), (n,) bool.

    Of classes with equal scores the first ones count. Votes of a few neighbours leave most classes at 0, of which torch
    and scikit-learn choose differently.
    """
    five = scores.argsort(dim=1, descending=True, stable=True)[:, :5]
    return (five == labels[:, None]).any(dim=1)


def probabilities_of(scores: Tensor) -> Tensor:
    """Scores (n, C) rescaled to sum 1 in float64; a row of zeros stays one."""
    scores = scores.double()
    return scores / scores.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def _prepared(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (n, C), labels and predicted classes (n,), in main memory."""
    return probabilities_of(scores.cpu()), labels.cpu(), scores.cpu().argmax(dim=1)
