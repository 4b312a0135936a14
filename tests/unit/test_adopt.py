"""Another process's segment, drained in this one: live, dead, of another boot, and one that lies."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from adopting import EVERYTHING, Adopting, Program, drained, field, totals, wait_for_records
from adopting import adopting as adopting  # noqa: PLC0414  a fixture
from conftest import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_image import Image, write

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import backend, core

if TYPE_CHECKING:
    from otel_trading._native import SpanState

KINDS = ("foreign: ", "version: ", "truncated: ", "damaged: ")
WORDS = [0, 1, 7, 8, 64, 4095, 4096, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 1]
LIMITS = (128, 128, 128, 128, 128, 0xFFFFFFFF, 0xFFFFFFFF)
DEATH = ot.probe("adopt.death", tier=0)
pytestmark = pytest.mark.usefixtures("quiet")

# Records as it is told on its standard input, and says when it has.
TOLD = """
import sys, threading, time
import otel_trading as ot
from otel_trading._backend import core
ot.configure("told", sys.argv[1], {"ring.slots": 1024, "ring.thread_slots": 256, "ring.open_spans": 64,
             "ring.arena_bytes": 1 << 18, "names.max": 2048, "drain.period": 60})
core.drain_stop(1.0)
core.drain_give()
probes, open_spans = {}, []
def work(name, first, count):
    probe = probes.setdefault(name, ot.probe(name, tier=2, sla="5ms"))
    for number in range(first, first + count):
        with probe.span(number=number, text="x" * 100, symbol="BTCUSDT") as span:
            span.add_event("event", {"number": number})
print("ready", flush=True)
for line in sys.stdin:
    what, name, first, count = line.split()
    if what == "span":
        work(name, int(first), int(count))
    elif what == "thread":
        thread = threading.Thread(target=work, args=(name, int(first), int(count)))
        thread.start()
        thread.join()
    elif what == "open":
        for number in range(int(first), int(first) + int(count)):
            open_spans.append(ot.probe(name).span(number=number))
            open_spans[-1].begin()
    elif what == "values":
        ot.counter(name + ".count", unit="{order}").add(int(first))
        ot.gauge(name + ".gauge").set(float(count))
        ot.histogram(name + ".values").record(float(count))
    elif what == "close":
        core.close()
    print("done", flush=True)
"""


class Told:
    """A program that records what it is told to."""

    def __init__(self, adopting: Adopting) -> None:
        self.program = Program(adopting.directory, TOLD)
        adopting.programs.append(self.program)

    def __call__(self, what: str, name: str, first: int, count: int) -> None:
        """Have it done."""
        process = self.program.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{what} {name} {first} {count}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"


@pytest.fixture
def told(adopting: Adopting) -> Told:
    """Start a program that records what it is told to, and that another process is to drain."""
    return Told(adopting)


def numbers(states: list[SpanState]) -> list[int]:
    """Give the spans' numbers."""
    return [int(state[11]["number"]) for state in states]


# ---- a live one


def test_it_is_drained_while_it_records(adopting: Adopting, told: Told) -> None:
    """Names, probes, rings and instruments that come later are seen as they come."""
    told("span", "first", 0, 10)
    adopting.adopt()
    assert (core.adopted(), core.is_open()) == (True, False)
    core.keep(1000)
    assert numbers(drained()) == list(range(10))
    told("span", "second", 10, 5)
    told("thread", "third", 15, 5)
    told("values", "some", 3, 4)
    states = drained()
    assert sorted(numbers(states)) == list(range(10, 20))
    assert {state[11]["symbol"] for state in states} == {"BTCUSDT"}
    assert all(len(state[15]) == 1 and state[11]["text"] == "x" * 100 for state in states)
    snapshot = core.snapshot()
    probes = {probe["name"]: probe for probe in snapshot["probes"]}
    assert [probes[name]["count"] for name in ("first", "second", "third")] == [10, 5, 5]
    assert (probes["third"]["tier"], probes["third"]["sla_ns"]) == (2, 5_000_000)
    values = {one["name"]: one for one in snapshot["instruments"]}
    assert (values["some.count"]["value"], values["some.count"]["unit"]) == (3, "{order}")
    assert values["some.gauge"]["value"] == 4.0
    assert values["some.values"]["total"][1] == 1
    assert [ring["head"] for ring in snapshot["rings"]][1] in {5, 6}  # 6: with a pause of the collector
    assert snapshot["segment"]["rings_damaged"] == 0
    assert totals()["exported"] == 20


