"""Verdicts that several processes agree on, through the file that they share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from conftest import child_environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keeping import ALL, HALF, LONG, Keeping, Shared, record, trace_ids, trace_of

from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Recorder

BYTES = at.PAGE + at.VERDICTS * at.SIZE_VERDICT
ERROR = 1 << at.TRIGGER_ERROR

# A process that records as it is told by lines on its standard input, and answers each by a line.
CHILD = """
import sys, json
sys.path.insert(0, sys.argv[2])
import otel_trading as ot
from pathlib import Path
from keeping import ALL, Keeping, record
from conftest import Recorder
from otel_trading._backend import core

class Only(Recorder):
    def __init__(self, directory):
        self.directory = directory
        self.path_ = ot.lifecycle._host.path

    @property
    def path(self):
        return Path(self.path_)

ot.configure("child", sys.argv[1], {"drain.period": 60, "budget.enabled": False})
keeping = Keeping(Only(Path(sys.argv[1])), Path(sys.argv[1]) / "traces.shared")
names = {"keeping": keeping, "record": record, "core": core, "ot": ot, "ALL": ALL}
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line, names)), flush=True)
"""


class Other:
    """Another process that shares the file."""

    def __init__(self, directory: Path) -> None:
        """Start it, and wait until it records."""
        script = directory / "other.py"
        script.write_text(CHILD, encoding="utf-8")
        tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), str(directory), tests],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(directory),
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, expression: str) -> Any:
        """Have it evaluate an expression."""
        import json

        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def child_of(self, span: Any, **arguments: Any) -> int:
        """Have it record a span whose parent is of this process; gives its id."""
        parent = f"core.remote({span.trace_id}, {span.span_id}, True, None)"
        return int(self(f"record('other.part', {parent}, **{arguments}).span_id"))

    def decided(self) -> list[int]:
        """Have it decide all; the ids of the spans that it keeps."""
        return [int(span) for span in self("[state[3] for state in keeping.decided()]")]

    def drained(self) -> list[int]:
        """Have it make a pass; the ids of the spans that it keeps."""
        return [int(span) for span in self("[state[3] for state in keeping.drained()]")]


@pytest.fixture
def other(keeping: Keeping, tmp_path: Path) -> Iterator[Other]:
    """Give another process that shares this one's file."""
    assert keeping.shared.words[0] == at.SHARED_MAGIC
    other = Other(tmp_path)
    yield other
    assert other.process.stdin is not None
    other.process.stdin.close()
    assert other.process.wait(20) == 0
    assert other.process.stdout is not None
    other.process.stdout.close()


# ---- between processes ----


def test_the_root_decides_for_all(keeping: Keeping, other: Other, until: Callable[..., None]) -> None:
    """A process that has only a part of a trace does as the one with the root did, whatever its own tier says."""
    keeping.thresholds(0, HALF, HALF, ALL)
    roots = [record(tier=tier) for tier in (0, 0, 3, 3)]
    spans = [other.child_of(root, tier=tier) for root, tier in zip(roots, (1, 3, 0, 1), strict=True)]
    assert other.drained() == []
    assert trace_ids(keeping.decided()) == {root.trace_id for root in roots[:2]}
    other("keeping.policy.write({'hold': 0.001})")
    kept: list[int] = []

    def all_known() -> bool:
        kept.extend(other.drained())
        return bool(other("keeping.account(0)['pending'] + keeping.account(1)['pending'] == 0"))

    until(all_known)
    kept += other.decided()
    assert kept == spans[:2]


def test_a_late_question_is_answered(keeping: Keeping, other: Other, until: Callable[..., None]) -> None:
    """A process that asks after the root's verdict is told of it at one of the next passes."""
    keeping.thresholds(0, ALL, ALL, ALL)
    root = record(tier=0)
    assert len(keeping.decided()) == 1
    span = other.child_of(root)
    assert other.drained() == []

    def answered() -> bool:
        keeping.drained()
        verdict, threshold, _ = keeping.shared.verdicts()[root.trace_id]
        return (verdict, threshold) == (at.VERDICT_KEPT, 0)

    until(answered)
    assert other.decided() == [span]


