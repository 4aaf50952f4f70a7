"""Which slide a tile is of, by the paths of all tiles."""

import random
from collections import defaultdict

import numpy as np
import pytest

from dinov2.data.group_names import SlideNames, patients, slides_of
from dinov2.data.groups import Groups, UnknownGroupsError

SLIDES = {
    "numbered": [f"S{number:02}" for number in range(6)],
    "dashes": [f"S12-0034{number}" for number in range(6)],
    "blanks": [f"Slide {number} B" for number in range(6)],
    "words": [f"{kind}_00{number}" for kind in ("tumor", "normal") for number in range(3)],
    "TCGA": [f"TCGA-A{number}-1234-01Z-00-DX1.0a1b2c3d-{number}" for number in range(6)],
}
FORMS = (
    "{c}/{s}_{x}_{y}", "{c}/{s}-{x}-{y}", "{c}/{s}_x{x}_y{y}", "{c}/{s}_X_{x}_Y_{y}", "{c}/{s}_x{x}y{y}",
    "{c}/{s}_({x},{y})", "{c}/{s}_{x}x_{y}y", "{c}/{s}_{x:06}_{y:06}", "{c}/{s}_{x}.0_{y}.0",
    "{c}/{s}_-{x}_{y}", "{c}/{s}.svs_{x}_{y}", "{c}/{s}_{x}_{y}_tumor", "{c}/{s}_r{r}_c{k}",
    "{c}/{s}_row{r}_col{k}", "{c}/{s}_{r}_{k}", "{c}/{s}_{n}", "{c}/{s}_tile_{n}", "{c}/{s}-tile{n}",
    "{c}/{s}_patch_{x}_{y}", "{c}/{n:05}_{s}_{x}_{y}", "{c}/{s}_{x}_{y}_{n}", "{c}/{s}_{x}_{y}_256",
    "{c}/{s}_{x}_{y}_256_256", "{c}/{s}_{x}_{y}_{x2}_{y2}", "{c}/{s}_{x}_{y}_256x256", "{c}/{s}_{x}_{y}_0.5mpp",
    "{c}/{s}_mpp0.5_{x}_{y}", "{c}/{s}_20x_{x}_{y}", "{c}/{s}_{x}_{y}_level0", "{c}/tile_{s}_{x}_{y}",
    "{c}/{s}_tile_{n}_level0_{x}-{y}-{x2}-{y2}", "{c}/{s}_idx5_x{x}_y{y}_class0", "{c}/{s}/{x}_{y}",
    "{c}/{s}/tile_{n}", "{c}/{s}/t{n}", "{c}/{s}/20.0/{x}_{y}", "{c}/{s}_files/17/{r}_{k}",
    "train/{c}/{s}_{x}_{y}", "{s}/{c}/{x}_{y}", "{s}_{x}_{y}",
    "{c}/{s}.{x}.{y}",
)  # fmt: skip
WITH_BLANKS = ("{c}/{s} [x={x},y={y},w=64,h=64]", "{c}/{s}.svs [d=2,x={x},y={y},w=64,h=64]-mask", "{c}/{s} ({x}, {y})")


def tiles(form: str, slides: list[str]) -> dict[str, str]:
    """The slide of each of 12 tiles a slide, in two classes, by path."""
    found = {}
    for number, slide in enumerate(slides):
        for n in range(12):
            r, k = n // 4 + number % 2, n % 4 + 1
            place = {"x": 64 * k + 64 * (number % 3), "y": 128 * r, "n": n, "r": r, "k": k, "s": slide}
            values = {**place, "x2": place["x"] + 64, "y2": place["y"] + 64, "c": "ADI" if n % 2 else "TUM"}
            found[form.format(**values) + ".png"] = slide
    return found


def partition(paths: list[str]) -> dict[str, list[str]]:
    numbers, names = slides_of(lambda: paths)
    found = defaultdict(list)
    for path, number in zip(paths, numbers):
        found[names[number]].append(path)
    return found


