"""Names, keys and values of data set strings, and what wrong ones are answered with."""

import re
from pathlib import Path

import pytest
from dataset_making import MAKERS

from dinov2.data import make_dataset
from dinov2.data.datasets import DATASETS, parse_dataset_string, registry
from dinov2.errors import UserError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Patholgy:root=a:extra=b",
            r"did you mean Pathology or .*\?\nData sets are written\n  Pathology:root=...:extra=...\[:subset",
        ),
        ("", r"unknown data set ''"),
        ("Pathology:root=a:extra=b:subst=c", r"did you mean subset\?\nPathology is written Pathology:root="),
        ("Pathology:root=a", r"lacks extra=...; it is written Pathology:root=...:extra=...\[:subset=...\]"),
        ("ImageNet:split=TRAIN", r"lacks root=... and extra=...; it is written ImageNet:split=TRAIN\|VAL\|TEST:root="),
        ("Pathology:root=a:root=b:extra=c", "root .* takes one value and is given several times"),
        ("KNN:root=a:extra=b:split=val", "split=val of data set KNN: expected query or test"),
        ("ImageNet:split=train:root=a:extra=b", "expected TRAIN or VAL or TEST"),
        ("ImageFolder:root=a:recursive=yes", "recursive=yes of data set ImageFolder: expected true or false"),
        ("ImageFolder:root=a:held_out=some", "held_out=some .*: expected a number"),
        ("ImageFolder:root=''", "root= of data set ImageFolder: expected a text"),
        ("Pathology:root=/nowhere:extra=/nowhere", "pretrain_dataset.tar does not exist"),
        ("ImageFolder:root=/nowhere", "does not exist"),
    ],
)
def test_wrong_strings(text, message):
    with pytest.raises(UserError, match=message):
        make_dataset(dataset_str=text)


def test_values_are_read_by_their_kind():
    _, settings = parse_dataset_string(
        "ImageFolder:root=a:root=b:recursive=false:extensions=.png,JPG:held_out=0.25:split=held_out"
    )
    assert settings == {
        "root": ["a", "b"],
        "recursive": False,
        "extensions": [".png", "JPG"],
        "held_out": 0.25,
        "split": "held_out",
    }
    spec, settings = parse_dataset_string("HDF5:file=a.h5")
    assert (spec.factory.__name__, settings) == ("HDF5Dataset", {"file": ["a.h5"]})


def test_every_syntax_line_is_documented_and_can_be_written(tmp_path):
    documented = re.sub(r"\n\s+", "", registry.__doc__)
    for name, spec in DATASETS.items():
        assert spec.syntax(name) in documented
        folder = tmp_path / name
        folder.mkdir()
        assert len(make_dataset(dataset_str=MAKERS[name](folder).string)) == 6


def test_keys_are_parameters_of_the_class():
    for spec in DATASETS.values():
        code = spec.factory.__init__.__code__
        assert set(spec.required + spec.optional) <= set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
        assert set(spec.lists) | set(spec.kinds) <= set(spec.required + spec.optional)


def test_importing_opens_no_optional_package():
    source = Path(registry.__file__).with_name("hdf5.py").read_text()
    assert not re.search(r"^import h5py|^from h5py", source, re.MULTILINE)
