"""Which segments are a dead process's, and which of them are removed."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from segment_image import Image, write

from otel_trading import _layout as at
from otel_trading import segment
from otel_trading.segment import making, remains, role
from otel_trading.segment.process import boot_id, is_alive


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory that segments can be made in."""
    path = tmp_path / "segments"
    path.mkdir(mode=0o700)
    return path


def start_of(pid: int) -> int:
    """Give field 22 of a process's stat file, without which nothing tells a reused pid."""
    stat_file = Path(f"/proc/{pid}/stat")
    if not stat_file.exists():
        pytest.skip("there is no /proc here")
    return int(stat_file.read_bytes().rpartition(b")")[2].split()[19])


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """Give the pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_the_newest_of_the_dead_are_kept(directory: Path, dead_pid: int) -> None:
    """Of the segments of dead processes the newest 8 stay; those of living ones all do."""
    for number in range(12):
        write(directory / f"dead-{number:02}.seg", Image(pid=dead_pid, created_ns=1000 + number))
    for number in range(12):
        write(directory / f"live-{number:02}.seg", Image(pid=os.getppid(), created_ns=number))
    os.close(segment.create("bot", directory).fd)
    names = sorted(path.name for path in directory.iterdir())
    assert [name for name in names if name.startswith("dead")] == [f"dead-{number:02}.seg" for number in range(4, 12)]
    assert sum(name.startswith("live") for name in names) == 12


def test_what_was_before_an_exec_is_dead(directory: Path) -> None:
    """A process that makes a segment has no other one: what is there under its pid is of the program that it was."""
    for number in range(12):
        write(directory / f"before-{number:02}.seg", Image(pid=os.getpid(), created_ns=1000 + number))
    os.close(segment.create("bot", directory).fd)
    names = sorted(path.name for path in directory.glob("before-*"))
    assert names == [f"before-{number:02}.seg" for number in range(4, 12)]


def test_closed_segments_have_places_of_their_own(directory: Path, dead_pid: int) -> None:
    """What was closed with open orders does not push out what is left of crashes, and the newest 16 of it stay."""
    for number in range(20):
        write(directory / f"closed-{number:02}.seg", Image(pid=dead_pid, created_ns=1000 + number, closed=1))
    write(directory / "own.seg", Image(pid=os.getpid(), created_ns=1, closed=1))
    for number in range(3):
        write(directory / f"dead-{number:02}.seg", Image(pid=dead_pid, created_ns=1 + number))
    assert not any(found.alive for found in segment.segments(directory))
    os.close(segment.create("bot", directory).fd)
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("bot"))
    expected = [f"closed-{number:02}.seg" for number in range(4, 20)]
    assert names == [*expected, *(f"dead-{number:02}.seg" for number in range(3))]


def left_to_agent(number: int, pid: int, *, settled: bool = False) -> Image:
    """Give a closed segment that an agent is to drain."""
    image = Image(pid=pid, created_ns=1000 + number, closed=1)
    image.set_control(host=at.HOST_AGENT)
    image.record(probe=0, start=1, end=2)
    if settled:
        image.settled(1)
    return image


def test_what_an_agent_has_still_to_export_is_kept(directory: Path, dead_pid: int) -> None:
    """It counts with neither the dead nor those with orders; what an agent has settled, or has in hand, does."""
    for number in range(40):
        write(directory / f"waits-{number:02}.seg", left_to_agent(number, dead_pid))
        write(directory / f"settled-{number:02}.seg", left_to_agent(number, dead_pid, settled=True))
    held = role.claim(directory / "settled-00.seg")
    assert held is not None
    try:
        os.close(segment.create("bot", directory).fd)
    finally:
        os.close(held)
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("bot"))
    settled = ["settled-00.seg", *(f"settled-{number:02}.seg" for number in range(24, 40))]
    assert names == [*settled, *(f"waits-{number:02}.seg" for number in range(40))]


@pytest.mark.parametrize("rule", ["_KEPT_FOR_AGENT", "_KEPT_BYTES"])
def test_an_agent_that_never_comes_costs_no_more_than_so_much(
    directory: Path, dead_pid: int, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number, and by the memory that they take: the newest stay, and 16 of those before them as of any."""
    for number in range(40):
        write(directory / f"waits-{number:02}.seg", left_to_agent(number, dead_pid))
    size = (directory / "waits-00.seg").stat().st_blocks * 512
    monkeypatch.setattr(making, rule, 10 * size if rule == "_KEPT_BYTES" else 10)
    os.close(segment.create("bot", directory).fd)
    names = sorted(path.name for path in directory.glob("waits-*"))
    assert names == [f"waits-{number:02}.seg" for number in range(14, 40)]


