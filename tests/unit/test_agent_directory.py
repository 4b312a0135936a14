"""Segments are found as they come: once each, and what is none is not looked at for ever."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import wait_until
from segment_image import Image, write

from otel_trading import _layout as at
from otel_trading.agent import directory as subject
from otel_trading.agent.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """Give a directory of segments."""
    made = tmp_path / "segments"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def directory(where: Path) -> Iterator[Directory]:
    """Give it as the agent sees it."""
    made = Directory(str(where))
    yield made
    made.close()


def names(directory: Directory) -> list[str]:
    """Look; gives the new files' names."""
    return [os.path.basename(found.path) for found in directory.look()]


def test_each_is_found_once_and_the_oldest_first(where: Path, directory: Directory) -> None:
    """What comes between two looks is new, the rest is known; a file of another kind is none."""
    assert names(directory) == []
    write(where / "b.seg", Image(pid=os.getpid(), created_ns=1))
    write(where / "a.seg", Image(pid=os.getpid(), created_ns=2))
    (where / "agent.lock").touch()
    assert names(directory) == ["b.seg", "a.seg"]
    assert names(directory) == []
    write(where / "c.seg", Image(pid=os.getpid(), created_ns=3))
    assert names(directory) == ["c.seg"]


def test_one_that_is_removed_and_comes_again(where: Path, directory: Directory) -> None:
    """A name is new again when a look has missed it, or it was to be forgotten."""
    path = write(where / "a.seg", Image(pid=os.getpid(), created_ns=1))
    assert names(directory) == ["a.seg"]
    path.unlink()
    assert names(directory) == []
    write(path, Image(pid=os.getpid(), created_ns=2))
    assert names(directory) == ["a.seg"]
    directory.forget(str(path))
    os.utime(where)
    assert names(directory) == ["a.seg"]


def test_one_that_is_not_published_yet(where: Path, directory: Directory) -> None:
    """It is found when its process has laid it out, though the directory does not change then."""
    path = write(where / "a.seg", Image(pid=os.getpid(), created_ns=1, version=0))
    old = time.time_ns() - 10**10
    os.utime(where, ns=(old, old))
    assert names(directory) == names(directory) == []
    path.write_bytes(bytes(Image(pid=os.getpid(), created_ns=1).bytes))
    assert os.stat(where).st_mtime_ns == old
    assert names(directory) == ["a.seg"]


def test_the_kernel_tells_of_new_files(where: Path, directory: Directory) -> None:
    """A signal for each file that comes; one that is not published yet is expected to be, for a while."""
    told: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, _: told.append(number))
    try:
        assert directory.tell_changes()
        path = write(where / "a.seg", Image(pid=os.getpid(), created_ns=1, version=0))
        wait_until(lambda: told)
        assert names(directory) == []
        assert directory.expects
        told.clear()
        path.write_bytes(bytes(Image(pid=os.getpid(), created_ns=1).bytes))
        assert names(directory) == ["a.seg"]
        assert not directory.expects
        write(where / "b.seg", Image(pid=os.getpid(), created_ns=2))
        wait_until(lambda: told)
        assert names(directory) == ["b.seg"]
    finally:
        signal.signal(signal.SIGIO, before)


def test_where_the_kernel_does_not_tell(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and looks as before."""

    def refused(*_: object) -> None:
        raise OSError(errno.EINVAL, "no such thing")

    monkeypatch.setattr(fcntl, "fcntl", refused)
    assert not directory.tell_changes()
    assert names(directory) == []


def test_what_is_no_segment_is_not_expected_for_ever(
    where: Path, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a moment it is looked at with the others."""
    (where / "text.seg").write_text("no segment")
    assert names(directory) == []
    assert directory.expects
    monkeypatch.setattr(subject, "_SOON", -1.0)
    assert not directory.expects


def test_what_is_no_segment_is_given_up(where: Path, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, links and other formats are read for a while, and no more then; the others are found all the same."""
    (where / "text.seg").write_text("no segment")
    (where / "link.seg").symlink_to(write(where.parent / "outside.seg", Image(pid=os.getpid(), created_ns=1)))
    write(where / "other.seg", Image(pid=os.getpid(), created_ns=1, version=at.VERSION + 1))
    assert names(directory) == []
    looked: list[str] = []
    monkeypatch.setattr(subject, "find", looked.append)
    assert names(directory) == []
    assert len(looked) == 3
    monkeypatch.setattr(subject, "_GIVE_UP", -1.0)
    assert names(directory) == []
    looked.clear()
    assert names(directory) == []
    assert looked == []


def test_a_directory_that_is_gone(where: Path, directory: Directory) -> None:
    """It is told, and nothing is raised."""
    assert not directory.gone
    shutil.rmtree(where)
    assert directory.gone
    assert names(directory) == []
