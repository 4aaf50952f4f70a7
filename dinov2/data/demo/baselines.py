"""How much of the demonstration task colour alone solves: the floor for any learned feature.

Both baselines look up a test tile's 20 nearest query tiles and let them vote. Query and test tiles
come from different slides, so what a stain or a scanner has in common with itself does not help.
"""

import csv
from dataclasses import dataclass

import cv2
import numpy as np

from dinov2.data.demo.slides import DemoDataset
from dinov2.data.demo.tiles import DEMO_CLASSES

NUM_NEIGHBOURS = 20
THUMBNAIL_SIZE = 16


@dataclass(frozen=True)
class ColourBaselines:
    """Balanced accuracies, 0 to 1; chance is 1 / number of classes.

    Attributes:
        mean_rgb: of a tile's mean colour.
        thumbnail: of the tile shrunk to 16 x 16 pixels.
    """

    mean_rgb: float
    thumbnail: float


def colour_baselines(dataset: DemoDataset) -> ColourBaselines:
    """Measures both baselines on a written data set; a second or two for 2,400 tiles."""
    query_pixels, query_labels = _read_split(dataset, "query")
    test_pixels, test_labels = _read_split(dataset, "test")
    labels = {"query_labels": query_labels, "test_labels": test_labels}
    return ColourBaselines(
        mean_rgb=knn_balanced_accuracy(query_pixels.mean(axis=(1, 2)), test=test_pixels.mean(axis=(1, 2)), **labels),
        thumbnail=knn_balanced_accuracy(
            query_pixels.reshape(len(query_pixels), -1),
            test=test_pixels.reshape(len(test_pixels), -1),
            **labels,
        ),
    )


def knn_balanced_accuracy(
    query: np.ndarray, *, query_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float:
    """Mean over classes of the share of test rows whose nearest query rows vote for their class.

    Args:
        query: (Q, D) features that vote; each column counts by its standard deviation.
        query_labels: (Q,) int.
        test: (T, D) features.
        test_labels: (T,) int.
    """
    centre, spread = query.mean(axis=0), query.std(axis=0) + 1e-6
    query, test = (query - centre) / spread, (test - centre) / spread
    squared = (test**2).sum(1)[:, None] + (query**2).sum(1)[None, :] - 2 * test @ query.T  # (T, Q)
    nearest = np.argsort(squared, axis=1, kind="stable")[:, :NUM_NEIGHBOURS]
    votes = np.stack([(query_labels[nearest] == c).sum(1) for c in range(len(DEMO_CLASSES))], 1)
    right = votes.argmax(axis=1) == test_labels
    return float(np.mean([right[test_labels == label].mean() for label in np.unique(test_labels)]))


def _read_split(dataset: DemoDataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails (N, 16, 16, 3) float64 of 0 to 255 and labels (N,) of one split."""
    with dataset.labels_csv.open(newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == split]
    thumbnails = []
    for row in rows:
        path = dataset.tiles_dir / row["slide"] / row["filename"]
        image = cv2.imread(str(path))
        if image is None:
            raise ValueError(f"{path} is listed in {dataset.labels_csv} but is not a JPEG")
        edge = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
        thumbnails.append(cv2.resize(image, edge, interpolation=cv2.INTER_AREA))
    labels = np.array([int(row["label"]) for row in rows])
    return np.stack(thumbnails).astype(np.float64), labels