def test_nothing_of_this_process_is_recorded_into_it(adopting: Adopting, told: Told) -> None:
    """Spans, instruments and faults of the process that adopts leave no trace in the segment."""
    told("span", "first", 0, 3)
    adopting.adopt()
    before = adopting.heads(), adopting.header(at.OFF_HEADER_FAULTS), adopting.header(at.OFF_HEADER_PROBE_COUNT, 4)
    with ot.probe("adopt.mine"), DEATH.span(number=1):
        ot.counter("adopt.mine.count").add(1)
    core.fault()
    assert core.interrupt_open("no", True) == 0
    assert before == (
        adopting.heads(),
        adopting.header(at.OFF_HEADER_FAULTS),
        adopting.header(at.OFF_HEADER_PROBE_COUNT, 4),
    )


def test_times_are_those_of_the_recorder(adopting: Adopting, told: Told) -> None:
    """Unix times agree with what a reader of the segment says, to the accuracy of the calibration."""
    told("span", "first", 0, 3)
    adopting.adopt()
    core.keep(10)
    states = drained()
    fd = os.open(adopting.path, os.O_RDONLY)
    reader = core.Reader(fd)
    os.close(fd)
    for state, seen in zip(states, [one for one in reader.read(100) if "number" in one[11]], strict=True):
        assert abs(state[5] - seen[5]) < 1_000_000
        assert 0 <= state[6] - state[5] < 60_000_000_000
    reader.close()


def test_it_is_encoded_as_its_own_process_would(adopting: Adopting, told: Told) -> None:
    """The OTLP request has the names of the adopted segment's tables."""
    told("span", "first", 0, 3)
    adopting.adopt()
    core.keep(10)
    core.drain(True)
    batch = core.take(10)
    assert batch.scopes() == [""]
    data = batch.otlp(b"", b"", [(b"", b"")])
    assert all(text in data for text in (b"first", b"BTCUSDT", b"event"))
    core.let_go()
    with pytest.raises(RuntimeError, match="gone"):
        batch.otlp(b"", b"", [(b"", b"")])
    with pytest.raises(RuntimeError, match="gone"):
        batch.states()


def test_who_drains_is_told(adopting: Adopting, told: Told) -> None:
    """The control page has the pid of who drains, and that it is an agent's process, as long as it does."""
    told("span", "first", 0, 3)
    adopting.adopt()
    assert adopting.control(at.OFF_CONTROL_DRAINED_BY) == os.getpid()
    assert adopting.control(at.OFF_CONTROL_HOST_NOW) == at.HOST_AGENT
    core.let_go()
    assert adopting.control(at.OFF_CONTROL_DRAINED_BY) == 0
    assert not core.adopted()


def test_one_segment_at_a_time(adopting: Adopting, told: Told, tmp_path: Path) -> None:
    """Neither a second one can be adopted, nor one of its own made, before it is let go."""
    told("span", "first", 0, 1)
    adopting.adopt()
    with pytest.raises(RuntimeError):
        adopting.adopt()
    with (tmp_path / "own").open("w+b") as file:
        with pytest.raises(RuntimeError):
            core.open(file.fileno(), b"{}", 64, 16, 8, 16384, 256, 64, LIMITS)
        core.let_go()
        core.let_go()
        core.open(file.fileno(), b"{}", 64, 16, 8, 16384, 256, 64, LIMITS)
        with pytest.raises(RuntimeError):
            adopting.adopt()
        core.let_go()
        assert core.is_open()
        core.close()


def test_a_child_that_is_forked_leaves_it_alone(adopting: Adopting, told: Told) -> None:
    """In a fork of the process that adopts nothing is adopted; the parent drains on."""
    told("span", "first", 0, 5)
    adopting.adopt()
    core.keep(100)
    core.drain(True)
    pid = os.fork()
    if pid == 0:
        fine = not core.adopted() and not core.is_open() and core.drain(True) == 0
        core.let_go()
        core.close()
        with contextlib.suppress(BaseException):
            adopting.adopt()  # which it may, in its own right, as far as this module goes
            fine = fine and core.adopted()
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    told("span", "first", 5, 5)
    assert numbers(drained()) == list(range(10))


def test_a_file_that_is_cut_is_left_alone(adopting: Adopting, told: Told, tmp_path: Path) -> None:
    """A pass over a file that has become shorter touches nothing of it."""
    told("span", "first", 0, 5)
    copy = tmp_path / "copy"
    copy.write_bytes(adopting.path.read_bytes())
    adopting.adopt(copy)
    core.keep(100)
    os.truncate(copy, copy.stat().st_size - at.PAGE)
    assert core.drain(True) == 0
    assert core.kept() == 0


