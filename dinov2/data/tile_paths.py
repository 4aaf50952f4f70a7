"""What the path of a tile says, taken by itself: its slide's barcode, its folders, and its name in pieces.

Names of tiles are those of TCGA, CPTAC, BreaKHis, Kaggle IDC, Camelyon, QuPath, histolab, CLAM, TRIDENT, hs2p and
DeepZoom, and what people make of them. What the pieces mean is settled over all paths in `group_names`.
"""

import re
import unicodedata
from functools import lru_cache
from string import ascii_letters
from typing import NamedTuple

_MOST_NUMBERS = 6  # at the end of a name that are looked at
_AROUND = "_-. ,;([{"  # separators, which no name begins or ends with
_LETTERS = ascii_letters + "_- ."
_ZEROS = {ord(digit): "0" for digit in "123456789"}

_VALUE = r"-?\d+(?:[.p]\d+)?"
_PLACE = r"(?:_?(?:ini|min|max|start|end|pos|coord|[0-2]))?"
_AXES = (
    (rf"x{_PLACE}", rf"y{_PLACE}"), ("pos_?x", "pos_?y"), ("rows?", "col(?:umn)?s?"), ("left", "top"),
    (r"(?<![a-z\d])r", "c"), (r"(?<![a-z\d])i", "j"),
)  # fmt: skip
# Two coordinates that say what they are: x512_y1024, [d=2,x=512,y=1024,w=64,h=64], Row_1_Col_301, r3c4, 512x_1024y.
_LABELLED = re.compile(
    r"(?<![a-z])(?:d=[\d.]+[,;\s]*)?(?:"
    + "|".join(
        rf"{first}[\s_=:-]*{_VALUE}[\s_,;-]*{second}[\s_=:-]*{_VALUE}"
        for axes in _AXES
        for first, second in (axes, axes[::-1])
    )
    + rf"|{_VALUE}x[\s_,-]*{_VALUE}y)",
    re.IGNORECASE,
)
# What says how a tile was cut, or which one it is, at the end of a name.
_INDEX = r"tiles?|patch(?:es)?|crop|idx|index|roi|region|fov"
_SETTING = (
    r"level|lvl|lev|lv|mpp|mag(?:nification)?|zoom|scale|ds|down(?:sample)?|size|px|ps|stride|step|overlap|"
    r"res(?:olution)?|spacing|class|label|cls"
)
_PARAMETER = re.compile(
    rf"(?:^|[\W_]+)(?:(?:(?P<index>{_INDEX})|{_SETTING})[\W_]*{_VALUE}|"
    rf"{_VALUE}[_\s]?(?:mpp|[xy]|px|um|µm)|[xy]\d+|\d+x\d+)[)\]}}\s]*$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?:(?P<hard>^|[_\s,;()\[\]{}]+)-?\d+(?:\.\d+)?|(?:-+|\.)\d+)[)\]}\s]*$")
_DOTTED = re.compile(r"(?P<hard>(?!))|\.\d+$")  # the number before one that a dot joins to it
_WORD_AFTER_PAIR = re.compile(r"(?<=[_\s,-])(-?\d+[_\s,-]+-?\d+)[_\s-]+[^\W\d_]+$")
_LEADING_WORD = re.compile(r"^(?:tile|patch|crop)s?[_\-\s]+(?:\d+[_\-\s]+)?(?=.*[^\W\d_])", re.IGNORECASE)
_LEADING_NUMBER = re.compile(r"(?<![^/])\d+[_\-\s]+(?=[^/]*[^\W\d_][^/]*\.[^/]*$)")
_SLIDE_FILE = re.compile(
    r"(?:\.(?:svs|ndpi|mrxs|scn|isyntax|czi|vms|bif|qptiff|ome|tiff?|dcm|zarr|tiles))+(?![a-z0-9])", re.IGNORECASE
)

# Slides of TCGA and CPTAC, or their patients where a name has no more, and slides of BreaKHis.
PATIENT = r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}|C3[LN]-\d{5}|\d{2}(?:BR|CO|OV)\d{3}"
_DEEP_ZOOM = re.compile(r"([^/]+)_files/\d+/\d+_\d+\.[^./]+$")  # SLIDE_files/LEVEL/COLUMN_ROW.jpeg
_BARCODE = re.compile(
    r"(?<![A-Z0-9])(?:TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?:-\d\d[A-Z]-\d\d-[A-Z]{2}[A-Z0-9]{1,2})?|C3[LN]-\d{5}(?:-\d\d)?|"
    r"\d{2}(?:BR|CO|OV)\d{3}(?:-[0-9A-F]{8}[0-9A-F-]*)?|(?:SOB|CNB)_[BM]_[A-Z]+[-_](\d\d-\d+[A-Z]*))(?![A-Z0-9])",
    re.IGNORECASE,
)

# Folders that say how tiles are stored, not what they are of, and names that say nothing.
_LAYOUT = re.compile(
    r"(?:train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?|(?:split|fold)[_-]?\d*|tiles?|patch(?:es)?|images?|imgs?|jpe?g|"
    r"png|tiff?|data|dataset|l(?:e)?v(?:e)?l[_-]?\d+|\d+(?:\.\d+)?x(?:_\d+px.*)?|\d+\.\d+|[\d.]+mpp|\d+px|\d+x\d+)",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"(?:slides?|wsi|cases?|patients?|subjects?|specimens?|samples?|tiles?|patch(?:es)?|crops?|images?|imgs?|photos?|"
    r"pictures?|pics?|frames?|rois?|regions?|fovs?|cells?|(?:cores?|spots?)(?:[_-]?[A-Z])?)?",
    re.IGNORECASE,
)
COUNTED = re.compile(r"slide|wsi|case|patient|pat|subject|specimen|donor", re.IGNORECASE)  # before their number
_FOLDER_END = re.compile(r"_(?:files|tiles|patches)$", re.IGNORECASE)
_OF_SLIDE = re.compile(rf"(?:{COUNTED.pattern})[_\-\s]?\d+|\d{{3,}}", re.IGNORECASE)
_OF_CLASS = re.compile(r"class|grade|label|score|stage|cluster", re.IGNORECASE)


