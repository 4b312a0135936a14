"""The meter: what monitoring itself uses."""

from __future__ import annotations

import os
import threading
import time
from math import log, nan, sqrt
from typing import TYPE_CHECKING, Any

import pytest
from governing import CPU, DISK, HIGH_VOLATILITY, LATENCY, MEMORY, NETWORK, NORMAL, Governed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

# Seconds that a record of each kind costs, by OT_COST_*: far more than any thread of ours takes meanwhile.
FLAT, SPAN, API, ATTRIBUTE, BLOCK, VALUE, UPDATE, MARKET = range(at.COSTS)
COSTS = (1.0, 10.0, 100.0, 1000.0, 1e4, 1e5, 1e6, 1e7)


@pytest.fixture
def governed(recorder: Recorder) -> Iterator[Governed]:
    """Give a governor whose limits nothing exceeds, and records that cost much."""
    one = Governed(recorder, budget=[1e30] * at.BUDGETS * at.MODES, cost=COSTS)
    one.measured()
    yield one
    one.close()


def spent(governed: Governed, seconds: float = 1.0) -> float:
    """Give the CPU seconds that recording took since the last look, by the costs."""
    core.drain(True)
    governed.measured(seconds)
    return governed.reading("cpu_hot") * seconds


# ---- CPU ----


@pytest.mark.usefixtures("quiet")
def test_each_kind_of_record_has_its_cost(governed: Governed) -> None:
    """Spans by how they were made, attributes, blocks, observations, updates, market data: each its own."""
    flat, block = ot.probe("meter.flat", leaf=True), ot.probe("meter.block")
    for _ in range(3):
        flat.stop(flat.start())
    assert spent(governed) == pytest.approx(3 * COSTS[FLAT])
    for _ in range(2):
        with block:
            pass
    assert spent(governed) == pytest.approx(2 * COSTS[SPAN])
    with block.span(one=1, two=2.0):
        pass
    assert spent(governed) == pytest.approx(COSTS[SPAN] + 2 * COSTS[ATTRIBUTE])
    with block.span(one=1) as span:
        span.add_event("event")
        span.add_event("another")
    assert spent(governed) == pytest.approx(COSTS[SPAN] + COSTS[ATTRIBUTE] + 2 * COSTS[BLOCK])
    histogram, counter, gauge = ot.histogram("meter.values"), ot.counter("meter.count"), ot.gauge("meter.level")
    for number in range(4):
        histogram.record(number)
    assert spent(governed) == pytest.approx(4 * COSTS[VALUE])
    counter.add(1)
    counter.add(2.5)
    gauge.set(1.0)
    assert spent(governed) == pytest.approx(3 * COSTS[UPDATE])
    core.market("BTCUSDT", 0, 1.0, 1.0)
    core.market("ETHUSDT", 0, 1.0, 1.0)
    assert spent(governed) == pytest.approx(2 * COSTS[MARKET])
    assert spent(governed) == 0.0


@pytest.mark.usefixtures("quiet")
def test_spans_of_the_api_have_a_cost_of_their_own(governed: Governed) -> None:
    """A span that a tracer of OpenTelemetry's API made costs what such a span costs."""
    from opentelemetry import trace

    tracer = trace.get_tracer("somebody")
    if not isinstance(tracer, core.Tracer):
        from otel_trading import api

        tracer = api.TracerProvider().get_tracer("somebody")
    tracer.start_span("theirs").end()
    assert spent(governed) == pytest.approx(COSTS[API])


@pytest.mark.usefixtures("quiet")
def test_use_is_that_of_the_window(governed: Governed) -> None:
    """A second after they were made, records are out of the sum, and the total keeps them."""
    probe = ot.probe("meter.work")
    with probe:
        pass
    core.drain(True)
    governed.measured(0.5)
    assert governed.reading("cpu_hot") == pytest.approx(COSTS[SPAN])
    governed.measured(0.5)
    assert governed.reading("cpu_hot") == pytest.approx(COSTS[SPAN])
    governed.measured(0.5)
    assert governed.reading("cpu_hot") == pytest.approx(0.0)
    assert governed.number("cpu_total") >= COSTS[SPAN] * 1e9


