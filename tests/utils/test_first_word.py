"""The first word of a command needs no library that takes long to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import dinov2

PACKAGE = Path(dinov2.__file__).parent
EVALUATIONS = ("knn", "linear", "log_regression", "cross_validate")
COMMANDS = (
    str(PACKAGE / "train" / "train.py"),
    "dinov2.train.train",
    *(f"dinov2.eval.{name}" for name in EVALUATIONS),
    "dinov2.hub",
    "dinov2.data.demo",
    "dinov2.visualize.run",
    "dinov2.run.quickstart",
    "dinov2.run.train.train",
    *(f"dinov2.run.eval.{name}" for name in EVALUATIONS),
)
SLOW = [
    "torch",
    "torchvision",
    "numpy",
    "sklearn",
    "PIL",
    "cv2",
    "matplotlib",
    "safetensors",
    "submitit",
    "tqdm",
    "h5py",
]
# Runs commands one after the other in a process that can import nothing slow; says how each of them ended.
RUNNER = """
import contextlib, io, json, runpy, signal, sys
asked, slow = json.load(sys.stdin)

class Refusal:
    def find_spec(self, name, *rest):
        if name in slow:
            raise AssertionError(f"{name} is imported before the arguments are checked")

sys.meta_path.insert(0, Refusal())
ends = []
for command, *words in asked:
    sys.argv, said, status = [command, *words], io.StringIO(), None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            run = runpy.run_path if command.endswith(".py") else runpy.run_module
            run(command, run_name="__main__", **({} if command.endswith(".py") else {"alter_sys": True}))
        except SystemExit as error:
            status = error.code
        except AssertionError as error:
            status = str(error)
    ends.append([status, said.getvalue()])
print(json.dumps(ends))
"""


def ends_of(asked, slow):
    """The status and the words of each command."""
    found = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps([asked, slow]), capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_help_and_misspelt_options_need_no_library_at_all():
    asked = [[command, word] for command in COMMANDS for word in ("--help", "--outputdri=x")]
    for (command, word), (status, said) in zip(asked, ends_of(asked, [*SLOW, "omegaconf", "yaml"])):
        assert status == (0 if word == "--help" else 2), (command, status, said)
        assert "usage: " in said, command


TRAIN, KNN, LOGISTIC = COMMANDS[0], "dinov2.eval.knn", "dinov2.eval.log_regression"
UNTRAINED = ("--untrained", "--train-dataset", "ImageFolder:root=.")


@pytest.fixture(scope="module")
def ends_of_mistakes():
    """Of each command with a mistake in `MISTAKES`, by its place there."""
    return ends_of([[command, *words] for command, words, _ in MISTAKES], SLOW)


MISTAKES = [
    (TRAIN, ["--config-file", "nowhere.yaml"], "configuration file nowhere.yaml does not exist"),
    (TRAIN, ["--input-dir", "nowhere"], "--input-dir nowhere does not exist"),
    (TRAIN, ["optim.epocs=3"], "did you mean optim.epochs"),
    (TRAIN, ["student.arch=vit_lrage"], "did you mean vit_large"),
    (TRAIN, ["train.dataset_path=ImageFolder:root=/nowhere"], "root=/nowhere"),
    (TRAIN, ["train.dataset_path=[HDF5:file=/nowhere.h5]"], "file=/nowhere.h5"),
    (TRAIN, ["--input-dir", ".", "--pretrained-weights", "nowhere.pth"], "nowhere.pth does not exist"),
    (TRAIN, ["--input-dir", ".", "--pretrained-weights", "dinov2_vits15"], "did you mean dinov2_vits14"),
    (KNN, [], "there is nothing to learn from"),
    (KNN, ["--config-file", str(PACKAGE)], "is a folder"),
    (KNN, ["--train-dataset", str(PACKAGE)], f"is a folder; one of images is written ImageFolder:root={PACKAGE}"),
    (TRAIN, [], "data set ImageNet:split=TRAIN names no folder"),
    (KNN, ["--config-file", "nowhere.yaml"], "configuration file nowhere.yaml does not exist"),
    (KNN, ["--train-dataset", "KNN:root=/nowhere:extra=.:split=query"], "root=/nowhere"),
    (KNN, [*UNTRAINED, "--val-dataset", "KNN:root=.:extra=/nowhere:split=test"], "extra=/nowhere"),
    (KNN, ["--train-dataset", "ImageFolder:root=.", "--pretrained-weights", "nowhere.pth"], "nowhere.pth"),
    (KNN, [*UNTRAINED, "studnt.arch=vit_tiny"], "did you mean student"),
    (LOGISTIC, [*UNTRAINED, "--test-datasets", "CSV:file=/nowhere.csv"], "file=/nowhere.csv"),
    (LOGISTIC, [*UNTRAINED, "--finetune-dataset-str", "CSV:file=/nowhere.csv"], "file=/nowhere.csv"),
    ("dinov2.run.eval.linear", ["--config-file", "nowhere.yaml"], "configuration file nowhere.yaml does not exist"),
    ("dinov2.run.train.train", ["optim.epocs=3"], "did you mean optim.epochs"),
    ("dinov2.hub", ["show", "dinov2_vits15"], "did you mean dinov2_vits14"),
    ("dinov2.visualize.run", ["nowhere"], "nowhere is not a folder"),
    ("dinov2.run.quickstart", ["--data", "nowhere"], "--data nowhere does not exist"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[" ".join(words) for _, words, _ in MISTAKES])
def test_mistakes_in_settings_and_missing_files_are_found_before_torch_is_imported(ends_of_mistakes, number):
    status, said = ends_of_mistakes[number]
    assert status == 2, said
    assert MISTAKES[number][2] in said
