"""Folders of images: what is found, in which order, and which tiles are held out."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from dataset_making import overwrite, picture, write_pictures
from PIL import Image

from dinov2.data import make_dataset
from dinov2.data.datasets import ImageFolderDataset, TileReadError, UnknownGroupsError
from dinov2.errors import UserError


@pytest.fixture
def alarm() -> Iterator[None]:
    """Fails a test that would wait for ever."""

    def fail(*_: object) -> NoReturn:
        raise TimeoutError("it did not end")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def names_of(dataset: ImageFolderDataset) -> list[str]:
    return [
        dataset.path_of(index).relative_to(root).as_posix()
        for index in range(len(dataset))
        for root in dataset.roots
        if dataset.path_of(index).is_relative_to(root)
    ]


def touch(root: Path, *names: str) -> Path:
    """Pictures under these names."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(root / name, format="PNG")
    return root


def test_folder_by_folder_without_what_is_hidden(tmp_path):
    touch(tmp_path, "b/2.PNG", "b/10.png", "b/deep/er/1.jpg", "b-c/1.tif", "z.png", "a/.hidden.png", ".git/1.png")
    (tmp_path / "b" / "notes.txt").write_text("")
    dataset = ImageFolderDataset(root=str(tmp_path))
    assert names_of(dataset) == ["z.png", "b/10.png", "b/2.PNG", "b/deep/er/1.jpg", "b-c/1.tif"]
    assert dataset.classes == ["", "b", "b-c"]
    assert dataset.get_targets().tolist() == [0, 1, 1, 1, 2]


def test_what_is_hidden_is_counted(tmp_path, caplog):
    touch(tmp_path, "a/1.png", "a/.ipynb_checkpoints/1.png", "__MACOSX/a/1.png", "a/@eaDir/1.png", "a/._1.png")
    assert names_of(ImageFolderDataset(root=str(tmp_path))) == ["a/1.png"]
    assert "4 hidden folders and images, such as __MACOSX, are left out" in caplog.text


def test_files_directly_in_the_folder_only(tmp_path):
    touch(tmp_path, "z.png", "y.png", "b/1.png")
    dataset = make_dataset(dataset_str=f"ImageFolder:root={tmp_path}:recursive=false")
    assert names_of(dataset) == ["y.png", "z.png"]
    assert (dataset.classes, dataset.get_targets().tolist()) == ([""], [0, 0])


def test_extensions_in_any_case_with_or_without_a_dot(tmp_path):
    touch(tmp_path, "a.TIF", "b.tiff", "c.png", "d.vtif")
    dataset = make_dataset(dataset_str=f"ImageFolder:root={tmp_path}:extensions=tif,.PNG")
    assert names_of(dataset) == ["a.TIF", "c.png"]


def test_classes_of_several_folders_are_merged_by_name(tmp_path):
    touch(tmp_path / "one", "b/1.png", "a/1.png")
    touch(tmp_path / "two", "c/1.png", "b/2.png")
    dataset = make_dataset(dataset_str=f"ImageFolder:root={tmp_path}/two:root={tmp_path}/one")
    assert names_of(dataset) == ["b/2.png", "c/1.png", "a/1.png", "b/1.png"]
    assert (dataset.classes, dataset.get_targets().tolist()) == (["a", "b", "c"], [1, 2, 0, 1])


def test_classes_are_in_alphabetical_order(tmp_path):
    dataset = ImageFolderDataset(root=str(touch(tmp_path, "2/1.png", "10/1.png")))
    assert dataset.classes == ["10", "2"]


def test_links_that_go_in_circles_end(tmp_path, caplog, alarm):
    touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with caplog.at_level("WARNING", logger="dinov2"):
        assert names_of(ImageFolderDataset(root=str(tmp_path))) == ["a/1.png", "b/1.png"]
    assert [f"{tmp_path}/{name}/up" in caplog.text for name in "ab"] == [True, True]


def test_what_is_no_file_is_never_waited_for(tmp_path, alarm):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "piped.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    dataset = ImageFolderDataset(root=str(tmp_path))
    assert names_of(dataset) == ["a.png", "gone.png"]
    with pytest.raises(TileReadError, match=r"tile 1 \(.*gone\.png\) cannot be read: No such file"):
        dataset[1]


def test_file_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"gr\xfc\xdf.png")
    dataset = ImageFolderDataset(root=str(touch(tmp_path, f"a/{name}")))
    assert np.array_equal(np.asarray(dataset[0][0]), picture(0))


