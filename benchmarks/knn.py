"""k-NN votes of 100,000 query features on 10,000 test features: scikit-learn's brute force, and ours.

Both take turns, so that what else the machine does slows them alike; the ratio is that of the median times.

OMP_NUM_THREADS=2 python benchmarks/knn.py
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from dinov2.eval.features import Features
from dinov2.eval.knn_votes import knn_vote


def make_features(samples: int, width: int, num_classes: int, seed: int) -> Features:
    """Noise around a centre for each class."""
    centres = torch.randn(num_classes, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (samples,), generator=generator)
    return Features(centres[labels] + 3 * torch.randn(samples, width, generator=generator), labels)


def by_scikit_learn(query: Features, test: torch.Tensor, k: int) -> np.ndarray:
    """Predicted classes (m,), one vote for each neighbour."""
    classifier = KNeighborsClassifier(k, metric="cosine", algorithm="brute", n_jobs=torch.get_num_threads())
    return classifier.fit(query.values.numpy(), query.labels.numpy()).predict(test.numpy())


def ours(query: Features, test: torch.Tensor, k: int, *, num_classes: int) -> np.ndarray:
    """The same."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    votes = knn_vote(query, test, nb_knn=[k], num_classes=num_classes, vote="majority", device=device)
    return votes[k].argmax(dim=1).numpy()


def timed(function: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What a function returns, and the seconds that it takes."""
    started = time.perf_counter()
    found = function()
    return found, time.perf_counter() - started


def main() -> None:
    """Print times, ratio and how often both predict the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--query", type=int, default=100_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("-k", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="times that each is run")
    args = parser.parse_args()
    query = make_features(args.query, args.width, args.classes, seed=1)
    test = make_features(args.test, args.width, args.classes, seed=2).values
    all_seconds: list[tuple[float, float]] = []
    for _ in range(args.rounds):
        theirs, their_time = timed(lambda: by_scikit_learn(query, test, args.k))
        found, time_of_ours = timed(lambda: ours(query, test, args.k, num_classes=args.classes))
        all_seconds.append((their_time, time_of_ours))
    their_seconds, seconds = (statistics.median(times) for times in zip(*all_seconds))
    print(
        f"{args.query:,} x {args.width} query, {args.test:,} test, k = {args.k}, {torch.get_num_threads()} threads: "
        f"scikit-learn {their_seconds:.1f} s, ours {seconds:.1f} s, ratio {their_seconds / seconds:.1f}, "
        f"{100 * (found == theirs).mean():.2f} % of the predictions equal"
    )


if __name__ == "__main__":
    main()