def test_the_sum_is_of_all_parts(governed: Governed) -> None:
    """Recording threads, drain, exporters' threads, and the governor itself."""
    with ot.probe("meter.work"):
        pass
    core.drain(True)
    governed.measured(1.0)
    parts = ("cpu_hot", "cpu_drain", "cpu_export", "cpu_governor")
    assert governed.reading("usage", CPU) == pytest.approx(sum(governed.reading(part) for part in parts))


def burn(seconds: float) -> None:
    """Use so much CPU time of the calling thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_threads_are_counted_from_when_they_say_so(governed: Governed) -> None:
    """Not what they used before, nor after they have left, and a thread that has ended keeps its part."""
    steps = [threading.Event() for _ in range(4)]
    done = [threading.Event() for _ in range(4)]

    def export() -> None:
        burn(0.05)
        core.count_thread(True)
        for number, step in enumerate(steps):
            done[number].set()
            step.wait(20.0)
            if number == 2:
                core.count_thread(False)
            burn(0.03)
        core.count_thread(True)

    def part(number: int) -> float:
        """Give what the look after that step finds."""
        done[number].wait(20.0)
        governed.measured(1.0)
        used = governed.reading("cpu_export")
        steps[number].set()
        return used

    thread = threading.Thread(target=export)
    thread.start()
    assert part(0) < 0.03
    assert part(1) >= 0.03
    assert part(2) >= 0.03
    assert part(3) < 0.03
    thread.join()
    governed.measured(1.0)
    assert governed.reading("cpu_export") < 0.03


def test_threads_that_end_without_a_word(governed: Governed) -> None:
    """Many come and go: none crashes the meter, and their places are free again."""

    def export() -> None:
        core.count_thread(True)
        core.count_thread(True)
        burn(0.002)

    for _ in range(40):
        thread = threading.Thread(target=export)
        thread.start()
        thread.join()
        governed.measured(0.01)
    total = governed.reading("usage", CPU)
    governed.measured(0.1)
    assert total >= 0.05
    assert governed.recorder.faults == 0


def test_more_threads_than_places(governed: Governed) -> None:
    """Past 16 a thread is not counted, which is a fault, and nothing else happens."""
    ready, leave = threading.Barrier(21), threading.Event()

    def export() -> None:
        core.count_thread(True)
        ready.wait(20.0)
        leave.wait(20.0)

    threads = [threading.Thread(target=export) for _ in range(20)]
    for thread in threads:
        thread.start()
    ready.wait(20.0)
    governed.measured(1.0)
    leave.set()
    for thread in threads:
        thread.join()
    governed.recorder.faults_expected = governed.recorder.faults
    assert 4 <= governed.recorder.faults <= 5


def test_the_governors_thread_counts_itself(recorder: Recorder, until: Callable[[Callable[[], object]], None]) -> None:
    """Its own cost is in the sum."""
    governed = Governed(recorder, period=0.005, budget=[1e30] * at.BUDGETS * at.MODES)
    core.govern_start()
    until(lambda: governed.reading("cpu_governor") > 0.0)
    core.govern_stop()
    assert governed.reading("usage", CPU) >= governed.reading("cpu_governor") * 0.999
    governed.close()


# ---- memory ----


def test_memory_is_segment_and_heap_and_base(governed: Governed, until: Callable[[Callable[[], object]], None]) -> None:
    """What the file takes, what the drain has on the heap, and what the package took before it recorded."""
    governed.policy.write({"base_memory": 7e6, "exporter_memory": 9e9})
    with ot.probe("meter.work"):
        pass

    def looked() -> bool:
        """What the drain has on the heap is summed up once a second."""
        core.drain()
        governed.measured(1.0)
        return governed.reading("memory_heap") > 0.0

    until(looked)
    segment, heap = governed.reading("memory_segment"), governed.reading("memory_heap")
    assert segment == os.stat(governed.recorder.path).st_blocks * 512
    assert governed.reading("usage", MEMORY) == segment + heap + 7e6


# ---- latency ----


@pytest.mark.usefixtures("quiet")
def test_latency_is_the_cost_of_an_operation(governed: Governed) -> None:
    """The mean over the window of what the spans of a trace cost; values and updates are no part of a trace."""
    outer, inner, gauge = ot.probe("meter.order"), ot.probe("meter.risk", leaf=True), ot.gauge("meter.level")
    for number in range(4):
        with outer:
            for _ in range(number):
                inner.stop(inner.start())
        gauge.set(1.0)
    core.drain(True)
    governed.measured(1.0)
    assert governed.reading("usage", LATENCY) == pytest.approx((4 * COSTS[SPAN] + 6 * COSTS[FLAT]) / 4)
    governed.measured(2.0)
    assert governed.reading("usage", LATENCY) == 0.0


# ---- network and disk ----


def test_io_is_what_exporters_say(governed: Governed) -> None:
    """Bytes and operations a second over the window; the totals grow."""
    core.count_io(1000, 3)
    core.count_io(500, 1, 800)
    governed.measured(0.5)
    assert (governed.reading("usage", NETWORK), governed.reading("usage", DISK)) == (1500.0, 4.0)
    core.count_io(500, 1)
    governed.measured(0.5)
    assert (governed.reading("usage", NETWORK), governed.reading("usage", DISK)) == (2000.0, 5.0)
    governed.measured(1.5)
    assert (governed.reading("usage", NETWORK), governed.reading("usage", DISK)) == (0.0, 0.0)
    assert (governed.number("network_total"), governed.number("disk_total")) == (2000, 5)


def test_no_use_is_seen_in_a_window_that_is_longer_than_the_policys(governed: Governed) -> None:
    """What is sent at the limit's rate is never seen as more, however the looks fall."""
    most = 0.0
    for number in range(200):
        if number % 10 == 0:
            core.count_io(1000, 0)  # 1000 bytes a second
        governed.measured(0.1)
        most = max(most, governed.reading("usage", NETWORK))
    assert most <= 1000.0 * 1.1


