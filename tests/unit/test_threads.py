"""Threads: rings of their own, rings taken over, more threads than rings, and what is lost of all that: nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder

MAX_RINGS = 64

PROBE = ot.probe("threads.probe")
LEAF = ot.probe("threads.leaf", leaf=True)


def run_all(threads: list[threading.Thread]) -> None:
    """Start all, then wait for all."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def work(number: int, count: int) -> None:
    """Record so many spans with children."""
    for i in range(count):
        with PROBE.span(thread=number, i=i):
            LEAF.stop(LEAF.start())


def test_threads_at_once(make_recorder: Callable[..., Recorder]) -> None:
    """Eight threads at once lose nothing, and each child has its own thread's parent."""
    recorder = make_recorder(ring__thread_slots=16384)
    run_all([threading.Thread(target=work, args=(number, 500)) for number in range(8)])
    records = recorder.records()
    parents = {record.span_id: record for record in records if record.name == "threads.probe"}
    children = [record for record in records if record.name == "threads.leaf"]
    assert sorted((p.attributes["thread"], p.attributes["i"]) for p in parents.values()) == [
        (number, i) for number in range(8) for i in range(500)
    ]
    assert sorted(child.parent_id for child in children) == sorted(parents)
    assert all(child.trace_id == parents[child.parent_id].trace_id for child in children)
    assert recorder.segment.reader.missed() == (0, 0)
    assert recorder.accounts()[1]["recorded"] == 8000


def test_rings_of_ended_threads_are_taken_over(recorder: Recorder) -> None:
    """Threads that come and go one after another do with a few rings."""
    for number in range(300):
        run_all([threading.Thread(target=work, args=(number, 1))])
    rings: Any = recorder.info["rings"]
    # A thread gives its ring back when the system ends it, a little after join() says so.
    assert 2 <= len(rings) < 10
    assert recorder.accounts()[1]["recorded"] == 600


def test_a_ring_is_taken_over_with_its_records(recorder: Recorder) -> None:
    """What an ended thread has recorded is still there when another goes on in its ring."""
    for number in range(10):
        run_all([threading.Thread(target=work, args=(number, 2))])
    got = [(r.attributes["thread"], r.attributes["i"]) for r in recorder.named("threads.probe")]
    assert sorted(got) == [(number, i) for number in range(10) for i in range(2)]


def test_more_threads_than_rings(make_recorder: Callable[..., Recorder]) -> None:
    """Two hundred threads alive at once record all they do; those past the last ring share it."""
    recorder = make_recorder(ring__thread_slots=4096, ring__open_spans=8192)
    ready, go = threading.Barrier(201), threading.Event()

    def wait_and_work(number: int) -> None:
        with PROBE.span(thread=number, i=-1):
            ready.wait(30)
            go.wait(30)
        work(number, 10)

    threads = [threading.Thread(target=wait_and_work, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    ready.wait(30)
    assert len(recorder.open_spans()) == 200
    rings: Any = recorder.info["rings"]
    assert len(rings) == MAX_RINGS
    go.set()
    for thread in threads:
        thread.join()
    got = sorted((r.attributes["thread"], r.attributes["i"]) for r in recorder.named("threads.probe"))
    assert got == [(number, i) for number in range(200) for i in range(-1, 10)]
    assert recorder.accounts()[1]["recorded"] == 200 * 21
    assert recorder.open_spans() == []


def test_a_thread_that_dies_with_an_open_span(recorder: Recorder) -> None:
    """An open span survives its thread, and can be ended by another."""
    spans = []

    def begin() -> None:
        span = PROBE.span(symbol="x")
        span.begin()
        spans.append(span)

    run_all([threading.Thread(target=begin)])
    assert len(recorder.open_spans()) == 1
    run_all([threading.Thread(target=work, args=(0, 3))])
    spans[0].finish()
    assert [r.attributes for r in recorder.named("threads.probe")].count({"symbol": "x"}) == 1
    assert recorder.open_spans() == []


def test_drain_while_threads_write(make_recorder: Callable[..., Recorder]) -> None:
    """Passes of the drain amid writing threads keep the accounts exact, whatever was overwritten."""
    recorder = make_recorder(ring__thread_slots=64)
    done = threading.Event()

    def drain() -> None:
        while not done.is_set():
            core.drain()
            for account in core.accounts():
                parts = ("exported", "sampled_out", "overwritten", "refused", "pending")
                if account["recorded"] != sum(account[part] for part in parts):
                    failures.append(account)

    failures: list[object] = []
    drainer = threading.Thread(target=drain)
    drainer.start()
    run_all([threading.Thread(target=work, args=(number, 2000)) for number in range(4)])
    done.set()
    drainer.join()
    assert failures == []
    account = recorder.accounts()[1]
    assert account["recorded"] == 16_000
    assert account["pending"] == 0


def test_threads_begin_and_end_through_configure_and_shutdown(make_recorder: Callable[..., Recorder]) -> None:
    """Threads that record right through shutdowns and new starts meet nothing worse than not being recorded."""
    done = threading.Event()
    failures: list[BaseException] = []

    def record() -> None:
        try:
            while not done.is_set():
                work(0, 10)
        except BaseException as error:  # noqa: BLE001  seen by the test
            failures.append(error)

    threads = [threading.Thread(target=record) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        recorder = make_recorder(drain__period=0.001)
        recorder.records()
        ot.shutdown()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_backlog_is_told(recorder: Recorder) -> None:
    """The snapshot tells how far the drain was behind, ring by ring."""
    core.drain()
    for _ in range(100):
        LEAF.stop(LEAF.start())
    core.drain()
    ring = core.snapshot()["rings"][0]
    assert (ring["backlog"], ring["backlog_max"], ring["capacity"]) == (0, 100, 1024)
    assert ring["head"] == ring["tail"] == 100
    assert ring["thread_id"] == threading.get_native_id()
    assert recorder.faults == 0


@pytest.mark.parametrize("spans", [64, 300])
def test_threads_with_many_open_spans(recorder: Recorder, spans: int) -> None:
    """A thread may have more spans open than its table holds."""

    def nest(depth: int) -> None:
        with PROBE.span(depth=depth):
            if depth:
                nest(depth - 1)

    thread = threading.Thread(target=nest, args=(spans - 1,))
    run_all([thread])
    account = recorder.accounts()[1]
    assert account["recorded"] == spans
