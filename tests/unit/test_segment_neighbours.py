"""Looking for orders in other segments: how often, in how many, and what hostile files do to it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from segment_image import Image, write

import otel_trading as ot
from otel_trading import segment
from otel_trading._backend import core
from otel_trading.errors import SegmentDirectoryError
from otel_trading.segment import neighbours
from otel_trading.segment.neighbours import Neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory that segments can be made in."""
    path = tmp_path / "segments"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def look(directory: Path) -> Iterator[Callable[..., object]]:
    """Give a function that looks for an order in the directory."""
    found = Neighbours()
    yield lambda key, own=None: found.find(key, str(directory), own)
    found.close()


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note each listing of a directory."""
    seen: list[object] = []
    listdir = os.listdir

    def noted(path: object) -> list[str]:
        seen.append(path)
        return listdir(path)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(os, "listdir", noted)
    return seen


NOTHING = (None, None, True)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """Nothing is found, and nothing is made."""
    assert Neighbours().find("a", str(tmp_path / "none"), None) == NOTHING
    assert not (tmp_path / "none").exists()


def test_a_directory_that_is_not_safe(directory: Path) -> None:
    """Orders from a directory that others can write to are not believed."""
    directory.chmod(0o777)
    with pytest.raises(SegmentDirectoryError):
        Neighbours().find("a", str(directory), None)


def test_our_own_segment_is_not_looked_into(recorder: Recorder) -> None:
    """The table in our own memory is asked before."""
    ot.order("own-1", symbol="A", qty=1, price=1)
    found = Neighbours()
    assert found.find("own-1", str(recorder.directory), str(recorder.path)) == NOTHING
    found._next_scan = 0.0
    state, path, alive = found.find("own-1", str(recorder.directory) + "/.", None)
    assert (state, path, alive) == (core.order_get("own-1"), str(recorder.path), True)
    found.close()


def test_misses_are_rate_limited(directory: Path, look: Callable[..., object], listings: list[object]) -> None:
    """However many orders are looked for in vain, the directory is listed at most once in 50 ms."""
    write(directory / "one.seg", Image())
    started = time.monotonic()
    for number in range(2000):
        assert look(f"unknown-{number}") == NOTHING
    assert 1 <= len(listings) <= 1 + (time.monotonic() - started) / 0.05


def test_the_newest_segments_are_looked_into(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past 32 the oldest are passed over, and not read again."""
    for number in range(40):
        write(directory / f"{number:02}.seg", Image(created_ns=1000 + number))
    found = Neighbours()
    assert found.find("a", str(directory), None) == NOTHING
    assert sorted(found._attached) == [f"{number:02}.seg" for number in range(8, 40)]
    monkeypatch.setattr(neighbours, "attach", None)  # nothing is attached twice
    found._next_scan = 0.0
    assert found.find("a", str(directory), None) == NOTHING
    found.close()


def test_removed_segments_are_let_go(directory: Path) -> None:
    """A file that is gone is no longer held in memory."""
    paths = [write(directory / f"{number}.seg", Image()) for number in range(3)]
    found = Neighbours()
    found.find("a", str(directory), None)
    assert len(found._attached) == 3
    paths[0].unlink()
    found._next_scan = 0.0
    found.find("a", str(directory), None)
    assert sorted(found._attached) == ["1.seg", "2.seg"]
    found.close()


def test_what_is_no_segment_is_passed_over(directory: Path, tmp_path: Path, look: Callable[..., object]) -> None:
    """Links, pipes, other files, other formats: none of them is read, and none stops the search."""
    outside = write(tmp_path / "outside.seg", Image())
    (directory / "link.seg").symlink_to(outside)
    os.mkfifo(directory / "pipe.seg")
    (directory / "text.seg").write_text("text")
    (directory / "empty.seg").touch()
    write(directory / "old.seg", Image(version=1))
    assert look("a") == NOTHING


def test_another_directory(directory: Path, recorder: Recorder) -> None:
    """Where the directory changes, the segments of the old one are let go."""
    write(directory / "one.seg", Image())
    found = Neighbours()
    found.find("a", str(directory), None)
    assert found.find("a", str(recorder.directory), None)[0] is None
    assert list(found._attached) == [recorder.path.name]
    found.close()


def test_no_end_is_noted_in_what_lives_or_is_gone(recorder: Recorder, tmp_path: Path) -> None:
    """A living process's table is its own; a file that is gone, or none, is nobody's."""
    ot.order("live-1", symbol="A", qty=1)
    neighbours.note_end(str(recorder.path), "live-1", 4)
    state = core.order_get("live-1")
    assert state is not None
    assert state[3] == 1
    neighbours.note_end(str(tmp_path / "none.seg"), "live-1", 4)
    (tmp_path / "text.seg").write_text("text")
    neighbours.note_end(str(tmp_path / "text.seg"), "live-1", 4)
    assert (tmp_path / "text.seg").read_text() == "text"


def test_a_table_that_can_not_be(directory: Path) -> None:
    """A header that says nonsense of the order table has nothing written anywhere."""
    for number, header in enumerate(
        [{"max_orders": 0}, {"max_orders": 3}, {"max_orders": 1 << 31}, {"max_orders": 16, "orders_offset": 1 << 60}]
    ):
        path = write(directory / f"{number}.seg", Image(closed=1, **header))
        before = path.read_bytes()
        fd = os.open(path, os.O_RDWR)
        neighbours._write_state(fd, b"a", 4)
        os.close(fd)
        assert path.read_bytes() == before
    assert all(not found.alive for found in segment.segments(directory))