def test_a_slide_among_tiles_is_not_read(tmp_path):
    touch(tmp_path, "a.png")
    os.truncate(tmp_path / "a.png", 1 << 32)
    with pytest.raises(
        TileReadError, match="has 4,294,967,296 bytes, more than an image of the 16,777,216 pixels that data"
    ):
        ImageFolderDataset(root=str(tmp_path))[0]


def test_folders_that_cannot_be_used(tmp_path, monkeypatch):
    touch(tmp_path, "a/b/1.png")
    for string, message in (
        (f"root={tmp_path}/none", "none does not exist"),
        (f"root={tmp_path}/a/b/1.png", r"1\.png is a single image"),
        (f"root={tmp_path}:extensions=.jpg", r"holds no images \(\.jpg\)"),
        (f"root={tmp_path}:recursive=false", "holds no images .* itself; recursive=true"),
        (f"root={tmp_path}:root={tmp_path}/a", "in the data set twice"),
        (f"root={tmp_path}/a:root={tmp_path}/a", "in the data set twice"),
    ):
        with pytest.raises(UserError, match=message):
            make_dataset(dataset_str=f"ImageFolder:{string}")

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("dinov2.data.datasets.folder_walk.os.scandir", refuse)
    with pytest.raises(UserError, match=f"folder {tmp_path} cannot be listed: Permission denied"):
        make_dataset(dataset_str=f"ImageFolder:root={tmp_path}")


def test_check_lists_the_images_that_do_not_decode(tmp_path):
    paths = write_pictures(tmp_path)
    string = f"ImageFolder:root={tmp_path}:check=true"
    assert len(make_dataset(dataset_str=string)) == 6
    overwrite(paths[1])
    overwrite(paths[4], b"")
    with pytest.raises(UserError, match="2 of 6 images cannot be used") as caught:
        make_dataset(dataset_str=string)
    assert f"\n  {paths[1]}: is not a usable image: expected JPEG" in str(caught.value)
    assert f"\n  {paths[4]}: " in str(caught.value)


SLIDES = [f"s{slide}_{tile}.png" for slide in range(20) for tile in range(3)]


def split(tmp_path: Path, name: str, options: str = "") -> ImageFolderDataset:
    string = f"ImageFolder:root={tmp_path}/tiles:held_out_list={tmp_path}/held_out.txt:split={name}{options}"
    return make_dataset(dataset_str=string)


def test_whole_slides_are_held_out_and_stay_so(tmp_path):
    touch(tmp_path / "tiles", *SLIDES)
    train, held_out = (names_of(split(tmp_path, name, ":held_out=0.2")) for name in ("train", "held_out"))
    assert sorted(train + held_out) == sorted(SLIDES)
    groups = (tmp_path / "held_out.txt").read_text().split()
    assert {name.partition("_")[0] for name in held_out} == set(groups)
    assert not {name.partition("_")[0] for name in train} & set(groups)
    assert len(groups) == 4

    added = touch(tmp_path / "tiles", "new_0.png", f"{groups[0]}_99.png")
    assert names_of(split(tmp_path, "held_out")) == sorted([*held_out, f"{groups[0]}_99.png"])
    assert sorted(names_of(split(tmp_path, "train", ":held_out=0.9"))) == sorted([*train, "new_0.png"])
    assert (tmp_path / "held_out.txt").read_text().split() == groups
    without_split = make_dataset(dataset_str=f"ImageFolder:root={added}:held_out_list={tmp_path}/held_out.txt")
    assert names_of(without_split) == names_of(split(tmp_path, "train"))
    assert len(make_dataset(dataset_str=f"ImageFolder:root={added}")) == 62


@pytest.mark.parametrize("text", ["s2\r\ns13\r\n", "\ufeffs2\r\ns13", "\ufeffs2\ns13\n"])
def test_a_list_that_an_editor_on_windows_saved_holds_out_the_same(text, tmp_path, caplog):
    touch(tmp_path / "tiles", *SLIDES)
    (tmp_path / "held_out.txt").write_bytes(text.encode())
    assert names_of(split(tmp_path, "held_out")) == [n for n in sorted(SLIDES) if n.partition("_")[0] in ("s2", "s13")]
    assert "no tiles here" not in caplog.text


def test_listed_slides_that_there_are_not_are_named(tmp_path, caplog):
    touch(tmp_path / "tiles", *SLIDES)
    (tmp_path / "held_out.txt").write_text("s2\ns13.svs\n")
    assert len(split(tmp_path, "held_out")) == 3
    assert "1 of 2 groups" in caplog.text
    assert "such as 's13.svs', have no tiles here" in caplog.text


