"""Labels -> class numbers."""

import numpy as np
import pytest

from dinov2.data.datasets.class_labels import number_classes


@pytest.mark.parametrize(
    ("labels", "targets", "classes"),
    [
        (["b", "a", "b"], [1, 0, 1], ["a", "b"]),
        (["10", "9", "-1", "9"], [2, 1, 0, 1], ["-1", "9", "10"]),
        (["07", "7", "+7", "8"], [0, 0, 0, 1], ["7", "8"]),
        (["10", "9", "x"], [0, 1, 2], ["10", "9", "x"]),
        (["1.0", "0.0"], [1, 0], ["0.0", "1.0"]),
        (["9" * 19, "1"], [1, 0], ["1", "9" * 19]),
        (["", ""], [0, 0], [""]),
        ([], [], []),
    ],
)
def test_numbers_by_value_else_by_letter(labels, targets, classes):
    found, names = number_classes(labels)
    assert (found.tolist(), names) == (targets, classes)
    assert found.dtype == np.int64


def test_by_letter_only():
    assert number_classes(["9", "10"], by_value=False)[1] == ["10", "9"]
