"""What only the pure backend has to mind: Python code that runs in the middle of a record."""

from __future__ import annotations

import os
import queue
import signal
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.segment import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

pytestmark = pytest.mark.skipif(ot.backend != "pure", reason="in C nothing can come in between")

PROBE = ot.probe("pure.probe")
OTHER = ot.probe("pure.other", tier=2)
LARGE = {"ring__slots": 1 << 16, "ring__thread_slots": 1 << 15, "ring__open_spans": 16}
ABANDONED = 8


@pytest.fixture
def untraced() -> Iterator[None]:
    """Take coverage's tracer out of the way: a handler that raises inside it leaves its lock taken for ever."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.fixture
def alarms() -> Iterator[Callable[[Callable[..., None]], None]]:
    """Have a handler called every fifth of a millisecond, in the middle of whatever the main thread does."""
    before = signal.getsignal(signal.SIGALRM)

    def begin(handler: Callable[..., None]) -> None:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)

    yield begin
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Have threads switched as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def assert_all_there(recorder: Recorder, count: int) -> None:
    """Demand that so many spans were recorded, and can be read, each once."""
    assert sum(account["recorded"] for account in recorder.accounts().values()) == count
    records = recorder.records()
    assert len({record.span_id for record in records}) == len(records) == count
    assert recorder.segment.reader.missed() == (0, 0)
    assert recorder.open_spans() == []


@pytest.mark.usefixtures("untraced")
def test_signal_handlers_record_in_the_middle_of_records(
    make_recorder: Callable[..., Recorder], alarms: Callable[[Callable[..., None]], None]
) -> None:
    """Records of a signal's handler, and those that it came into, are all there, whole."""
    recorder = make_recorder(**LARGE)
    handled = []

    def handle(_number: int, _frame: object) -> None:
        with OTHER.span(depth=1):
            PROBE.stop(PROBE.start())
        handled.append(2)

    alarms(handle)
    count = 0
    while len(handled) < 50 or count < 3000:
        PROBE.stop(PROBE.start())
        with OTHER.span(count=count):
            count += 2
        assert count < 60_000, "the alarm does not come"
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert core.current() is None
    assert_all_there(recorder, count + sum(handled))