class PathParts(NamedTuple):
    """What a path says of a tile.

    Attributes:
        barcode: the slide, where a known scheme names it.
        folders: those that may be a class, a patient or a slide.
        names: the file name without what names the tile, then without the last number, without the last two, ...
        is_cut: whether coordinates or an index were told by their names, and are off already.
        is_tile: whether anything that names a tile was there.
    """

    barcode: str
    folders: tuple[str, ...]
    names: tuple[str, ...]
    is_cut: bool
    is_tile: bool


def split_path(path: str) -> PathParts:
    """Take a path apart, relative to the folder or archive of the data set."""
    path = one_line(path)
    barcode = _barcode(path)
    if barcode:
        return PathParts(barcode, (), ("",), True, True)
    folder, _, file = path.rpartition("/")
    stem = file.rpartition(".")[0] or file
    spans, is_cut, is_tile = _without_tile(stem.translate(_ZEROS))
    return PathParts("", _telling_folders(folder), tuple(stem[first:end] for first, end in spans), is_cut, is_tile)


def is_barcode(name: str) -> bool:
    """Whether a slide's name is a barcode, or the patient's in one."""
    return _BARCODE.fullmatch(name) is not None


def without_lead(path: str) -> str:
    """A path without a number in front of the file's name."""
    if not path[path.rfind("/") + 1 :][:1].isdigit():
        return path
    return _LEADING_NUMBER.sub("", path, count=1)


@lru_cache(1 << 12)
def says_nothing(name: str, folders: tuple[str, ...]) -> bool:
    """Whether a name tells no slides apart: none, a word such as "tile", or the class."""
    is_class = bool(folders) and name.casefold() == folders[0].casefold()
    return is_class or bool(_NOTHING.fullmatch(name) or _LAYOUT.fullmatch(name))


def may_be_slide(folder: str) -> bool:
    """Whether the only folder of a tile is rather its slide than its class."""
    if _OF_CLASS.match(folder):
        return False
    return bool(_OF_SLIDE.search(folder) or (re.search(r"\d\d", folder) and not re.search(r"[^\W\d_]{3}", folder)))


def one_line(name: str) -> str:
    """A name as it is compared: composed (NFC), on one line."""
    return unicodedata.normalize("NFC", name).replace("\n", " ")


@lru_cache(1 << 12)
def _telling_folders(folder: str) -> tuple[str, ...]:
    """`PathParts.folders`."""
    return tuple(
        _FOLDER_END.sub("", name) for name in folder.split("/") if name.strip(".") and not _LAYOUT.fullmatch(name)
    )


def _barcode(path: str) -> str:
    """The longest barcode in a path, the last one of several; or the pyramid's name; empty if there is none."""
    found = [(match[1] or match[0]).upper() for match in _BARCODE.finditer(path)]
    if not found and (pyramid := _DEEP_ZOOM.search(path)):
        return pyramid[1]
    return max(reversed(found), key=len, default="")


@lru_cache(1 << 16)
def _without_tile(stem: str) -> tuple[tuple[tuple[int, int], ...], bool, bool]:
    """Where `PathParts.names` begin and end in a file name without its ending, `is_cut` and `is_tile`.

    Args:
        stem: with a 0 for each digit, since it does not matter which one it is; so there are few of them.
    """
    labelled, ending = _LABELLED.search(stem), _SLIDE_FILE.search(stem)
    is_cut = labelled is not None or (ending is not None and ending.end() < len(stem.rstrip(_LETTERS)))
    first, end = 0, len(stem)
    if labelled:
        first, end = (0, labelled.start()) if labelled.start() else (labelled.end(), end)
    elif word := _WORD_AFTER_PAIR.search(stem):
        end = word.end(1)
    if ending and ending.start() > first:
        end = min(end, ending.start())
    lead = _LEADING_WORD.match(stem[first:end].strip(_AROUND))
    spans, is_hard, is_dotted = [_trimmed(stem, first, end)], False, False
    if ending and not is_cut and not ending[0].lower().startswith(".tif"):
        return tuple(spans), False, True  # the whole slide: S12-00345.svs.jpg
    while len(spans) <= _MOST_NUMBERS:
        first, end = spans[-1]
        parameter = _PARAMETER.search(stem[first:end])
        if parameter:  # numbers after it were the tile's
            is_cut = is_cut or len(spans) > 1 or parameter["index"] is not None
            spans, is_hard, is_dotted = [_trimmed(stem, first, first + parameter.start())], False, False
            continue
        number = (is_dotted and _DOTTED.search(stem[first:end])) or _NUMBER.search(stem[first:end])
        if number is None or (is_hard and number["hard"] is None):
            break  # S12-00345_7: what "-" joins is one name where "_" separates
        is_hard, is_dotted = number["hard"] is not None, number[0][0] == "."
        spans.append(_trimmed(stem, first, first + number.start()))
    if lead:
        spans = [(first + lead.end(), max(end, first + lead.end())) for first, end in spans]
    is_tile = is_cut or len(spans) > 1 or spans[0] != _trimmed(stem, 0, len(stem))
    return tuple(spans), is_cut, is_tile


def _trimmed(stem: str, first: int, end: int) -> tuple[int, int]:
    """The span without separators around it."""
    part = stem[first:end]
    left = len(part) - len(part.lstrip(_AROUND))
    return first + left, first + left + len(part.strip(_AROUND))