def test_writes_of_monitorings_threads_count(governed: Governed, tmp_path: Any) -> None:
    """Where the kernel tells them; those that were said too count once."""
    if not os.access(f"/proc/self/task/{threading.get_native_id()}/io", os.R_OK):
        pytest.skip("this kernel does not tell a thread's writes")
    written, leave = threading.Event(), threading.Event()

    def export() -> None:
        core.count_thread(True)
        with (tmp_path / "spool").open("wb", buffering=0) as file:
            for _ in range(30):
                file.write(b"x")
        core.count_io(0, 20)
        written.set()
        leave.wait(20.0)

    thread = threading.Thread(target=export)
    thread.start()
    written.wait(20.0)
    governed.measured(1.0)
    assert 30 <= governed.number("disk_total") < 40
    leave.set()
    thread.join()


def test_hardware_cycles_grow_where_they_can_be_had() -> None:
    """The calling thread's cycles, or None where the kernel gives no counter."""
    first = core.hardware_cycles()
    burn(0.001)
    second = core.hardware_cycles()
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert second > first


# ---- market data ----


def page(governed: Governed, place: int) -> tuple[Any, ...]:
    """Give an entry of the market page: symbol, exchange's stamp, received, updates, price, volume."""
    import struct

    (offset,) = struct.unpack_from("<Q", governed.page, at.OFF_HEADER_MARKETS_OFFSET)
    symbol, _, exchange, received, updates, price, volume = struct.unpack_from(
        "<IIQQQdd", governed.page, offset + place * at.SIZE_MARKET
    )
    return symbol, exchange, received, updates, price, volume


def test_the_newest_update_is_in_the_page(governed: Governed) -> None:
    """Any process can see how old a symbol's data is, and its price; NaN leaves price and volume alone."""
    before = time.time_ns()
    core.market("BTCUSDT", 123, 50_000.0, 1.5)
    core.market("ETHUSDT", 5, nan, nan)
    core.market("BTCUSDT", 456, nan, 2.0)
    _, exchange, received, updates, price, volume = page(governed, 0)
    assert (exchange, updates, price, volume) == (456, 2, 50_000.0, 3.5)
    assert before - 10**9 < received < time.time_ns() + 10**9
    assert page(governed, 1)[3] == 1
    assert page(governed, 1)[4] != page(governed, 1)[4]