# ---- a dead one


def test_what_was_open_is_ended_by_who_inherits(adopting: Adopting, told: Told) -> None:
    """More spans than the table holds, in pieces at the file's end; a span of the heir's comes behind them."""
    told("span", "first", 0, 3)
    told("open", "left", 100, 200)
    told.program.kill()
    adopting.adopt()
    core.keep(1000)
    core.inherit()
    assert core.is_open()
    assert core.interrupt_open("signal 9", True) == 200
    assert core.interrupt_open("signal 9", True) == 0
    with DEATH.span(number=-1) as span:
        span.set_attribute("cause", "a text that is in no table")
    states = drained()
    assert numbers(states) == [0, 1, 2, *range(100, 300), -1]
    assert {state[9] for state in states[3:-1]} == {"signal 9"}
    assert all(state[8] & at.FLAG_INTERRUPTED and state[7] == at.STATUS_ERROR for state in states[3:-1])
    assert states[-1][11]["cause"] == "a text that is in no table"
    probes = [probe["name"] for probe in core.snapshot()["probes"]]
    assert probes.index("adopt.death") > probes.index("left")
    assert probes[states[-1][0]] == "adopt.death"
    path = adopting.path
    core.close()
    assert field(path, at.OFF_HEADER_CLOSED, 4) == 1
    fd = os.open(path, os.O_RDONLY)
    reader = core.Reader(fd)
    os.close(fd)
    assert reader.accounts()[0]["exported"] == 1
    assert "adopt.death" in [probe[0] for probe in reader.probes()]
    reader.close()


def test_only_what_is_adopted_is_inherited(adopting: Adopting) -> None:
    """Without an adopted segment there is nothing to inherit."""
    with pytest.raises(RuntimeError):
        core.inherit()
    assert not list(adopting.directory.glob("*.seg"))


def test_probes_have_their_own_ids_again(adopting: Adopting, told: Told, tmp_path: Path) -> None:
    """After a segment was inherited and closed, this process records into one of its own as before."""
    told("span", "first", 0, 3)
    told.program.kill()
    adopting.adopt()
    core.inherit()
    late = ot.probe("adopt.late")
    with late, DEATH:
        pass
    core.close()
    with (tmp_path / "own").open("w+b") as file:
        core.open(file.fileno(), b"{}", 64, 16, 8, 16384, 256, 64, LIMITS)
        with late, DEATH:
            pass
        counts = {probe["name"]: probe["count"] for probe in core.snapshot()["probes"]}
        assert (counts["adopt.late"], counts["adopt.death"]) == (1, 1)
        assert "first" not in counts
        core.close()


def test_killed_between_a_span_and_its_entry(adopting: Adopting, told: Told) -> None:
    """A span that was written, and whose entry was not freed any more, is not written again as interrupted."""
    told("open", "left", 0, 2)
    told("span", "first", 7, 1)
    told.program.kill()
    path = adopting.path
    ring = adopting.header(at.OFF_HEADER_RINGS_OFFSET)
    head = adopting.heads()
    slots, entries, mask = (
        field(path, ring + at.OFF_RING_SLOTS_OFFSET, 8),
        field(path, ring + at.OFF_RING_OPEN_OFFSET, 8),
        field(path, ring + at.OFF_RING_CAPACITY, 4) - 1,
    )
    with path.open("r+b") as file:
        file.seek(slots + ((head - 1) & mask) * at.SIZE_SLOT)
        slot = bytearray(file.read(at.SIZE_SLOT))
        slot[at.OFF_SLOT_STATE] = at.SLOT_OPEN
        slot[at.OFF_SLOT_SEQ : at.OFF_SLOT_SEQ + 8] = (4).to_bytes(8, "little")
        file.seek(entries + 5 * at.SIZE_SLOT)
        file.write(slot)
        if backend == "native":  # and, before that, not told by the head
            file.seek(ring + at.OFF_RING_HEAD)
            file.write((head - 1).to_bytes(8, "little"))
    adopting.adopt()
    core.keep(100)
    core.inherit()
    assert core.interrupt_open("killed", True) == 2
    assert sorted(numbers(drained())) == [0, 1, 7]
    assert totals()["pending"] == 0


# ---- of another boot


