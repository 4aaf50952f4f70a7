"""scripts/group_entries.py: the slide of every row, from paths, a pattern or a csv file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from indexing import ROOT, index, run, write_csv, write_list
from tar_making import END, header, member, noise, pax

from dinov2.data.groups import Groups
from dinov2.data.tar_index import (
    ArchiveError,
    ConcatRequest,
    GroupError,
    GroupRequest,
    IndexRequest,
    LabelError,
    SelectionError,
    SideFileError,
    StaleIndexError,
    concat_entries,
    group_entries,
    infer_entries,
    load_entries,
    load_groups,
)
from dinov2.data.tar_index.fingerprint import SideFileRecord, fingerprint, read_records, records_text

PATHS = (
    *(f"TUM/slide{i}/t{j}.jpg" for i in range(3) for j in range(2)),
    "notes.txt",
    *(f"NORM/s{i}_{j:03}.jpg" for i in range(2) for j in range(2)),
    "TUM/slide0/late.jpg",
)
SLIDES = ["slide0"] * 2 + ["slide1"] * 2 + ["slide2"] * 2 + ["s0"] * 2 + ["s1"] * 2 + ["slide0"]


def make_tar(path: Path, *names: str | bytes) -> Path:
    """A tar of members with these paths."""
    paths = [name if isinstance(name, bytes) else name.encode() for name in names]
    parts = [b"" if len(name) <= 100 else pax(path=name) for name in paths]
    data = [member(name[:100], noise(i, 60 + i)) for i, name in enumerate(paths)]
    path.write_bytes(b"".join(part + tile for part, tile in zip(parts, data, strict=True)) + END)
    return path


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """An indexed tar of eleven tiles of five slides."""
    path = make_tar(tmp_path / "tiles.tar", *PATHS)
    index(path)
    return path


def group(tar: Path, **fields: object) -> list[str]:
    """Group what is indexed in the folder of a tar; the warnings."""
    return group_entries(GroupRequest(tar, tar.parent, **fields)).warnings  # type: ignore[arg-type]


def loaded(folder: Path, name: str | None = None, suffix: str | None = None) -> Groups:
    groups = load_groups(folder, name, suffix=suffix)
    assert groups is not None
    return groups


def group_of_rows(folder: Path, name: str | None = None, suffix: str | None = None) -> list[str]:
    groups = loaded(folder, name, suffix)
    return [groups.names[number] for number in groups.of(np.arange(groups.size))]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_folders_below_the_first_or_file_names_up_to_the_number(tar: Path) -> None:
    assert load_groups(tar.parent, None) is None
    report = group_entries(GroupRequest(tar, tar.parent))
    assert report.warnings == [] and group_of_rows(tar.parent) == SLIDES
    runs = np.load(tar.parent / "groups.npy")
    assert runs.dtype == np.dtype("<u8")
    assert runs.tolist() == [[0, 0, 2], [1, 2, 2], [2, 4, 2], [3, 6, 2], [4, 8, 2], [0, 10, 1]]
    assert json.loads((tar.parent / "group_names.json").read_text()) == ["slide0", "slide1", "slide2", "s0", "s1"]
    assert '11 tiles in 5 groups from "slide1" with 2 to "slide0" with 3, 6 runs' in report.line()


def test_sites_beside_slides(tar: Path) -> None:
    """Both are kept, and a table says both; folders say no site."""
    group(tar)
    paths = [path for path in PATHS if path.endswith(".jpg")]
    rows = [f"{path},{slide},h{slide[0]}" for path, slide in zip(paths, SLIDES, strict=True)]
    table = write_csv(tar.parent / "slides.csv", rows, "filename,group,site")
    with pytest.raises(SelectionError, match="--kind site a tile is of has to be said by --pattern or --csv"):
        group(tar, kind="site")
    assert load_groups(tar.parent, None, kind="site") is None
    flags = ("--tarball_path", tar, "--output_root", tar.parent, "--kind", "site", "--csv", table)
    assert run("group_entries.py", *flags).returncode == 0
    sites = load_groups(tar.parent, None, kind="site")
    assert sites is not None
    assert [sites.names[number] for number in sites.of(np.arange(11))] == [f"h{slide[0]}" for slide in SLIDES]
    assert group_of_rows(tar.parent) == SLIDES
    assert {"sites.npy", "site_names.json"} <= set(contents(tar.parent))


def test_running_twice_gives_the_same(tar: Path) -> None:
    group(tar)
    first = contents(tar.parent)
    group(tar)
    assert contents(tar.parent) == first


def test_a_subset_has_groups_of_its_own(tar: Path) -> None:
    keep = write_list(tar.parent, "TUM/slide2/t1.jpg", "s0_001.jpg", "late.jpg")
    index(tar, name="a", suffix="few", keep=keep)
    group(tar, name="a", suffix="few")
    assert group_of_rows(tar.parent, "a", "few") == ["slide2", "s0", "slide0"]
    assert {"a_groups_few.npy", "a_group_names_few.json"} <= set(contents(tar.parent))
    assert load_groups(tar.parent, "a") is None


def test_hard_links_belong_to_their_own_path(tmp_path: Path) -> None:
    tar = tmp_path / "links.tar"
    parts = [
        member(b"c/slide1/a.jpg", b"tile"),
        header(b"c/slide2/link_to_a.jpg", kind=b"1", target=b"c/slide1/a.jpg"),
        member(b"c/slide3/b.jpg", b"other"),
        header(b"c/slide1/link_to_b.jpg", kind=b"1", target=b"c/slide3/b.jpg"),
    ]
    tar.write_bytes(b"".join(parts) + END)
    index(tar)
    group(tar)
    assert load_entries(tmp_path / "entries.npy")[:, 1].tolist() == [0, 1, 2, 3]
    assert group_of_rows(tmp_path) == ["slide1", "slide3", "slide2", "slide1"]


def test_folders_that_are_named_like_slides(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "t.tar", "./slide_1/x0_y1.jpg", "./slide_1/x1_y1.jpg", "./slide_2/x0_y1.jpg")
    index(tar)
    assert group(tar) == []
    assert group_of_rows(tmp_path) == ["slide_1", "slide_1", "slide_2"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"slide(\d)|s(\d)_", None),  # the first parentheses only
        (r"(?:slide|/s)(\d)", list("00112200110")),
        (r"^[A-Z]+", ["TUM"] * 6 + ["NORM"] * 4 + ["TUM"]),
    ],
)
def test_a_pattern(tar: Path, pattern: str, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(GroupError, match=r'finds nothing in 4 paths: "NORM/s0_000.jpg", "NORM/s0_001.jpg"'):
            group(tar, pattern=pattern)
        assert load_groups(tar.parent, None) is None
    else:
        group(tar, pattern=pattern)
        assert group_of_rows(tar.parent) == expected


def test_a_pattern_that_finds_missing_values(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "tiles.tar", "p_1/a.jpg", "p_nan/b.jpg", "p_NA/c.jpg", "p_1/d.jpg")
    index(path)
    with pytest.raises(GroupError, match='stand for missing values: "NA", "nan"'):
        group(path, pattern="p_([^/]+)")


def test_a_pattern_that_is_none(tar: Path) -> None:
    with pytest.raises(SelectionError, match=r"is no regular expression: .* at position 0"):
        group(tar, pattern="(\x1b")
    with pytest.raises(SelectionError, match="exclude each other"):
        group(tar, pattern="x", csv=tar)


@pytest.mark.parametrize("names", [("007", "7", "12", "0"), ("1.5", "1e5", "inf", "nice slide")])
def test_a_table_of_base_names_and_paths(tar: Path, names: tuple[str, ...]) -> None:
    rows = [f"TUM/slide{i}/t{j}.jpg,{names[i]}" for i in range(3) for j in range(2)]
    rows += [f"s{i}_{j:03}.jpg, {names[3]} " for i in range(2) for j in range(2)]
    table = write_csv(tar.parent / "g.csv", [*rows, f"late.jpg,{names[1]}", "not_here.jpg,8"], "filename,group")
    group(tar, csv=table)
    assert group_of_rows(tar.parent) == [names[i] for i in (0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 1)]
    assert loaded(tar.parent).names == names


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["late.jpg,a"], r"has no row for 10 of the tiles: .*slide0/t0.jpg.* and 5 more\. Add them to the csv"),
        (["late.jpg,a", "late.jpg,b"], '"late.jpg" has group "a" in row 2 and "late.jpg" has group "b" in row 3'),
        (["late.jpg,"], "row 2: the group is missing"),
        (["late.jpg"], "row 2: the row has 1 fields"),
    ],
)
def test_a_table_that_does_not_fit(tar: Path, rows: list[str], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        group(tar, csv=write_csv(tar.parent / "g.csv", rows, "filename,group"))
    assert load_groups(tar.parent, None) is None


def test_a_table_with_a_name_of_several_tiles(tar: Path) -> None:
    rows = [f"t{j}.jpg,a" for j in range(2)] + [f"s{i}_{j:03}.jpg,b" for i in range(2) for j in range(2)]
    table = write_csv(tar.parent / "g.csv", [*rows, "late.jpg,b"], "filename,group")
    with pytest.raises(LabelError, match=r'2 of its names stand for several .*\n  "t0.jpg": "TUM/slide0/t0.jpg"'):
        group(tar, csv=table)
    with pytest.raises(LabelError, match=r"no column 'group'.*--group_name"):
        group(tar, csv=write_csv(tar.parent / "h.csv", rows, "filename,slide"))


def test_hostile_names(tmp_path: Path) -> None:
    long = "c/" + 10**5 * "x" + "/t.jpg"
    names = ["c/a\x1b[31m\nb/t.jpg", b"c/\xff\xfe/t.jpg", long, 'c/"],"/t.jpg', "c/__proto__/t.jpg"]
    again = ["c/a\x1b[31m\nb/u.jpg", b"c/\xff\xfe/u.jpg"]
    tar = make_tar(tmp_path / "t.tar", *names, *again)
    index(tar)
    report = group_entries(GroupRequest(tar, tmp_path))
    assert loaded(tmp_path).names == ("a\x1b[31m b", "\udcff\udcfe", 10**5 * "x", '"],"', "__proto__")
    assert (tmp_path / "group_names.json").read_bytes().isascii()
    assert "\x1b" not in report.line() and "\n" not in report.line() and len(report.line()) < 500
    with pytest.raises(GroupError) as error:
        group(tar, pattern="^never")
    assert "\x1b" not in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 1500


def test_groups_of_other_entries_are_refused(tar: Path) -> None:
    group(tar)
    index(tar, keep=write_list(tar.parent, "late.jpg"))
    with pytest.raises(StaleIndexError, match=r"groups\.npy.* was made for other files.* scripts/group_entries\.py"):
        load_groups(tar.parent, None)
    group(tar)
    assert group_of_rows(tar.parent) == ["slide0"]


@pytest.mark.parametrize("file", ["groups.npy", "group_names.json"])
def test_exchanged_files_are_refused(tar: Path, file: str) -> None:
    group(tar)
    content = bytearray((tar.parent / file).read_bytes())
    content[-20] ^= 1
    (tar.parent / file).write_bytes(content)
    with pytest.raises(StaleIndexError):
        load_groups(tar.parent, None)
    (tar.parent / file).unlink()
    if file == "groups.npy":
        assert load_groups(tar.parent, None) is None
    else:
        with pytest.raises(StaleIndexError):
            load_groups(tar.parent, None)


@pytest.mark.parametrize(
    ("names", "runs", "message"),
    [
        (["a", "a"], [[0, 0, 11]], "same name"),
        (["a"], [[0, 0, 5], [0, 6, 5]], "does not begin where"),
        (["a"], [[1, 0, 11]], "does not exist"),
        (["a", 7], [[0, 0, 11]], "expected a list of names"),
        ({"a": 1}, [[0, 0, 11]], "expected a list of names"),
        (["a"], [[0, 0]], r"expected shape \(n, 3\)"),
        (["a"], [[0, 0, 10]], "10 rows, expected 11"),
    ],
)
def test_damaged_files_are_refused_even_if_their_record_fits(tar: Path, names, runs, message) -> None:
    group(tar)
    (tar.parent / "group_names.json").write_text(json.dumps(names))
    np.save(tar.parent / "groups.npy", np.array(runs, np.uint64))
    records = read_records(tar.parent, None)
    needs = {name: fingerprint(tar.parent / name) for name in ("entries.npy", "group_names.json")}
    records["groups.npy"] = [SideFileRecord(fingerprint(tar.parent / "groups.npy"), [], needs)]
    (tar.parent / "index.json").write_text(records_text(records))
    with pytest.raises(SideFileError, match=message):
        load_groups(tar.parent, None)


def test_another_archive_or_other_rows_are_refused_and_nothing_is_written(tar: Path) -> None:
    before = contents(tar.parent)
    other = make_tar(tar.parent.parent / "other.tar", *PATHS[:-1])
    with pytest.raises(StaleIndexError, match="another state"):
        group_entries(GroupRequest(other, tar.parent))
    with pytest.raises(ArchiveError, match="cannot be opened"):
        group_entries(GroupRequest(tar.parent / "none.tar", tar.parent))
    with pytest.raises(SelectionError, match="is not a folder"):
        group_entries(GroupRequest(tar, tar.parent / "none"))
    with pytest.raises(SelectionError, match="cannot be part of a file name"):
        group(tar, name="../x")
    with pytest.raises(SideFileError, match="does not exist"):
        group(tar, name="x")
    assert contents(tar.parent) == before


@pytest.mark.parametrize(
    ("damage", "row"),
    [
        (lambda rows: rows[::-1], 1),  # row 1 is behind row 0
        (lambda rows: rows[[0, 1, 1]], 2),
        (lambda rows: rows + np.array([0, 1, 0, 0], np.uint64), 0),
        (lambda rows: rows - np.array([0, 0, 0, 1], np.uint64), 0),
        (lambda rows: rows + np.array([0, 100, 0, 0], np.uint64), 0),
        (lambda rows: rows + np.array([0, 2**63, 0, 0], np.uint64), 0),
    ],
)
def test_rows_that_nobody_recorded_must_be_those_of_the_archive(tar: Path, damage, row: int) -> None:
    rows = np.load(tar.parent / "entries.npy")
    (tar.parent / "index.json").unlink()
    group(tar)
    assert group_of_rows(tar.parent) == SLIDES
    np.save(tar.parent / "entries.npy", damage(rows))
    (tar.parent / "index.json").unlink()
    with pytest.raises(StaleIndexError, match=f"row {row} of .* is not in the archive, or not in this order"):
        group(tar)


def test_a_damaged_archive_is_refused(tar: Path) -> None:
    (tar.parent / "index.json").unlink()
    content = bytearray(tar.read_bytes())
    content[1024 + 10] ^= 1
    tar.write_bytes(content)
    before = contents(tar.parent)
    with pytest.raises(ArchiveError, match="checksum"):
        group(tar)
    assert contents(tar.parent) == before


def make_cohort(folder: Path, name: str, *paths: str, grouped: bool = True) -> None:
    """An indexed cohort, with its groups."""
    tar = make_tar(folder / f"{name}.tar", *paths)
    infer_entries(IndexRequest(tar, folder, name))
    if grouped:
        group_entries(GroupRequest(tar, folder, name))


def test_groups_of_cohorts_are_joined_if_all_have_them(tmp_path: Path) -> None:
    make_cohort(tmp_path, "A", "c/s1/a.jpg", "c/s2/b.jpg", "c/s2/c.jpg")
    make_cohort(tmp_path, "B", "c/s1/a.jpg", "c/s1/b.jpg", "c/s3/c.jpg")
    np.save(tmp_path / "empty_entries.npy", np.zeros((0, 4), np.uint64))
    concat_entries(ConcatRequest(tmp_path, tmp_path))
    assert group_of_rows(tmp_path, "pretrain") == ["A/s1", "A/s2", "A/s2", "B/s1", "B/s1", "B/s3"]
    with pytest.raises(SideFileError, match="is of several cohorts"):
        group_entries(GroupRequest(tmp_path / "A.tar", tmp_path, "pretrain"))

    make_cohort(tmp_path, "C", "c/s9/a.jpg", grouped=False)
    warnings = concat_entries(ConcatRequest(tmp_path, tmp_path)).warnings
    assert 'groups are not joined, since "C" have none of these entries' in warnings
    with pytest.raises(StaleIndexError, match="pretrain_groups"):
        load_groups(tmp_path, "pretrain")

    make_cohort(tmp_path, "B", "c/s1/new.jpg", "c/s1/old.jpg", grouped=False)
    warnings = concat_entries(ConcatRequest(tmp_path, tmp_path, cohorts=("A", "B"))).warnings
    assert any("B_groups.npy" in warning and "made for other files" in warning for warning in warnings)
    group_entries(GroupRequest(tmp_path / "B.tar", tmp_path, "B"))
    concat_entries(ConcatRequest(tmp_path, tmp_path, cohorts=("A", "B")))
    assert group_of_rows(tmp_path, "pretrain") == ["A/s1", "A/s2", "A/s2", "B/s1", "B/s1"]


def test_cohorts_without_groups_need_none(tmp_path: Path) -> None:
    make_cohort(tmp_path, "A", "c/s1/a.jpg", grouped=False)
    assert concat_entries(ConcatRequest(tmp_path, tmp_path)).warnings == []
    assert load_groups(tmp_path, "pretrain") is None


def test_many_tiles_in_many_chunks(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "t.tar", *(f"c/s{i // 700}/t{i}.jpg" for i in range(5000)))
    index(tar, remove=write_list(tmp_path, *(f"t{i}.jpg" for i in range(0, 5000, 3))))
    group(tar)
    assert group_of_rows(tmp_path) == [f"s{i // 700}" for i in range(5000) if i % 3]
    assert len(loaded(tmp_path).runs) == 8


def test_the_command(tar: Path) -> None:
    done = run("group_entries.py", "--tarball_path", tar, "--output_root", tar.parent)
    assert done.returncode == 0 and "11 tiles in 5 groups" in done.stdout and done.stderr == ""
    table = write_csv(tar.parent / "g.csv", [f"{path},x" for path in PATHS], "tile,slide")
    flags = ("--tarball_path", tar, "--output_root", tar.parent)
    done = run("group_entries.py", *flags, "--csv", table, "--file_name", "tile", "--group_name", "slide")
    assert done.returncode == 0 and "11 tiles in 1 groups" in done.stdout, done.stderr
    done = run("group_entries.py", *flags, "--pattern", "nothing")
    assert done.returncode == 2 and done.stderr.startswith("error: --pattern")
    assert group_of_rows(tar.parent) == ["x"] * 11  # as they were
    index(tar, name="none", keep=write_list(tar.parent))
    done = run("group_entries.py", *flags, "--name", "none")
    assert done.returncode == 1 and "0 tiles in 0 groups, 0 runs" in done.stdout
    assert loaded(tar.parent, "none").size == 0


def test_grouping_needs_neither_torch_nor_torchvision() -> None:
    code = "import sys, dinov2.data.tar_index; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0
