"""Data set strings are split into what they were joined from, and --input-dir becomes one."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinov2.errors import UserError
from dinov2.train.train import get_args_parser
from dinov2.utils.config import get_cfg_from_args
from dinov2.utils.dataset_strings import datasets_of_inputs, join_dataset_string, split_dataset_string

keys = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
awkward = st.text(alphabet=st.sampled_from("ab/.:=\"' \\\n,[]{}$é\udce9"), min_size=1, max_size=12)


@given(st.lists(st.tuples(keys, awkward), max_size=4))
def test_every_value_survives(pairs):
    assert split_dataset_string(join_dataset_string("ImageFolder", pairs)) == ("ImageFolder", pairs)


def test_quotes_and_separators():
    text = """Pathology:root="/a:b/c=d":extra='/e f':subset=x=y:note="a ""b"" 'c'":other='it''s'"""
    assert split_dataset_string(text)[1] == [
        ("root", "/a:b/c=d"),
        ("extra", "/e f"),
        ("subset", "x=y"),
        ("note", "a \"b\" 'c'"),
        ("other", "it's"),
    ]
    assert join_dataset_string("CSV", [("file", "/a/b-1.csv")]) == "CSV:file=/a/b-1.csv"


@pytest.mark.parametrize(
    "text", ["A:", "A:b", "A:b=", "A:b=c:", "A:b=c::d=e", 'A:b="c', "A:b='c'd", 'A:b="c"d":e=f', "A:1b=c", "A:b=c:/d"]
)
def test_what_is_not_understood(text):
    with pytest.raises(UserError, match=r"expected key=value"):
        split_dataset_string(text)


def test_inputs(tmp_path):
    for name in ("a: b", 'c"d', "tiles.csv.d"):
        (tmp_path / name).mkdir()
    folders = [str(tmp_path / name) for name in ("a: b", 'c"d', "tiles.csv.d", "missing")]
    found = datasets_of_inputs([*folders, f"{tmp_path}/x.h5", f"{tmp_path}/list.CSV", f"{tmp_path}/y.hdf5", "z.csv"])
    assert split_dataset_string(found[0]) == ("ImageFolder", [("root", folder) for folder in folders])
    assert split_dataset_string(found[1]) == ("HDF5", [("file", f"{tmp_path}/x.h5"), ("file", f"{tmp_path}/y.hdf5")])
    assert found[2] == f"CSV:file={tmp_path}/list.CSV"
    assert found[3].startswith("CSV:file=/") and found[3].endswith("z.csv")
    assert len(found) == 4
    assert datasets_of_inputs(folders[3]) == f"ImageFolder:root={tmp_path}/missing"


def configured(tmp_path, *arguments):
    return get_cfg_from_args(get_args_parser().parse_intermixed_args(["--output-dir", str(tmp_path), *arguments]))


def test_one_string_or_a_list_of_them(tmp_path):
    assert configured(tmp_path).train.dataset_path == "ImageNet:split=TRAIN"
    several = configured(tmp_path, "train.dataset_path=[ImageFolder:root=/a,'CSV:file=\"/b: c,d\"']")
    assert list(several.train.dataset_path) == ["ImageFolder:root=/a", 'CSV:file="/b: c,d"']
    (tmp_path / "file.yaml").write_text("train:\n  dataset_path:\n    - ImageFolder:root=/a\n    - CSV:file=/b\n")
    listed = configured(tmp_path, "--config-file", str(tmp_path / "file.yaml"))
    assert list(listed.train.dataset_path) == ["ImageFolder:root=/a", "CSV:file=/b"]
    again = configured(tmp_path, "--config-file", str(tmp_path / "file.yaml"), "train.dataset_path=ImageFolder:root=/c")
    assert again.train.dataset_path == "ImageFolder:root=/c"


def test_inputs_on_the_command_line(tmp_path):
    folder = tmp_path / 'it\'s "here": a=b, c'
    folder.mkdir()
    cfg = configured(tmp_path, "--input-dir", str(folder), "--input-dir", f"{tmp_path}/x.h5")
    assert split_dataset_string(cfg.train.dataset_path[0]) == ("ImageFolder", [("root", str(folder))])
    assert cfg.train.dataset_path[1] == f"HDF5:file={tmp_path}/x.h5"
    with pytest.raises(UserError, match="give one of them"):
        configured(tmp_path, "--input-dir", str(folder), "train.dataset_path=[a,b]")


@pytest.mark.parametrize("value", ["[]", "3", "[a,3]", "['']", "null", '[X:root="a: b"]'])
def test_values_that_are_no_data_set_strings(value, tmp_path):
    with pytest.raises(UserError, match=r"train\.dataset_path=.*expected a data set string, or a list of them"):
        configured(tmp_path, f"train.dataset_path={value}")


@pytest.mark.parametrize("setting", ["train.dataset_path=ImageFolder:root={}", "MODEL.WEIGHTS={}", "--input-dir={}"])
def test_a_path_that_is_not_utf_8_is_refused_by_name(tmp_path, setting):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/Pr\xe4parate")
    with pytest.raises(UserError, match=r"Pr\\xe4parate.* not UTF-8"):
        configured(tmp_path, setting.format(folder))