def test_a_segment_of_another_boot_keeps_its_clock(adopting: Adopting, told: Told, tmp_path: Path) -> None:
    """Its ticks mean nothing today: times are those of its own last calibration, which stays as it was."""
    told("span", "first", 0, 3)
    told("open", "left", 3, 1)
    told.program.kill()
    copy = tmp_path / "old"
    data = bytearray(adopting.path.read_bytes())
    (control,) = struct.unpack_from("<Q", data, at.OFF_HEADER_CONTROL_OFFSET)
    data[at.OFF_HEADER_BOOT_ID : at.OFF_HEADER_BOOT_ID + 16] = b"another boot's !"
    shift = 86_400 * 10**9  # a day ago
    (anchor,) = struct.unpack_from("<Q", data, control + at.OFF_CONTROL_ANCHOR_UNIX_NS)
    struct.pack_into("<Q", data, control + at.OFF_CONTROL_ANCHOR_UNIX_NS, anchor - shift)
    clock = slice(control + at.OFF_CONTROL_CALIBRATION, control + at.OFF_CONTROL_NS_PER_TICK + 8)
    copy.write_bytes(data)
    adopting.adopt(copy)
    core.keep(100)
    core.inherit()
    assert core.interrupt_open("reboot", True) == 1
    states = drained()
    fd = os.open(copy, os.O_RDONLY)
    reader = core.Reader(fd)
    os.close(fd)
    assert [state[5:7] for state in states] == [state[5:7] for state in reader.read(100)]
    reader.close()
    assert all(abs(state[5] - (anchor - shift)) < 60 * 10**9 for state in states)
    assert states[-1][6] >= states[-1][5]
    assert copy.read_bytes()[clock] == data[clock]
    core.close()


# ---- one that lies


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\0" * 10_000, bytes(Image().bytes[:1000])])
def test_what_is_no_segment(tmp_path: Path, data: bytes) -> None:
    """Files that can not be segments are refused, with what is wrong with them."""
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("r+b") as file, pytest.raises(ValueError, match=r"^(foreign|truncated|damaged): "):
        core.adopt(file.fileno())
    assert not core.adopted()


