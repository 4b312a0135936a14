"""The evidence and the whole analysis, of segments that are live, dead, closed, copied, and damaged in every way."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Recorder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.errors import SegmentError
from otel_trading.forensics import evidence, page, perfetto, report, slots
from otel_trading.forensics.causes import judge
from otel_trading.forensics.how_it_ended import End

WORDS = [
    0,
    1,
    7,
    4096,
    2**31,
    2**32 - 1,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
    0x7FF8000000000000,
    0xFFF0000000000000,
]


def trade(count: int) -> None:
    """Trade a little in this process."""
    import otel_trading as ot

    tick, depth = ot.probe("tick"), ot.gauge("queue.size")
    ot.queue(depth)
    for number in range(count):
        ot.market_data("BTCUSDT", time.time() * 1e3, 100.0 + number, 1.0)
        with tick.span(number=number, text="x" * 50):
            order = ot.order(f"order-{number}", symbol="BTCUSDT", side="buy", qty=1.0, price=100.0)
        depth.set(number)
        if number % 3:
            order.ack()
        if number % 3 == 2:
            order.reject("no money")
    ot.critical("strategy.switched", "fast")
    core.drain()


@pytest.fixture(scope="module")
def scratch() -> Iterator[int]:
    """Give a file without a name, to be filled again and again."""
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Record a segment of everything there is: spans, open ones, orders, market data, events, looks, heartbeats."""
    fd = os.open(tmp_path_factory.mktemp("recorded") / "recorded.seg", os.O_RDWR | os.O_CREAT, 0o600)
    core.open(fd, b'{"service.name":"hostile"}', 64, 16, 8, 16384, 8192, 64, (128,) * 5 + (0xFFFFFFFF,) * 2)
    try:
        probe, depth = core.Probe("tick", 0), core.Gauge("queue.size")
        core.queue_gauge(depth)
        core.beat("main", 5_000_000_000)
        for number in range(60):
            core.market("BTCUSDT", time.time_ns(), 100.0, 1.0)
            with probe.span(number=number):
                pass
            core.order_put(f"o{number}", 1, 2, True, 1 + number % 6, 3, 4, 1.0, 2.0, 0.0, 0.0, "BTCUSDT", 1)
            core.critical("switched", "key", at.VITAL_CRITICAL, 0, 0.5)
            depth.set(number)
        core.drain()
        left_open = probe.span(open=True)
        left_open.begin()
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        left_open.finish()
    finally:
        core.close()
        os.close(fd)
    return data


def analysed(fd: int) -> dict[str, Any]:
    """Do all that is ever done with a segment; the results have to hold."""
    found = evidence.gather(fd, alive=False, seconds=2.0)
    end = End("signal", pid=found.pid, signal=9, source="a test", certainty=1.0, unix_ns=0)
    verdict = judge(found, end)
    assert 0.0 <= verdict.confidence <= 1.0
    document = report.document(found, end)
    assert json.loads(json.dumps(document, allow_nan=False))["schema"] == report.SCHEMA
    lines = page.lines(document)
    assert len(lines) < 200
    assert all(line.isprintable() and len(line) < 5_000 for line in lines)
    assert len(perfetto.trace(found, slots.threads_of(fd))) < 50_000_000
    assert len(found.spans) <= 5_000
    return document


def test_a_live_process(make_recorder: Callable[..., Recorder]) -> None:
    """Everything is there, and the process takes no notice."""
    recorder = make_recorder()
    trade(30)
    found = evidence.gather(recorder.path)
    assert (found.alive, found.closed, found.pid, found.service, found.damage) == (True, False, os.getpid(), "test", [])
    assert len([span for span in found.spans if span.name == "tick"]) == 30
    assert found.spans == sorted(found.spans, key=lambda span: span.end)
    assert [one["symbol"] for one in found.markets] == ["BTCUSDT"]
    assert len(found.vitals) == 61 - 10 + 10
    assert found.vitals[-1]["name"] == "strategy.switched"
    assert found.life["queue"] == "queue.size"
    assert len(found.orders) == 30
    assert found.seen_ns >= found.last_word_ns > time.time_ns() - 60 * 10**9
    assert judge(found, End("alive", pid=found.pid)).cause == "none"


def test_the_newest_spans_are_kept(make_recorder: Callable[..., Recorder]) -> None:
    """Of more spans than are wanted those are kept that ended last; none, where none are wanted."""
    recorder = make_recorder()
    trade(100)
    found = evidence.gather(recorder.path, spans=20)
    everything = evidence.gather(recorder.path)
    assert [span.span_id for span in found.spans] == [span.span_id for span in everything.spans[-20:]]
    assert evidence.gather(recorder.path, spans=0).spans == []


def test_open_spans_and_those_that_were_ended_for_the_process(make_recorder: Callable[..., Recorder]) -> None:
    """A span is open at the end, whether it still is in the table or was written as interrupted."""
    recorder = make_recorder()
    outer = core.Probe("outer", 0).span(key="value")
    outer.begin()
    (before,) = evidence.gather(recorder.path, spans=0).open_spans
    assert (before.name, before.end, before.attributes) == ("outer", 0, {"key": "value"})
    core.interrupt_open("killed by SIGKILL", True)
    (after,) = evidence.gather(recorder.path).open_spans
    assert (after.span_id, after.start, after.end) == (before.span_id, before.start, 0)
    recorder.faults_expected = recorder.faults