@pytest.mark.parametrize("kind", SLIDES)
def test_forms_of_names(kind: str) -> None:
    for form in (*FORMS, *WITH_BLANKS):
        truth = tiles(form, SLIDES[kind])
        found = partition(sorted(truth))
        assert sorted(len({truth[path] for path in paths}) for paths in found.values()) == [1] * 6, (
            form,
            sorted(found),
        )


@pytest.mark.parametrize(
    "form", ["{c}/{s}_{n}", "{c}/{s}_{x}_{y}", "{c}/{s}_{n}_{x}_{y}", "{c}/{s}_512_{y}", "{c}/{s}_{y}_0"]
)
def test_slides_that_end_in_numbers_are_never_divided(form: str) -> None:
    """Where it cannot be told whether the last number is a slide's, slides of a case may be one."""
    truth = tiles(form, [f"S12-0034{number // 2}_{number % 2 + 1}" for number in range(6)])
    found = partition(sorted(truth))
    of_slide = defaultdict(set)
    for name, paths in found.items():
        for path in paths:
            of_slide[truth[path]].add(name)
    assert all(len(names) == 1 for names in of_slide.values())
    assert len(found) in (3, 6)


def random_name(length: int = 8) -> str:
    return "".join(random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=length))


PUBLIC = {
    "NCT-CRC": ([f"{c}/{c}-{random_name()}.tif" for c in ("ADI", "TUM") for _ in range(30)], None),
    "NCT-CRC, validation": ([f"{c}/{c}-TCGA-{random_name()}.tif" for c in ("ADI", "TUM") for _ in range(30)], None),
    "NCT-CRC in its folder": (
        [f"./NCT-CRC-HE-100K/{c}/{c}-{random_name()}.tif" for c in ("ADI", "TUM") for _ in range(30)], None,
    ),
    "NCT-CRC, both": (
        [f"NCT-{d}K/{c}/{c}-{random_name()}.tif" for d in (100, 7) for c in ("ADI", "TUM") for _ in range(30)], None,
    ),
    "PCam in its folder": ([f"pcam/{c}/{number}.png" for c in "01" for number in range(30)], None),
    "slides of letters": ([f"{c}/{s}/{n}.png" for c, s in ("Ta", "Tb", "Nb", "Nc") for n in range(9)], 3),
    "few slides above classes": ([f"S12-10{s}/{c}/{n}.png" for s in "12" for c in "abc" for n in range(9)], 2),
    "PCam": ([f"{c}/{number}.png" for c in "01" for number in range(30)], None),
    "PCam, Kaggle": ([f"train/{random.getrandbits(160):040x}.tif" for _ in range(60)], None),
    "BACH": ([f"Benign/b{number:03}.tif" for number in range(30)], None),
    "LC25000": ([f"lung_aca/lungaca{number}.jpeg" for number in range(30)], None),
    "one column": ([f"TUM/{512 * number}.png" for number in range(30)], None),
    "columns and rows": ([f"TUM/tile_{x}_{y}.png" for x in range(9) for y in range(x % 3, 9)], None),
    "photographs": ([f"TUM/photo_{a}_{b}.png" for a in range(9) for b in range(4)], None),
    "class and number": ([f"{c}/{c}_{number}.png" for c in ("ADI", "TUM") for number in range(30)], None),
    "one tile a slide": ([f"TUM/S{number}_1_2.png" for number in range(30)], None),
    "IDC": ([f"{p}/{c}/{p}_idx5_x{51 + x}_y51_class{c}.png" for p in (8863, 8864) for c in "01" for x in range(5)], 2),
    "BreaKHis": (
        [f"A/SOB_B_A_14-25{s}AB/{m}X/SOB_B_A-14-25{s}AB-{m}-00{i}.png" for s in "12" for m in (40, 400) for i in "12"],
        2,
    ),
    "WILDS": ([f"patient_00{p}_node_4/patch_patient_00{p}_node_4_x_{x}_y_9.png" for p in "123" for x in range(9)], 3),
    "MSI": ([f"MSS/blk-{random_name()}-TCGA-A{p}-4315-01Z-00-DX1.png" for p in range(3) for _ in range(9)], 3),
    "CPTAC": ([f"C3N-0100{p}-21_{x}_{x}.png" for p in range(3) for x in range(9)], 3),
    "BCCD": ([f"WBC/BloodImage_{a:05}_{b:04}.jpg" for a in range(9) for b in range(a % 4 + 1)], 9),
    "one slide": ([f"TUM/S01_{x}_{y}.png" for x in range(9) for y in range(x % 3, 9)], 1),
    "composed and not": ([f"TUM/{name}_{n}_0.png" for name in ("\u00e9l", "e\u0301l", "el") for n in range(9)], 2),
    "one pyramid": ([f"CMU-1_files/{level}/{x}_0.jpeg" for level in (8, 9) for x in range(9)], 1),
    "pyramids": ([f"CMU-{s}_files/{level}/{x}_0.jpeg" for s in (1, 2) for level in (8, 9) for x in range(9)], 2),
    "places first": ([f"{512 * x}_{256 * y}_slide_{s}.png" for s in "123" for x in range(9) for y in range(3)], None),
    "cores": ([f"TMA_{t}/core_{row}_{n}.png" for t in "123" for row in "ABC" for n in range(9)], None),
    "own folders": ([f"Phase_1_00{s}/Phase_1_00{s}_{n}.png" for s in range(1, 9) for n in range(9 + s)], 8),
    "thumbnails": ([f"S12-0{number}.svs.jpg" for number in range(10, 30)], None),
    "a stray file": ([*(f"TUM/S{n % 3}_{n}_0.png" for n in range(60)), "TUM/overview.png"], 4),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_data_sets_and_names_without_slides(name: str) -> None:
    paths, slides = PUBLIC[name]
    if slides is None:
        with pytest.raises(UnknownGroupsError, match="tiles"):
            slides_of(lambda: paths)
    else:
        assert len(partition(paths)) == slides


def test_what_was_found_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="dinov2"):
        slides_of(lambda: ["a/S1_0_0.png", "a/S1_0_1.png", "b/S2_0_0.png", "b/S2_0_1.png", "b/S1_1_1.png"])
    assert "5 tiles of 2 slides with 2 to 3 tiles each, such as 'S1'" in caplog.text