def test_misuse_of_market_data_is_counted(governed: Governed) -> None:
    """What can not be is left out and is a fault; wrong types raise."""
    core.market("X", -5, 1.0, 1.0)
    core.market("X", 1, float("inf"), 1.0)
    core.market("X", 1, 2.0, -1.0)
    assert governed.recorder.faults == 3
    assert page(governed, 0)[4:] == (2.0, 2.0)
    for number in range(at.MARKETS + 9):
        core.market(f"S{number}", 1, 1.0, 1.0)
    assert governed.recorder.faults == 3 + 10
    governed.recorder.faults_expected = 13
    with pytest.raises(TypeError):
        core.market(b"X", 1, 1.0, 1.0)
    with pytest.raises(TypeError):
        core.market("X", 1.5, 1.0, 1.0)
    with pytest.raises(TypeError):
        core.market("X", 1, "1", 1.0)


def condition(governed: Governed) -> tuple[float, float]:
    """Give the market's condition."""
    return governed.reading("volatility"), governed.reading("volume")


def trade(governed: Governed, prices: list[float], volumes: list[float], symbol: str = "BTCUSDT") -> None:
    """Have an update a second."""
    for price, volume in zip(prices, volumes, strict=True):
        core.market(symbol, 1, price, volume)
        governed.measured(1.0)


def test_volatility_is_that_of_the_last_minutes_returns(governed: Governed) -> None:
    """A price that moves by as much each second has the volatility that this is in a year, once there are ten."""
    prices = [100.0 * (1.0001 if number % 2 else 1.0) for number in range(40)]
    trade(governed, prices[:8], [1.0] * 8)
    assert condition(governed) == (0.0, 1.0)
    trade(governed, prices[8:], [1.0] * 32)
    assert condition(governed)[0] == pytest.approx(log(1.0001) * sqrt(365 * 86400), rel=1e-6)
    for _ in range(600):
        governed.measured(1.0)
    assert condition(governed)[0] < 0.01


def test_volume_is_that_of_ten_seconds_to_what_is_usual(governed: Governed) -> None:
    """Told after 30 s; three times the usual for ten seconds is 3."""
    trade(governed, [100.0] * 25, [2.0] * 25)
    assert condition(governed)[1] == 1.0
    trade(governed, [100.0] * 10, [2.0] * 10)
    assert condition(governed)[1] == pytest.approx(1.0)
    trade(governed, [100.0] * 10, [6.0] * 10)
    assert condition(governed)[1] == pytest.approx(3.0)


def test_a_market_that_moves_leads_to_its_mode(governed: Governed) -> None:
    """A symbol with both above the limits is told, whatever wilder one has no volume."""
    quiet = [100.0] * 40
    trade(governed, quiet, [1.0] * 40)
    assert governed.mode == NORMAL
    for number in range(12):
        core.market("WILD", 1, 100.0 * (1.01 if number % 2 else 1.0), 1.0)
        trade(governed, [100.0 * (1.0005 if number % 2 else 1.0)], [9.0])
    assert governed.mode == HIGH_VOLATILITY
    volatility, volume = condition(governed)
    assert 0.8 < volatility < 3.0
    assert volume > 2.0


def test_a_condition_that_is_told_comes_first(governed: Governed) -> None:
    """The program's own figures stand in for those of the data, until it takes them back."""
    core.market_condition(0.9, 2.5)
    governed.measured(0.1)
    assert (condition(governed), governed.mode) == ((0.9, 2.5), HIGH_VOLATILITY)
    core.market_condition(nan, nan)
    governed.measured(0.1)
    assert condition(governed) == (0.0, 1.0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True),
            st.floats(allow_nan=True, allow_infinity=True),
            st.floats(0.0, 20.0),
        ),
        max_size=40,
    )
)
def test_no_price_breaks_the_condition(governed: Governed, updates: list[tuple[float, float, float]]) -> None:
    """Whatever prices and volumes come, the condition is two numbers of 0 or more."""
    for price, volume, seconds in updates:
        core.market("BTCUSDT", 1, price, volume)
        governed.measured(seconds)
        volatility, ratio = condition(governed)
        assert volatility >= 0.0
        assert ratio >= 0.0
    governed.recorder.faults_expected = governed.recorder.faults
