"""Labels of any kind -> class numbers 0 .. K-1."""

import re
from array import array
from collections.abc import Iterable

import numpy as np

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def number_classes(labels: Iterable[str], *, by_value: bool = True) -> tuple[np.ndarray, list[str]]:
    """Number the classes in the order of their labels.

    Args:
        by_value: if all labels are whole numbers, order them as numbers, and take 7 and 07 for one class. Everything
            else is in alphabetical order.
    Returns:
        The class of each label, (n,) int64, and the K labels in order.
    """
    first_seen: dict[str, int] = {}
    codes = array("q", (first_seen.setdefault(label, len(first_seen)) for label in labels))
    if by_value and all(map(_INTEGER.fullmatch, first_seen)):
        names = [str(int(label)) for label in first_seen]
        classes = sorted(set(names), key=int)
    else:
        names = list(first_seen)
        classes = sorted(names)
    numbers = {name: number for number, name in enumerate(classes)}
    by_code = np.array([numbers[name] for name in names], dtype=np.int64)
    return by_code[np.frombuffer(codes, np.int64)], classes