def test_threads_are_told_by_the_rings(make_recorder: Callable[..., Recorder]) -> None:
    """Each span's thread is found in the ring that has it."""
    import threading

    recorder = make_recorder()
    probe, ids = core.Probe("tick", 0), {}

    def work() -> None:
        with probe as span:
            ids[span.span_id] = threading.get_native_id()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
    fd = os.open(recorder.path, os.O_RDONLY)
    try:
        assert slots.threads_of(fd) == ids
    finally:
        os.close(fd)


def test_what_is_no_segment(tmp_path: Path) -> None:
    """A file that is none, or none at all, is a SegmentError."""
    path = tmp_path / "x.seg"
    path.write_bytes(b"nothing")
    for what in (path, tmp_path / "absent.seg"):
        with pytest.raises(SegmentError):
            evidence.gather(what)


def test_texts_are_printable(scratch: int, recorded: bytes) -> None:
    """Names with control characters can not reach a terminal."""
    os.ftruncate(scratch, 0)
    os.pwrite(scratch, recorded.replace(b"BTCUSDT", b"\x1b[31m!\n").replace(b"tick", b"\x9b2J\0"), 0)
    document = analysed(scratch)
    text = json.dumps(document, ensure_ascii=False)
    assert document["markets"][0]["symbol"] == "\ufffd[31m!\ufffd"
    assert all(character.isprintable() for character in text)


def test_a_whole_segment_tells_everything(scratch: int, recorded: bytes) -> None:
    """The copy that the damage is done to has something of everything in it."""
    os.ftruncate(scratch, 0)
    os.pwrite(scratch, recorded, 0)
    document = analysed(scratch)
    assert document["damage"] == []
    assert document["process"]["service"] == "hostile"
    assert document["counts"]["open_spans"] == 1
    assert document["critical_events"]
    assert document["open_orders"]
    assert document["slowest"]
    assert document["markets"]


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 1 << 30), st.sampled_from(WORDS) | st.integers(0, 2**64 - 1)), min_size=1, max_size=30
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(mutations=MUTATIONS, cut=st.none() | st.integers(0, 1 << 30))
def test_damaged_segments(scratch: int, recorded: bytes, mutations: list[tuple[int, int]], cut: int | None) -> None:
    """Words anywhere, and a file that ends too early: the whole analysis ends, with a report or a SegmentError."""
    data = bytearray(recorded)
    for place, word in mutations:
        struct.pack_into("<Q", data, place % (len(data) // 8) * 8, word)
    os.ftruncate(scratch, 0)
    os.pwrite(scratch, data[: len(data) if cut is None else cut % len(data)], 0)
    try:
        analysed(scratch)
    except SegmentError:
        return


TABLES = [
    (at.OFF_HEADER_LIFE_OFFSET, at.SIZE_LIFE),
    (at.OFF_HEADER_VITALS_OFFSET, at.SIZE_VITAL * 64),
    (at.OFF_HEADER_PULSES_OFFSET, at.SIZE_PULSE * 2),
    (at.OFF_HEADER_MARKETS_OFFSET, at.SIZE_MARKET),
    (at.OFF_HEADER_ORDERS_OFFSET, at.SIZE_ORDER * 64),
    (at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL),
    (at.OFF_HEADER_READINGS_OFFSET, at.SIZE_READINGS),
    (at.OFF_HEADER_RINGS_OFFSET, at.SIZE_RING),
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(table=st.sampled_from(TABLES), mutations=MUTATIONS)
def test_damaged_tables(
    scratch: int, recorded: bytes, table: tuple[int, int], mutations: list[tuple[int, int]]
) -> None:
    """The same where it hurts most: in what the analysis reads."""
    data = bytearray(recorded)
    offset = int.from_bytes(data[table[0] : table[0] + 8], "little")
    for place, word in mutations:
        struct.pack_into("<Q", data, offset + place % (table[1] // 8) * 8, word)
    os.ftruncate(scratch, 0)
    os.pwrite(scratch, data, 0)
    try:
        analysed(scratch)
    except SegmentError:
        return


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, at.SIZE_HEADER - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_headers(scratch: int, recorded: bytes, mutations: list[tuple[int, int]]) -> None:
    """Bytes of the header may be anything."""
    data = bytearray(recorded)
    for place, byte in mutations:
        data[place] = byte
    os.ftruncate(scratch, 0)
    os.pwrite(scratch, data, 0)
    try:
        analysed(scratch)
    except SegmentError:
        return


def test_the_newest_of_a_large_ring(make_recorder: Callable[..., Recorder]) -> None:
    """Of a dead process with a large ring the newest spans are read, whole, without all others."""
    recorder = make_recorder(ring__slots=16_384)
    tick = core.Probe("tick", 0)
    for number in range(20_000):
        with tick.span(number=number, text="x" * 40):
            pass
    found = evidence.gather(recorder.path, spans=500, alive=False)
    assert [span.attributes["number"] for span in found.spans] == list(range(19_500, 20_000))
    assert found.spans[-1].attributes["text"] == "x" * 40
    assert found.damage == []
    alive = evidence.gather(recorder.path, spans=500)
    assert [span.span_id for span in alive.spans] == [span.span_id for span in found.spans]
