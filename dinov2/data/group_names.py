"""Which tiles were cut from the same slide, as far as their paths tell."""

import re

_NUMBERED = re.compile(r"(.+)[_\-. ]\d+")


def group_of(name: str) -> str:
    """What a tile was cut from.

    That is the folders below the first one, which is the class; where there are none, the file name up to a last
    number: TUM/slide7/12.png and TUM/slide7_12.png are both of slide7. A group stands on one line.
    """
    name = name.replace("\n", " ")
    folder, _, file = name.rpartition("/")
    below_class = folder.partition("/")[2]
    if below_class:
        return below_class
    stem = file.rpartition(".")[0] or file
    numbered = _NUMBERED.fullmatch(stem)
    return numbered[1] if numbered else stem