def test_a_trigger_anywhere_keeps_the_trace_everywhere(keeping: Keeping, other: Other) -> None:
    """An error in another process's span keeps the root's and all other spans, and the other way round."""
    keeping.thresholds(ALL)
    first, second, plain = record(), record(), record()
    spans = [other.child_of(first, error=True), other.child_of(second), other.child_of(plain)]
    assert other.drained() == []
    record("keep.part", second, error=True)
    assert trace_ids(keeping.decided()) == {first.trace_id, second.trace_id}
    assert other.decided() == spans[:2]
    verdicts = keeping.shared.verdicts()
    assert verdicts[first.trace_id] == (at.VERDICT_KEPT, 0, ERROR)
    assert verdicts[second.trace_id] == (at.VERDICT_KEPT, 0, ERROR)
    assert verdicts[plain.trace_id][0] == at.VERDICT_DROPPED


def test_the_threshold_goes_with_the_verdict(keeping: Keeping, other: Other) -> None:
    """Spans of all processes say the same of what their trace was kept by."""
    keeping.thresholds(HALF, HALF, ALL, ALL)
    roots = [record() for _ in range(20)]
    for root in roots:
        other.child_of(root, tier=3)
    assert other.drained() == []
    kept = keeping.decided()
    assert trace_ids(kept) == {root.trace_id for root in roots if root.trace_id % ALL >= HALF}
    assert {state[10] for state in kept} <= {"ot=th:8"}
    states = other("[[state[2] % 10**9, state[10]] for state in keeping.decided()]")
    assert sorted(states) == sorted([root % 10**9, "ot=th:8"] for root in trace_ids(kept))


def test_without_an_answer_the_threshold_decides(keeping: Keeping, until: Callable[..., None]) -> None:
    """A part of a trace whose root nobody has waits twice as long, then its threshold decides."""
    keeping.thresholds(HALF)
    high, low = record(parent=trace_of(HALF)), record(parent=trace_of(HALF - 1))
    own = record(parent=record(tier=3))
    assert keeping.drained() == []
    asked = keeping.shared.verdicts()
    assert {asked[high.trace_id][0], asked[low.trace_id][0]} == {at.VERDICT_ASKED}
    assert own.trace_id not in asked, "its root is here"
    keeping.policy.write({"hold": 0.05})
    kept: set[int] = set()

    def decided() -> bool:
        kept.update(trace_ids(keeping.drained()))
        return keeping.account()["pending"] == 0

    until(decided)
    assert kept - {own.trace_id} == {high.trace_id}
    told = keeping.shared.verdicts()
    assert told[high.trace_id] == (at.VERDICT_KEPT, 0x8000, 0)
    assert told[low.trace_id][0] == at.VERDICT_DROPPED


def test_one_bucket_for_all(keeping: Keeping, other: Other) -> None:
    """What one process keeps is not there for the other."""
    keeping.network(0)
    other("keeping.network(0)")
    keeping.thresholds(ALL)
    keeping.shared.tokens = 1
    assert other("len([record(error=True) for _ in range(3)])") == 3
    assert len(other.decided()) == 1
    record(error=True)
    assert keeping.decided() == []
    assert keeping.shared.tokens == -59


def test_a_process_that_was_killed_leaves_the_file_usable(keeping: Keeping, tmp_path: Path) -> None:
    """SIGKILL in the middle of anything leaves nothing behind that the others would wait for."""
    keeping.thresholds(ALL)
    for _ in range(3):
        other = Other(tmp_path)
        root = record()
        other.child_of(root, error=True)
        other.drained()
        other.process.kill()
        other.process.wait()
        for pipe in (other.process.stdin, other.process.stdout):
            assert pipe is not None
            pipe.close()
        assert trace_ids(keeping.decided()) == {root.trace_id}
    keeping.share()


# ---- one process ----