def test_slides_as_groups_to_draw_from(tmp_path):
    touch(tmp_path / "one", "a/s1_1.png", "a/s2_1.png", "b/s1_2.png", "b/deep/x.png", "b/s2_7.png")
    groups = ImageFolderDataset(root=str(tmp_path / "one")).get_groups("slide")
    assert (groups.names, groups.sizes.tolist()) == (("deep", "s1", "s2"), [1, 2, 2])
    assert groups.of(np.arange(5)).tolist() == [1, 2, 1, 2, 0]
    with pytest.raises(UserError, match="does not know the cohort"):
        ImageFolderDataset(root=str(tmp_path / "one")).get_groups("cohort")


def test_the_choice_is_a_function_of_the_names(tmp_path):
    touch(tmp_path / "tiles", *SLIDES)
    split(tmp_path, "train", ":held_out=0.3")
    assert (tmp_path / "held_out.txt").read_text().split() == ["s13", "s15", "s3", "s5", "s7", "s8"]


def test_splits_have_the_classes_of_all_tiles_and_fit_several_folders(tmp_path):
    touch(tmp_path / "one", "a/s1_1.png", "a/s2_1.png", "b/s2_2.png")
    touch(tmp_path / "two", "c/s1_9.png", "c/s3_1.png")
    (tmp_path / "list.txt").write_text("s2\ngone\n")
    strings = [
        f"ImageFolder:root={tmp_path}/one:root={tmp_path}/two:held_out_list={tmp_path}/list.txt:split={name}"
        for name in ("train", "held_out")
    ]
    train, held_out = (make_dataset(dataset_str=string) for string in strings)
    assert train.classes == held_out.classes == ["a", "b", "c"]
    assert (names_of(train), train.get_targets().tolist()) == (["a/s1_1.png", "c/s1_9.png", "c/s3_1.png"], [0, 2, 2])
    assert (names_of(held_out), held_out.get_targets().tolist()) == (["a/s2_1.png", "b/s2_2.png"], [0, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (":held_out=0.1", "add held_out_list=FILE"),
        (":split=held_out", "add held_out_list=FILE"),
        (":held_out_list={0}/new.txt", "does not exist; to have it made, add held_out=0.1"),
        (":held_out_list={0}/new.txt:held_out=1.5", "between 0 and 1"),
        (":held_out_list={0}/new.txt:held_out=nan", "between 0 and 1"),
        (":held_out_list={0}/other.txt", "names no group of these tiles, such as 's0'"),
        (":held_out_list={0}/all.txt", "holds out all groups"),
        (":held_out_list={0}/file.txt/new.txt:held_out=0.5", "cannot be written"),
    ],
)
def test_splits_that_cannot_be_made(options, message, tmp_path):
    touch(tmp_path / "tiles", "s0_1.png", "s0_2.png", "s1_1.png", "s1_2.png")
    (tmp_path / "other.txt").write_text("x\n")
    (tmp_path / "all.txt").write_text("s0\ns1\n")
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(UserError, match=message):
        make_dataset(dataset_str=f"ImageFolder:root={tmp_path}/tiles{options.format(tmp_path)}")


@pytest.mark.parametrize("name", ["ADI-ABCDEFGH{}.png", "{}.png", "tile_{}_0.png"])
def test_unknown_slides_are_neither_held_out_nor_drawn(name, tmp_path):
    touch(tmp_path / "tiles", *(f"ADI/{name.format(number)}" for number in range(4)))
    for what in (f":held_out_list={tmp_path}/new.txt:held_out=0.5", ""):
        with pytest.raises(UnknownGroupsError, match="tiles is of is not known: 4 of 4 tiles .* CSV:file=LIST"):
            make_dataset(dataset_str=f"ImageFolder:root={tmp_path}/tiles{what}").get_groups("slide")


def test_slides_of_one_name_in_two_folders_are_one_and_said(tmp_path, caplog):
    for root in ("A", "B"):
        touch(tmp_path / root, "ADI/S01_0_0.png", "ADI/S01_0_1.png", f"ADI/{root}2_0_0.png", f"ADI/{root}2_0_1.png")
    dataset = ImageFolderDataset(root=[str(tmp_path / "A"), str(tmp_path / "B")])
    assert dataset.get_groups("slide").sizes.tolist() == [2, 2, 4]
    assert "1 slides, such as 'S01', are in several of the folders" in caplog.text
    caplog.clear()
    assert dataset.get_groups("slide").size == 8
    assert not caplog.text


def test_one_slide_cannot_be_held_out_of_itself(tmp_path):
    touch(tmp_path / "tiles", "s_1.png", "s_2.png")
    with pytest.raises(UserError, match="all tiles seem to come from 's'"):
        split(tmp_path, "train", ":held_out=0.5")