@pytest.mark.parametrize(
    ("kind", "code", "crashed"),
    [
        (at.ENDING_NONE, 0, False),
        (at.ENDING_EXIT, 1, False),
        (at.ENDING_EXCEPTION, 1, True),
        (at.ENDING_SIGNAL, 15, False),
        (at.ENDING_SIGNAL, 2, False),
        (at.ENDING_SIGNAL, 11, True),
        (1 << 63, 0, False),
    ],
)
def test_which_end_is_a_crash(directory: Path, kind: int, code: int, crashed: bool) -> None:  # noqa: FBT001
    """An exception, and a signal by which nobody asks for an end; such a segment is again that of one that died."""
    image = Image(pid=os.getpid(), closed=1)
    image.set_life(ending=kind, ending_code=code)
    path = write(directory / "own.seg", image)
    assert remains.has_crashed(str(path)) == crashed
    remains.mark_died(str(path))
    assert not segment.segments(directory)[0].closed
    remains.mark_closed(str(path))
    assert segment.segments(directory)[0].closed


def test_releasing_what_is_no_whole_segment(directory: Path) -> None:
    """A header that says nonsense of its rings has no byte of the file changed but those of rings that can be."""
    image = Image(rings=1)
    for offset in (at.OFF_RING_SLOTS_OFFSET, at.OFF_RING_OPEN_OFFSET, at.OFF_RING_ARENA_OFFSET):
        struct.pack_into("<Q", image.bytes, image.rings + offset, (1 << 64) - 4096)
    struct.pack_into("<I", image.bytes, at.OFF_HEADER_RING_COUNT, 1 << 31)
    struct.pack_into("<I", image.bytes, at.OFF_HEADER_EXTENT_COUNT, 1 << 31)
    path = write(directory / "odd.seg", image)
    segment.release(str(path))
    assert path.read_bytes() == bytes(image.bytes)


def test_a_reused_pid_is_a_dead_process(directory: Path) -> None:
    """A process that lives under the pid, but started at another time, is not the one that wrote the segment."""
    start = start_of(os.getpid())
    write(directory / "old.seg", Image(pid=os.getpid(), process_start=start + 1, created_ns=1))
    write(directory / "own.seg", Image(pid=os.getpid(), process_start=start, created_ns=2))
    assert [found.alive for found in segment.segments(directory)] == [False, True]


def test_another_boot_is_a_dead_process(directory: Path) -> None:
    """On a disk, segments outlive the system that they were written on."""
    high, low = boot_id()
    if not high:
        pytest.skip("the system has no boot id")
    for number, boot in enumerate([(high, low), (high ^ 1, low)]):
        image = Image(pid=os.getpid(), created_ns=number)
        struct.pack_into("<QQ", image.bytes, at.OFF_HEADER_BOOT_ID, *boot)
        write(directory / f"{number}.seg", image)
    assert [found.alive for found in segment.segments(directory)] == [True, False]


def test_a_zombie_is_dead() -> None:
    """A process that has ended writes no more, even where nobody has waited for it."""
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        start = start_of(process.pid)
        assert process.stdout is not None
        assert process.stdout.read() == b""  # its end of the pipe is closed when it ends
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process.pid, start)
    assert not is_alive(process.pid, start)


def test_without_proc(monkeypatch: pytest.MonkeyPatch, dead_pid: int) -> None:
    """Where there is no /proc, a signal that does nothing tells."""

    def absent(*_: object, **__: object) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", absent)
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    assert is_alive(os.getpid(), 5)
    assert not is_alive(dead_pid, 5)


def test_who_can_not_be_asked_is_taken_for_alive(monkeypatch: pytest.MonkeyPatch, dead_pid: int) -> None:
    """A process that ran out of file descriptors must not remove what another one writes."""

    def exhausted(*_: object, **__: object) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("builtins.open", exhausted)
    assert is_alive(dead_pid, 5)


def test_only_segments_of_ours_are_removed(directory: Path, tmp_path: Path, dead_pid: int) -> None:
    """Links, pipes, directories, other files, other formats, half a segment, another's: all stay, however many."""
    outside = write(tmp_path / "outside.seg", Image(pid=dead_pid, created_ns=1))
    half = Image(pid=dead_pid, created_ns=1)
    for number in range(10):
        write(directory / f"dead-{number}.seg", Image(pid=dead_pid, created_ns=100 + number))
        (directory / f"link-{number}.seg").symlink_to(outside)
        os.mkfifo(directory / f"pipe-{number}.seg")
        (directory / f"directory-{number}.seg").mkdir()
        (directory / f"text-{number}.seg").write_text("not a segment")
        write(directory / f"other-{number}.txt", Image(pid=dead_pid, created_ns=1))
        write(directory / f"version-{number}.seg", Image(pid=dead_pid, created_ns=1, version=at.VERSION + 1))
        write(directory / f"making-{number}.seg", Image(pid=dead_pid, created_ns=1, version=0))
        (directory / f"half-{number}.seg").write_bytes(half.bytes[: len(half.bytes) // 2])
        if os.geteuid() == 0:
            os.chown(write(directory / f"foreign-{number}.seg", Image(pid=dead_pid, created_ns=1)), 12345, -1)
    before = {path.name for path in directory.iterdir()}
    os.close(segment.create("bot", directory).fd)
    gone = before - {path.name for path in directory.iterdir()}
    assert gone == {"dead-0.seg", "dead-1.seg"}
    assert len(segment.segments(directory)) == 8