def test_the_file_is_laid_out_where_it_is_empty(keeping: Keeping) -> None:
    """Magic, version and size stand there; a second process finds what the first one left."""
    assert keeping.shared_path.stat().st_size == BYTES
    words = keeping.shared.words
    assert words[at.OFF_SHARED_MAGIC // 8] == at.SHARED_MAGIC
    assert words[at.OFF_SHARED_VERSION // 8] == at.VERSION
    assert words[at.OFF_SHARED_FILE_BYTES // 8] == BYTES
    keeping.shared.tokens = 12345
    keeping.share()
    assert keeping.shared.tokens == 12345
    assert keeping.shared_path.stat().st_blocks * 512 >= BYTES, "its space is there before it is needed"


def test_without_a_file_a_process_decides_alone(keeping: Keeping) -> None:
    """-1 gives a process its own page again, and a recorder that is opened anew has one."""
    keeping.thresholds(ALL)
    record()
    assert keeping.drained() == []
    core.share(-1)
    assert keeping.drained() == [], "it met a threshold"
    record(parent=trace_of(1))
    record(parent=trace_of(2), error=True)
    assert len(keeping.drained()) == 2
    assert keeping.shared.verdicts() == {}


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"#!/bin/sh\n" + bytes(BYTES - 10), "foreign"),
        (b"x", "foreign"),
        (bytes(BYTES), "foreign"),
        (at.SHARED_MAGIC.to_bytes(8, "little") + (99).to_bytes(8, "little") + bytes(BYTES - 16), "version"),
        (
            at.SHARED_MAGIC.to_bytes(8, "little")
            + at.VERSION.to_bytes(8, "little")
            + BYTES.to_bytes(8, "little")
            + bytes(at.PAGE - 24),
            "damaged",
        ),
        (
            at.SHARED_MAGIC.to_bytes(8, "little")
            + at.VERSION.to_bytes(8, "little")
            + (1).to_bytes(8, "little")
            + bytes(BYTES - 24),
            "damaged",
        ),
    ],
)
def test_files_of_others_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """A file that is something else, of another version, or cut short, is an error that says so, and left as it is."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("r+b") as file, pytest.raises(ValueError, match=reason):
        core.share(file.fileno())
    assert path.read_bytes() == content


@pytest.mark.usefixtures("recorder")
def test_one_that_was_not_finished_is_laid_out_anew(tmp_path: Path) -> None:
    """A process that ended while it laid the file out does not keep others from it."""
    path = tmp_path / "file"
    path.write_bytes(at.SHARED_MAGIC.to_bytes(8, "little") + bytes(100))
    with path.open("r+b") as file:
        core.share(file.fileno())
    shared = Shared(path)
    assert shared.words[at.OFF_SHARED_VERSION // 8] == at.VERSION
    shared.close()


@pytest.mark.usefixtures("recorder")
def test_what_can_not_be_mapped(tmp_path: Path) -> None:
    """No regular file, a file that may only be read, and no file at all are errors."""
    reader, writer = os.pipe()
    try:
        with pytest.raises((OSError, ValueError)):
            core.share(reader)
    finally:
        os.close(reader)
        os.close(writer)
    with pytest.raises(OSError):  # noqa: PT011  whichever
        core.share(reader)
    path = tmp_path / "empty"
    path.touch()
    with path.open("rb") as file, pytest.raises(OSError):  # noqa: PT011  whichever
        core.share(file.fileno())
    with pytest.raises(TypeError):
        core.share("1")  # type: ignore[arg-type]  # the point


def test_the_table_is_bounded(keeping: Keeping) -> None:
    """More traces than the table has room for: the newest are there, and each is decided all the same."""
    keeping.thresholds(ALL)
    for first in range(0, 3 * at.VERDICTS, 256):
        for number in range(first, first + 256):
            record(
                parent=core.remote(1 << 100 | number * 0x9E3779B97F4A7C15 % (1 << 64) | 1, 7, True, None), error=True
            )
        core.drain(True)
        batch = core.take(1000)
        assert len(batch) == 256
        batch.settle()
    verdicts = keeping.shared.verdicts()
    assert at.VERDICTS // 2 <= len(verdicts) <= at.VERDICTS
    assert {verdict for verdict, *_ in verdicts.values()} == {at.VERDICT_KEPT}


def test_the_oldest_entry_makes_room(keeping: Keeping) -> None:
    """Where all places of a trace are taken, the one that changed longest ago is; one of the future counts as older."""
    keeping.thresholds(ALL)
    words = keeping.shared.words
    now = time.monotonic_ns()
    for future in (False, True):
        parent = trace_of(1 if future else 2)
        low = parent.trace_id % (1 << 64)
        places = [((low * 0x9E3779B97F4A7C15 % (1 << 64) >> 51) + i) % at.VERDICTS for i in range(at.VERDICT_PROBES)]
        for age, place in enumerate(places):
            entry = (at.PAGE + place * at.SIZE_VERDICT) // 8
            words[entry : entry + 4] = memoryview(
                b"".join(n.to_bytes(8, "little") for n in (1000 + age, 5 + future, 0, now - age * 10**9))
            ).cast("Q")
        if future:
            words[(at.PAGE + places[3] * at.SIZE_VERDICT) // 8 + 3] = now + 10**15
        record(parent=parent)
        keeping.drained()
        found = keeping.shared.verdicts()
        assert found[parent.trace_id] == (at.VERDICT_ASKED, 0, 0)
        gone = [age for age in range(at.VERDICT_PROBES) if 5 + future << 64 | 1000 + age not in found]
        assert gone == [3 if future else at.VERDICT_PROBES - 1]
    keeping.decided()


@given(data=st.binary(min_size=256, max_size=256), seed=st.integers(0, 1 << 32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_hostile_content(keeping: Keeping, data: bytes, seed: int) -> None:
    """Whatever anybody writes behind the page's head, passes go on, traces stay whole, accounts exact."""
    words = keeping.shared.words
    for first in range(at.OFF_SHARED_TOKENS // 8, len(words), 32):
        count = min(32, len(words) - first)
        words[first : first + count] = memoryview(data[: 8 * count]).cast("Q")
    keeping.policy.write({"hold": 0.0 if seed % 2 else LONG})
    # entries of these traces with whatever the data says of them
    parents = [
        core.remote(seed << 64 | number << 56 | int.from_bytes(data[:7], "big") | 1, 7, True, None)
        for number in range(1, 9)
    ]
    for number, parent in enumerate(parents):
        place = (parent.trace_id % (1 << 64) * 0x9E3779B97F4A7C15 % (1 << 64)) >> 51
        entry = (at.PAGE + place % at.VERDICTS * at.SIZE_VERDICT) // 8
        words[entry] = parent.trace_id % (1 << 64)
        words[entry + 1] = parent.trace_id >> 64
        words[entry + 2] = int.from_bytes(data[8 * number : 8 * number + 8], "little")
        words[entry + 3] = time.monotonic_ns()
    for parent in parents:
        record(parent=parent)
        record("keep.part", parent, error=seed % 3 == 0)
        record()
    keeping.drained()
    states = keeping.decided()
    counts: dict[int, int] = {}
    for state in states:
        counts[state[2]] = counts.get(state[2], 0) + 1
    elsewhere = {parent.trace_id for parent in parents}
    if seed % 3:
        assert all(count == (2 if trace in elsewhere else 1) for trace, count in counts.items())
    assert keeping.account()["pending"] == 0


def test_share_while_passes_are_made(recorder: Recorder, tmp_path: Path) -> None:
    """The file may be exchanged at any time."""
    import threading

    keeping = Keeping(recorder, tmp_path / "one")
    stop = threading.Event()

    def pass_on() -> None:
        while not stop.is_set():
            core.drain()
            core.govern()

    thread = threading.Thread(target=pass_on)
    thread.start()
    for number in range(100):
        record(parent=trace_of(number), error=number % 2 == 0)
        if number % 3 == 0:
            core.share(-1)
        else:
            keeping.share()
    stop.set()
    thread.join()
    keeping.close()
    core.drain(True)
    core.take(1000).settle()
    assert recorder.accounts()[1]["pending"] == 0
