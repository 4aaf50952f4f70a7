"""Temporaries: whose they are, and when they may go."""

import os
import time

import pytest

from dinov2.utils.atomic import atomic_path, remove, remove_abandoned, temporary_path, write_text


def test_a_temporary_says_who_writes_it_and_goes_at_the_end(tmp_path):
    with temporary_path(tmp_path / "file.bin") as temporary:
        machine = os.uname().nodename.partition(".")[0]
        assert temporary.name.startswith(f".file.bin.{machine}.{os.getpid()}.")
        temporary.mkdir()
        (temporary / "part").write_text("")
        remove_abandoned(tmp_path)  # it is this process's own
        assert temporary.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_the_next_writer_of_a_file_removes_what_a_killed_one_left(tmp_path):
    killed = os.fork()
    if killed == 0:
        with atomic_path(tmp_path / "file.txt") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), 9)
    os.waitpid(killed, 0)
    other = tmp_path / f".other.txt.{os.uname().nodename.partition('.')[0]}.{killed}.0123abcd.tmp"
    other.write_text("")
    assert len(list(tmp_path.iterdir())) == 2
    write_text(tmp_path / "file.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file.txt", other.name])
    remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_writers_on_other_machines_have_a_day(tmp_path):
    folder = tmp_path / ".step-0000001.node07.12.0123abcd.tmp"
    folder.mkdir()
    (folder / "part").write_text("")
    long_ago = time.time() - 90_000
    os.utime(folder, (long_ago, long_ago))
    remove_abandoned(tmp_path)
    assert folder.is_dir()  # a file in it is young
    os.utime(folder / "part", (long_ago, long_ago))
    remove_abandoned(tmp_path)
    assert not folder.exists()


@pytest.mark.parametrize("name", [".hidden.tmp", "step.node.1.0123abcd.tmp", ".step.node.x.0123abcd.tmp"])
def test_files_of_others_are_left_alone(tmp_path, name):
    path = tmp_path / name
    path.write_text("")
    os.utime(path, (0, 0))
    remove_abandoned(tmp_path)
    assert path.exists()


def test_removing_follows_no_links(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    remove(tmp_path / "missing")
    assert (tmp_path / "folder" / "file").exists()
    assert not (tmp_path / "link").exists()
