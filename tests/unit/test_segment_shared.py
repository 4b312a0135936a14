"""The file that a directory's processes share: made privately, left alone where it is not ours, removed by the last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_trading import segment
from otel_trading._backend import core
from otel_trading.errors import SegmentForeignError
from otel_trading.segment import shared
from otel_trading.segment.shared import remove_shared_file


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory of segments that is there."""
    where = tmp_path / "segments"
    where.mkdir(0o700)
    return where


def test_it_is_made_and_opened(directory: Path) -> None:
    """It is made once, empty, with mode 0600, and opened by all others."""
    first = segment.shared_file(directory)
    os.write(first, b"laid out")
    second = segment.shared_file(str(directory))
    assert os.read(second, 100) == b"laid out"
    (path,) = directory.iterdir()
    assert path.name == "traces.shared"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(first)
    os.close(first)
    os.close(second)


def test_the_directory_is_made(tmp_path: Path) -> None:
    """Where no process has been yet the directory is made, for its owner alone."""
    os.close(segment.shared_file(tmp_path / "new" / "one"))
    assert (tmp_path / "new" / "one").stat().st_mode & 0o777 == 0o700


def foreign_link(path: Path) -> None:
    """Plant a link."""
    path.with_name("elsewhere").touch(0o600)
    path.symlink_to(path.with_name("elsewhere"))


def foreign_pipe(path: Path) -> None:
    """Plant a pipe that nobody reads."""
    os.mkfifo(path, 0o600)


def foreign_directory(path: Path) -> None:
    """Make a directory of that name."""
    path.mkdir()


def foreign_mode(path: Path) -> None:
    """Make a file that others may write."""
    path.touch()
    path.chmod(0o622)


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (foreign_link, "is a link"),
        (foreign_pipe, "not a regular file"),
        (foreign_directory, "can not be opened"),
        (foreign_mode, "lets other users in"),
    ],
)
def test_what_is_foreign_stays(directory: Path, plant: Callable[[Path], None], what: str) -> None:
    """What could be somebody else's is refused with the remedy, and neither opened, changed, nor removed."""
    path = directory / "traces.shared"
    plant(path)
    before = path.lstat()
    for use in (segment.shared_file, remove_shared_file):
        with pytest.raises(SegmentForeignError, match=what):
            use(directory)
    after = path.lstat()
    assert (before.st_ino, before.st_mode, before.st_size) == (after.st_ino, after.st_mode, after.st_size)


def test_the_last_one_removes_it(directory: Path) -> None:
    """As long as anybody holds the directory, by a duplicate too, the file stays; the recorder may lock it itself."""
    os.close(segment.shared_file(directory))
    first, second = shared.hold_directory(directory), shared.hold_directory(str(directory))
    duplicate = os.dup(second)
    os.close(second)
    memory = os.memfd_create("segment")
    core.open(memory, b"{}", 64, 64, 16, 1 << 16, 64, 16, (128, 128, 128, 128, 128, 9, 9))
    os.close(memory)
    fd = segment.shared_file(directory)
    core.share(fd)
    os.close(fd)
    remove_shared_file(directory)
    os.close(first)
    remove_shared_file(directory)
    assert (directory / "traces.shared").exists()
    core.close()
    os.close(duplicate)
    remove_shared_file(directory)
    assert list(directory.iterdir()) == []
    remove_shared_file(directory)  # nothing to remove


def test_who_comes_while_it_is_removed_waits(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holding the directory lasts until the one that removes the file is through."""
    remover = os.open(directory, os.O_RDONLY)
    assert shared._locked(remover, alone=True)
    tries: list[float] = []

    def pause(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 3:
            os.close(remover)

    monkeypatch.setattr(time, "sleep", pause)
    os.close(shared.hold_directory(directory))
    assert len(tries) == 3