def test_a_segment_of_another_release(tmp_path: Path) -> None:
    """Another version of the format is refused."""
    path = write(tmp_path / "file", Image(version=at.VERSION + 1))
    with path.open("r+b") as file, pytest.raises(ValueError, match=r"^version: "):
        core.adopt(file.fileno())


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    """A segment that was opened for reading alone, or a directory, is an error of the system's, or no segment."""
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises((OSError, ValueError)):
        core.adopt(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        core.adopt(fd)


@pytest.fixture(scope="module")
def recorded() -> Iterator[bytes]:
    """Record a segment with this backend, half drained: spans with all they can have, values, open spans, marks."""
    with tempfile.TemporaryFile() as file:
        core.open(file.fileno(), b'{"service.name":"hostile"}', 64, 16, 8, 16384, 256, 64, LIMITS)
        outer, inner = core.Probe("hostile.outer", 0), core.Probe("hostile.inner", 2, 1000, True)
        histogram = core.Histogram("hostile.values")
        core.keep(100)
        for number in range(30):
            with outer.span(number=number, text="x" * 200, short="s", rate=0.5) as span:
                span.set_attribute("last", [number])
                span.add_event("event", {"number": number})
                span.update_name("named")
                inner.stop(inner.start())
                histogram.record(number)
            if number == 15:
                core.drain()
                core.take(10).settle()
                core.take(5).sent()
        thread = threading.Thread(target=lambda: inner.stop(inner.start()))
        thread.start()
        thread.join()
        core.drain_give()
        left_open = [outer.span(open=True), inner.span()]
        for span in left_open:
            span.begin()
        yield os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
        core.close()


def use(fd: int) -> None:
    """Do with a segment all that a drain host does."""
    core.adopt(fd)
    try:
        core.accounts()
        core.keep(1000)
        core.drain()
        core.fit_buffers()
        core.pin(1)
        batch = core.take(20)
        batch.states()
        batch.otlp(b"", b"", [(b"", b"")] * len(batch.scopes()))
        batch.sent()
        batch.settle(1)
        core.drain(True)
        core.snapshot()
        core.inherit()
        core.interrupt_open("hostile", True)
        with DEATH.span(number=1, text="y" * 100):
            pass
        core.drain(True)
        while len(batch := core.take(1000)):
            batch.states()
            batch.settle()
        core.accounts()
    finally:
        core.close()
    assert not core.adopted()


def places(data: bytes) -> list[tuple[int, int]]:
    """Give the parts of a segment that say where others are, or what they are: (offset, bytes)."""
    words = {
        name: struct.unpack_from("<Q", data, value)[0]
        for name, value in vars(at).items()
        if name.startswith("OFF_HEADER_") and name.endswith("_OFFSET")
    }
    rings = words["OFF_HEADER_RINGS_OFFSET"]
    slots = struct.unpack_from("<Q", data, rings + at.OFF_RING_SLOTS_OFFSET)[0]
    entries = struct.unpack_from("<Q", data, rings + at.OFF_RING_OPEN_OFFSET)[0]
    arena = struct.unpack_from("<Q", data, rings + at.OFF_RING_ARENA_OFFSET)[0]
    marks = struct.unpack_from("<Q", data, rings + at.OFF_RING_MARKS_OFFSET)[0]
    return [
        (0, at.OFF_HEADER_RESOURCE),
        (rings, 2 * at.SIZE_RING),
        (words["OFF_HEADER_PROGRESS_OFFSET"], 2 * at.SIZE_PROGRESS),
        (words["OFF_HEADER_CONTROL_OFFSET"], at.SIZE_CONTROL),
        (words["OFF_HEADER_NAMES_OFFSET"], 20 * at.SIZE_NAME),
        (words["OFF_HEADER_PROBES_OFFSET"], 4 * at.SIZE_PROBE),
        (words["OFF_HEADER_INSTRUMENTS_OFFSET"], 4 * at.SIZE_INSTRUMENT),
        (slots, 64 * at.SIZE_SLOT),
        (entries, 8 * at.SIZE_SLOT),
        (arena, 4096),
        (marks, 64),
    ]


CHANGE = st.tuples(
    st.integers(0, 10),
    st.integers(0, 1 << 16),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(WORDS) | st.integers(0, 2**64 - 1),
)


@settings(max_examples=150)
@given(changes=st.lists(CHANGE, min_size=1, max_size=6))
def test_a_damaged_segment_does_no_harm(recorded: bytes, changes: list[tuple[int, int, int, int]]) -> None:
    """It is refused, or drained as far as it makes sense; never a crash, a hang, or another exception."""
    core.close()
    data = bytearray(recorded)
    where = places(recorded)
    for part, place, size, value in changes:
        start, length = where[part]
        offset = start + place % (length // size) * size
        data[offset : offset + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        refusal = ""
        try:
            use(file.fileno())
        except ValueError as error:
            refusal = str(error)
        assert not refusal or refusal.startswith(KINDS)


def test_a_segment_that_changes_while_it_is_drained(recorded: bytes) -> None:
    """Somebody writes into all of it, all the time."""
    core.close()
    ending = threading.Event()
    with tempfile.TemporaryFile() as file:
        file.write(recorded)
        file.flush()

        def spoil() -> None:
            dice = random.Random(1)
            where = places(recorded)
            while not ending.is_set():
                start, length = dice.choice(where)
                offset = start + dice.randrange(length // 8) * 8
                os.pwrite(file.fileno(), dice.choice(WORDS).to_bytes(8, "little"), offset)
                os.pwrite(file.fileno(), recorded[offset : offset + 8], offset)

        thread = threading.Thread(target=spoil)
        thread.start()
        try:
            for _ in range(60):
                with contextlib.suppress(ValueError):
                    use(file.fileno())
                file.seek(0)
                file.write(recorded)
                file.flush()
        finally:
            ending.set()
            thread.join()


def test_a_damaged_ring_is_left_out(adopting: Adopting, told: Told) -> None:
    """The others are drained, and it is said how many were left out."""
    told("span", "first", 0, 3)
    told("thread", "first", 3, 4)
    told.program.kill()
    ring = adopting.header(at.OFF_HEADER_RINGS_OFFSET)
    with adopting.path.open("r+b") as file:
        file.seek(ring + at.OFF_RING_CAPACITY)
        file.write((3).to_bytes(4, "little"))
    adopting.adopt()
    core.keep(100)
    assert numbers(drained()) == [3, 4, 5, 6]
    assert core.snapshot()["segment"]["rings_damaged"] == 1
    assert totals()["recorded"] == 4
    core.inherit()
    with DEATH.span(number=9):
        pass
    assert numbers(drained()) == [9]


def test_a_bot_that_is_drained_for_a_while(adopting: Adopting) -> None:
    """Nothing is missing of a program that records at its ease, with the drain's own thread at work."""
    bot = adopting.bot(drains=False, slots=16_384, burst=10)
    adopting.adopt()
    core.keep(EVERYTHING)
    core.drain_start(5)
    wait_for_records(adopting, 3000)
    wait_until(lambda: core.kept() > 2000)
    bot.kill()
    states = drained()
    assert numbers(states) == list(range(len(states)))
    assert totals()["overwritten"] == 0