def test_names_that_are_found_in_different_ways_are_equal() -> None:
    first = partition([f"TUM/TCGA-AA-3555-01Z-00-DX1.0a1b2c3d-1111_{n}_0.png" for n in range(3)])
    assert list(first) == list(partition([f"tcga-aa-3555-01z-00-dx1.svs/{n}_0.png" for n in range(3)]))
    assert list(partition([f"S7.svs [x={n},y=0].png" for n in range(3)])) == ["S7"]


def test_a_tar_of_hs2p_is_a_slide() -> None:
    rule = SlideNames("S7.tiles.tar")
    rule.look_at(["000001.jpg", "000002.jpg"])
    rule.decide()
    assert rule.name("000001.jpg") == "S7"


def test_patients_of_barcodes() -> None:
    slides = Groups(
        [[0, 0, 2], [1, 2, 1], [2, 3, 1]], ["TCGA-AA-3555-01Z-00-DX1", "C3L-00001-21", "TCGA-AA-3555-01Z-00-DX2"]
    )
    found = patients(slides)
    assert found.names == ("TCGA-AA-3555", "C3L-00001")
    assert found.of(np.arange(4)).tolist() == [0, 0, 1, 0]
    with pytest.raises(UnknownGroupsError, match="1 of 1 slides have other names, such as 'S1'"):
        patients(Groups([[0, 0, 2]], ["S1"]))
