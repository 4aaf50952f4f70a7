"""scripts/concat_entries.py: cohorts joined without mixing, doubling or renumbering them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from indexing import ROOT
from tar_making import END, member, noise

from dinov2.data.tar_index import (
    ConcatRequest,
    IndexRequest,
    LabelError,
    SelectionError,
    SideFileError,
    StaleIndexError,
    VerifyRequest,
    check_fingerprint,
    concat_entries,
    crc_name,
    infer_entries,
    load_class_ids,
    load_crc32,
    load_entries,
    load_names,
    verify_dataset,
)
from dinov2.errors import UserError


def make_cohort(folder: Path, name: str, tiles: int, *, suffix: str | None = None, csv: Path | None = None) -> None:
    """A tar of `tiles` tiles and its index."""
    tar = folder / f"{name}.tar"
    data = b"".join(member(f"{name}{i}.jpg".encode(), noise(i, 50 + 9 * i)) for i in range(tiles))
    tar.write_bytes(data + END)
    infer_entries(IndexRequest(tar, folder, name, suffix, csv=csv))


@pytest.fixture
def cohorts(tmp_path: Path) -> Path:
    """Cohorts A, B and C of 3, 2 and 4 tiles."""
    for name, tiles in (("B", 2), ("A", 3), ("C", 4)):
        make_cohort(tmp_path, name, tiles)
    return tmp_path


def join(folder: Path, **fields: object) -> list[str]:
    """Join within a folder; the warnings."""
    return concat_entries(ConcatRequest(folder, folder, **fields)).warnings  # type: ignore[arg-type]


def cohort_of_rows(folder: Path, suffix: str = "") -> list[str]:
    names = load_names(folder / "cohort_indices.npy")
    return [names[int(i)] for i in load_entries(folder / f"pretrain_entries{suffix}.npy")[:, 4]]


def test_rows_keep_their_cohort_and_place(cohorts: Path) -> None:
    (cohorts / "._A_entries.npy").write_bytes(b"what macOS puts beside a file on other disks")
    assert join(cohorts) == []
    joined = np.load(cohorts / "pretrain_entries.npy")
    assert joined.dtype == np.dtype("<u8") and joined.shape == (9, 5) and joined.flags.c_contiguous
    assert np.load(cohorts / "cohort_indices.npy", allow_pickle=True).item() == {0: "A", 1: "B", 2: "C"}
    parts = [np.load(cohorts / f"{name}_entries.npy") for name in "ABC"]
    assert (joined[:, :4] == np.concatenate(parts)).all()
    assert joined[:, 4].tolist() == [0] * 3 + [1] * 2 + [2] * 4
    for name in "ABC":
        assert check_fingerprint(cohorts, "pretrain", cohorts / f"{name}.tar")


def test_offsets_beyond_float_precision_stay_exact(tmp_path: Path) -> None:
    big = np.array([[0, 0, 2**53 + 512, 2**53 + 513], [0, 1, 2**62, 2**62 + 1]], np.uint64)
    np.save(tmp_path / "A_entries.npy", big)
    join(tmp_path)
    assert load_entries(tmp_path / "pretrain_entries.npy")[:, :4].tolist() == big.tolist()


def test_running_twice_gives_the_same(cohorts: Path) -> None:
    join(cohorts)
    first = {path.name: path.read_bytes() for path in cohorts.iterdir()}
    join(cohorts)
    assert first == {path.name: path.read_bytes() for path in cohorts.iterdir()}


def test_the_suffix_chooses_the_inputs(cohorts: Path) -> None:
    keep = cohorts / "keep.txt"
    for name in "AC":
        keep.write_text(f"{name}0.jpg\n")
        infer_entries(IndexRequest(cohorts / f"{name}.tar", cohorts, name, "train", keep=keep))
    join(cohorts)
    join(cohorts, suffix="train")
    assert cohort_of_rows(cohorts) == list("AAABBCCCC")
    assert cohort_of_rows(cohorts, "_train") == ["A", "C"]
    assert check_fingerprint(cohorts, "pretrain", cohorts / "C.tar", suffix="train")


def test_a_cohort_keeps_its_index_while_other_entries_use_it(cohorts: Path) -> None:
    join(cohorts, cohorts=("B", "C"))
    assert load_names(cohorts / "cohort_indices.npy") == {0: "B", 1: "C"}
    for name in "AC":
        infer_entries(IndexRequest(cohorts / f"{name}.tar", cohorts, name, "train"))
    join(cohorts, suffix="train")
    assert load_names(cohorts / "cohort_indices.npy") == {0: "B", 1: "C", 2: "A"}
    assert cohort_of_rows(cohorts) == list("BBCCCC")
    assert cohort_of_rows(cohorts, "_train") == list("AAACCCC")
    assert check_fingerprint(cohorts, "pretrain", cohorts / "B.tar")
    (cohorts / "pretrain_entries_train.npy").unlink()
    join(cohorts)
    assert load_names(cohorts / "cohort_indices.npy") == {0: "A", 1: "B", 2: "C"}


def test_evaluation_splits_are_left_out_unless_asked_for(cohorts: Path) -> None:
    make_cohort(cohorts, "query", 2)
    make_cohort(cohorts, "test", 2)
    [warning] = join(cohorts)
    assert '"query", "test"' in warning and cohort_of_rows(cohorts) == list("AAABBCCCC")
    join(cohorts, cohorts=("A", "test"))
    assert cohort_of_rows(cohorts) == ["A"] * 3 + ["test"] * 2


def test_other_files_are_no_cohorts(cohorts: Path) -> None:
    for name in ("entries.npy", "my_entries_old.npy", "entries_A.npy", "A_entries.npy.bak"):
        np.save((cohorts / name).open("wb"), np.zeros((1, 4), np.uint64))
    join(cohorts)
    assert cohort_of_rows(cohorts) == list("AAABBCCCC")


@pytest.mark.parametrize("empty", [np.zeros(0, np.uint64), np.zeros((0, 4), np.uint64)])
def test_an_empty_cohort_is_no_obstacle(cohorts: Path, empty: np.ndarray) -> None:
    np.save(cohorts / "AA_entries.npy", empty)
    warnings = join(cohorts)
    assert 'cohort "AA" has no tiles' in warnings
    assert load_names(cohorts / "cohort_indices.npy") == {0: "A", 1: "AA", 2: "B", 3: "C"}
    assert cohort_of_rows(cohorts) == list("AAABBCCCC")


def test_cohorts_of_the_old_tool_are_taken_with_a_warning(cohorts: Path) -> None:
    (cohorts / "B_index.json").unlink()
    [warning] = join(cohorts)
    assert '"B" was indexed without fingerprints' in warning
    assert check_fingerprint(cohorts, "pretrain", cohorts / "A.tar")
    assert check_fingerprint(cohorts, "pretrain", cohorts / "B.tar") is False
    (cohorts / "B.tar").write_bytes((cohorts / "B.tar").read_bytes()[:1024])
    with pytest.raises(StaleIndexError, match="row"):
        check_fingerprint(cohorts, "pretrain", cohorts / "B.tar")


def test_a_changed_tar_is_noticed_before_and_after(cohorts: Path) -> None:
    join(cohorts)
    (cohorts / "B.tar").write_bytes(member(b"other.jpg") + END)
    with pytest.raises(StaleIndexError, match=r"B\.tar"):
        check_fingerprint(cohorts, "pretrain", cohorts / "B.tar")
    assert check_fingerprint(cohorts, "pretrain", cohorts / "A.tar")
    with pytest.raises(StaleIndexError, match="another state"):
        join(cohorts)
    with pytest.raises(StaleIndexError, match="knows the cohorts"):
        check_fingerprint(cohorts, "pretrain", cohorts / "keep.tar")


def test_unusable_inputs_are_refused_and_nothing_is_written(cohorts: Path, tmp_path: Path) -> None:
    faults: list[tuple[str, object, type[UserError], str]] = [
        ("A_entries.npy", np.zeros((2, 4), np.uint64), StaleIndexError, "not the file"),
        ("D_entries.npy", np.zeros((2, 5), np.uint64), SideFileError, "joined already"),
        ("D_entries.npy", np.zeros((2, 4), np.int64), SideFileError, "expected elements"),
        ("D_entries.npy", np.zeros((2, 3), np.uint64), SideFileError, "expected shape"),
        ("pretrain_entries.npy", np.zeros((2, 4), np.uint64), SelectionError, "would be overwritten"),
    ]
    for name, array, error, message in faults:
        before = (cohorts / name).read_bytes() if (cohorts / name).exists() else None
        np.save(cohorts / name, np.asarray(array))
        with pytest.raises(error, match=message):
            join(cohorts)
        (cohorts / name).unlink()
        if before is not None:
            (cohorts / name).write_bytes(before)
        assert not (cohorts / "cohort_indices.npy").exists() and not (cohorts / "pretrain_entries.npy").exists()


def test_wrong_requests(cohorts: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="no file like"):
        join(cohorts, suffix="none")
    with pytest.raises(SelectionError, match='no entries of "X"'):
        join(cohorts, cohorts=("A", "X"))
    with pytest.raises(SelectionError, match="not a folder"):
        concat_entries(ConcatRequest(cohorts / "none", cohorts))
    with pytest.raises(SelectionError, match="cannot be part"):
        join(cohorts, suffix="../x")
    np.save(cohorts / "a\nb_entries.npy", np.zeros((1, 4), np.uint64))
    with pytest.raises(SelectionError, match="cannot be part"):
        join(cohorts)


def test_labels_keep_their_meaning(tmp_path: Path) -> None:
    table = tmp_path / "l.csv"
    table.write_text("filename,label\n" + "".join(f"{n}{i}.jpg,{'xyz'[i]}\n" for n in "AB" for i in range(3)))
    for name in "AB":
        make_cohort(tmp_path, name, 3, csv=table)
    out = tmp_path / "out"
    out.mkdir()
    concat_entries(ConcatRequest(tmp_path, out))
    assert load_entries(out / "pretrain_entries.npy")[:, 0].tolist() == [0, 1, 2] * 2
    assert load_class_ids(out / "class-ids.npy") == [("x", "class_x"), ("y", "class_y"), ("z", "class_z")]
    assert check_fingerprint(out, "pretrain", tmp_path / "A.tar")
    make_cohort(tmp_path, "C", 3)
    with pytest.raises(LabelError, match='"A", "B" have labels and "C" have none'):
        join(tmp_path)


def test_crc_values_are_joined_if_all_have_them(cohorts: Path) -> None:
    for name in "ABC":
        verify_dataset(VerifyRequest(cohorts / f"{name}.tar", cohorts, name, decode=False, write_crc=True))
    join(cohorts)
    values = load_crc32(cohorts, "pretrain")
    assert values is not None
    assert values.tolist() == np.concatenate([np.load(cohorts / crc_name(name)) for name in "ABC"]).tolist()
    verified = verify_dataset(VerifyRequest(cohorts, cohorts, "pretrain", decode=False))
    assert verified.good and verified.tiles == 9
    (cohorts / "B_crc32.npy").unlink()
    join(cohorts)
    assert load_crc32(cohorts, "pretrain") is not None  # the same entries: the old values still belong to them
    [warning] = join(cohorts, cohorts=("A", "B"))
    assert "deleted" in warning and load_crc32(cohorts, "pretrain") is None


def test_the_command(cohorts: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "concat_entries.py")]
    done = subprocess.run([*command, "-r", cohorts, "-o", cohorts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '9 tiles of 3 cohorts: "A" 3, "B" 2, "C" 4' in done.stdout
    done = subprocess.run(
        [*command, "--root", cohorts, "--output_root", cohorts, "--suffix", "x"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error:")
    (cohorts / "e").mkdir()
    np.save(cohorts / "e" / "Z_entries.npy", np.zeros(0, np.uint64))
    done = subprocess.run(
        [*command, "-r", cohorts / "e", "-o", cohorts / "e"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert load_entries(cohorts / "e" / "pretrain_entries.npy").shape == (0, 5)