@pytest.mark.usefixtures("hasty")
def test_tokens_stopped_by_other_threads_than_their_own(make_recorder: Callable[..., Recorder]) -> None:
    """Several threads may finish spans in one ring at once, its own thread among them."""
    recorder = make_recorder(**LARGE)
    started: queue.SimpleQueue[Any] = queue.SimpleQueue()
    times = 2000

    def start() -> None:
        for _ in range(times):
            started.put(PROBE.start())
            OTHER.stop(OTHER.start())

    def stop() -> None:
        for _ in range(times):
            PROBE.stop(started.get())

    threads = [threading.Thread(target=target) for target in (start, stop) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_all_there(recorder, 2 * 4 * times)


@pytest.mark.usefixtures("untraced")
def test_interrupts_in_the_middle_of_records(
    make_recorder: Callable[..., Recorder], alarms: Callable[[Callable[..., None]], None]
) -> None:
    """An exception that a signal's handler raises breaks nothing: what it hit is finished, or abandoned."""
    recorder = make_recorder(**LARGE)
    caught = starts = 0

    class AlarmError(Exception):
        """What the handler raises."""

    def handle(_number: int, _frame: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # not in what catches it, too
        raise AlarmError

    def work() -> None:
        nonlocal starts
        while True:
            starts += 1
            token = PROBE.start()
            PROBE.stop(token)

    while caught < 30:
        try:
            alarms(handle)
            work()
        except AlarmError:
            caught += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
    assert recorder.open_spans() == []
    records = recorder.records(1 << 20)
    missed, torn = recorder.segment.reader.missed()
    assert torn == 0
    # An interrupt may hit before the span began, or after it was counted.
    assert starts - caught <= len(records) + missed <= starts
    assert recorder.accounts()[1]["recorded"] == len(records) + missed


def test_a_stopped_token_that_is_held_is_never_used_again(recorder: Recorder) -> None:
    """Tokens go round, but not those that somebody could stop a second time."""
    held = []
    for _ in range(100):
        token = PROBE.start()
        PROBE.stop(token)
        held.append(token)
    assert len(set(map(id, held))) == 100
    opened = [PROBE.start() for _ in range(100)]
    for token in held:
        PROBE.stop(token)
    assert len(recorder.open_spans()) == 100
    for token in opened:
        PROBE.stop(token)
    recorder.faults_expected = 100


def test_tokens_of_a_closed_segment_are_worth_nothing(make_recorder: Callable[..., Recorder]) -> None:
    """What was begun in a segment that is gone ends silently, and does not reach into the next one."""
    first = make_recorder()
    token, span = PROBE.start(), OTHER.span(a=1)
    span.begin()
    assert len(first.open_spans()) == 2
    ot.shutdown()
    second = make_recorder()
    PROBE.stop(token)
    span.finish()
    del token, span
    assert second.records() == second.open_spans() == []


def test_a_thread_that_closes_while_others_record() -> None:
    """Without a segment every thread's first look finds nothing, and costs no ring."""
    tokens = []
    thread = threading.Thread(target=lambda: tokens.append(PROBE.start()))
    thread.start()
    thread.join()
    PROBE.stop(tokens[0])
    assert core.snapshot()["rings"] == []


def test_ids_after_a_batch(recorder: Recorder) -> None:
    """Ids are drawn in batches; none comes twice, and none has a word of zeros."""
    for _ in range(900):
        with PROBE:
            pass
    records = recorder.records()
    assert len({record.trace_id for record in records}) == len({record.span_id for record in records}) == 900
    assert all(record.trace_id >> 64 and record.trace_id & (1 << 64) - 1 and record.span_id for record in records)
    assert not any(record.flags & ABANDONED for record in records)


def test_ids_after_recursion_too_deep(make_recorder: Callable[..., Recorder]) -> None:
    """An error of the recursion's depth, wherever in the making of a span it comes, spoils nothing for later spans."""
    recorder = make_recorder(**LARGE)

    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            PROBE.stop(PROBE.start())
            with OTHER:
                pass

    depth, frame = 1, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    limit = sys.getrecursionlimit()
    errors = 0
    sys.setrecursionlimit(depth + 60)
    try:
        for n in range(6000):
            try:
                deeper(40 + n % 20)
            except RecursionError:
                errors += 1
    finally:
        sys.setrecursionlimit(limit)
    assert 0 < errors < 6000
    assert core.current() is None
    before = recorder.accounts()[1]["recorded"]
    for _ in range(200):
        PROBE.stop(PROBE.start())
    assert recorder.accounts()[1]["recorded"] == before + 200
    assert recorder.open_spans() == []


@pytest.mark.usefixtures("untraced", "hasty")
def test_blocks_of_signal_handlers_and_threads_in_one_arena(
    make_recorder: Callable[..., Recorder],
    alarms: Callable[[Callable[..., None]], None],
) -> None:
    """Whoever adds events in the middle of another's, in the same ring, finds a place of its own."""
    recorder = make_recorder(**LARGE, ring__arena_bytes=1 << 24)
    handled: list[int] = []
    lent: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def fill(span: Any, mark: str) -> None:
        for n in range(5):
            span.add_event(mark, {"n": n, "text": mark * (10 + n)}, 1 + n)
            span.set_attribute(mark, mark * (70 + n))

    def handle(_number: int, _frame: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # one at a time
        with OTHER.span() as span:
            fill(span, "signal")
        handled.append(1)
        signal.setitimer(signal.ITIMER_REAL, 0.0003)

    def borrow() -> None:
        while (span := lent.get()) is not None:
            fill(span, "thread")
            span.finish()

    thread = threading.Thread(target=borrow)
    thread.start()
    alarms(handle)
    count = 0
    while len(handled) < 20 or count < 400:
        span = PROBE.span()
        span.begin()
        lent.put(span)
        with PROBE.span() as own:
            fill(own, "main")
        count += 2
        assert count < 20_000, "the alarm does not come"
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    lent.put(None)
    thread.join()
    records = recorder.records()
    assert len(records) == count + len(handled)
    assert recorder.segment.reader.missed() == (0, 0)
    for record in records:
        (mark,) = record.attributes
        assert record.attributes == {mark: mark * 74}
        assert [messages.event(event) for event in record.events] == [
            (mark, 1 + n, {"n": n, "text": mark * (10 + n)}, 0) for n in range(5)
        ]


KEYS = st.sampled_from(["a", "b", "c", "d", "e", "other", "\xe9", "k" * 5000, *map("key{}".format, range(40))])
SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=100),
    st.binary(max_size=20),
    st.just("x" * 99_999),
)
VALUES = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
STEPS = st.one_of(
    st.tuples(st.just("set_attribute"), KEYS, VALUES),
    st.tuples(st.just("set_attributes"), st.dictionaries(KEYS, VALUES, max_size=3)),
    st.tuples(
        st.just("add_event"), KEYS, st.none() | st.dictionaries(KEYS, VALUES, max_size=4), st.integers(1, 1 << 62)
    ),
    st.tuples(st.just("update_name"), KEYS),
)
LIMITS = st.sampled_from(
    [(128, 128, 128, 128, 128, at.NO_LIMIT, at.NO_LIMIT), (2, 1, 1, 2, 1, 10, 7), (0, 0, 0, 0, 0, 0, 0)]
)


@pytest.fixture(scope="module")
def native() -> tuple[Any, Any]:
    """Give the other backend, where there is one, and a probe of it."""
    module: Any = pytest.importorskip("otel_trading._native")
    if not hasattr(module, "BACKEND"):
        pytest.skip("there is no C extension")
    return module, module.Probe("pure.alike")


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(deadline=None, max_examples=60)
@given(spans=st.lists(st.lists(STEPS, max_size=8), min_size=1, max_size=6), limits=LIMITS)
def test_both_backends_write_and_read_alike(
    native: tuple[Any, Any], spans: list[list[Any]], limits: tuple[int, ...]
) -> None:
    """The same program gives the same records in both, and each reads the other's."""
    written = []
    for writer, probe in ((core, PROBE), native):
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
        # Room for every name: this process may have made many probes with one backend, and few with the other.
        writer.open(descriptor, b"{}", 64, 16, 16, 1 << 15, 65_535, 16, limits)
        try:
            for steps in spans:
                span = probe.span()
                span.begin()
                for name, *arguments in steps:
                    getattr(span, name)(*arguments)
                span.end()
            states = [reader.Reader(descriptor).read(100) for reader in (core, native[0])]
        finally:
            writer.close()
            os.close(descriptor)
        assert repr(states[0]) == repr(states[1])
        written.append([repr((state[7:9], *state[11:])) for state in states[0]])
    assert written[0] == written[1]
