"""Counters, gauges and histograms: what is summed, kept, and told about them."""

from __future__ import annotations

import json
import math
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder

COUNTER, GAUGE, HISTOGRAM = 1, 2, 3


def told(name: str, attributes: str = "") -> dict[str, Any]:
    """Find an instrument in a snapshot."""
    found = [i for i in core.snapshot()["instruments"] if i["name"] == name and i["attributes"] == attributes]
    assert len(found) == 1, f"{name} is there {len(found)} times"
    return found[0]


def test_counter(recorder: Recorder) -> None:
    """A counter sums what is added, whole numbers as whole numbers."""
    counter = ot.counter("instruments.orders", tier=ot.P0, unit="{order}", description="Orders sent")
    for amount in (1, 2, 3):
        counter.add(amount)
    got = told("instruments.orders")
    assert (got["kind"], got["tier"], got["unit"], got["description"]) == (COUNTER, 0, "{order}", "Orders sent")
    assert (got["value"], got["updates"]) == (6, 3)
    assert isinstance(got["value"], int)
    assert recorder.records() == []


def test_counter_of_floats(recorder: Recorder) -> None:
    """Floats and whole numbers may be mixed in a counter."""
    counter = ot.counter("instruments.volume")
    counter.add(0.25)
    counter.add(2)
    assert told("instruments.volume")["value"] == 2.25
    assert recorder.faults == 0


def test_counter_is_exact_past_doubles(recorder: Recorder) -> None:
    """The whole part of a counter is exact where a double would round."""
    counter = ot.counter("instruments.exact")
    counter.add(2**60)
    counter.add(1)
    assert told("instruments.exact")["value"] == 2**60 + 1
    assert recorder.faults == 0


def test_gauge(recorder: Recorder) -> None:
    """A gauge has the last value that was set, and none before."""
    gauge = ot.gauge("instruments.depth")
    assert told("instruments.depth")["value"] is None
    for value in (3, 7.5, -2):
        gauge.set(value)
    got = told("instruments.depth")
    assert (got["kind"], got["value"], got["updates"]) == (GAUGE, -2.0, 3)
    assert recorder.records() == []


def test_histogram(recorder: Recorder) -> None:
    """A histogram knows count, sum, least and greatest exactly, and each value to its bucket."""
    histogram = ot.histogram("instruments.slippage", unit="bps")
    values = [0.5, 1.2, 1.2, 8.0, 100.0]
    for value in values:
        histogram.record(value)
    got = told("instruments.slippage")
    scale, count, total, least, greatest, zeros, offset, positive, _, negative = got["total"]
    assert (got["kind"], got["unit"], got["updates"]) == (HISTOGRAM, "bps", 5)
    assert (count, zeros, least, greatest) == (5, 0, 0.5, 100.0)
    assert total == pytest.approx(sum(values))
    counts = struct.unpack(f"={len(positive) // 8}Q", positive)
    assert sum(counts) == 5
    assert sum(struct.unpack(f"={len(negative) // 8}Q", negative)) == 0
    base = 2.0**2.0**-scale
    indices = [offset + i for i, n in enumerate(counts) for _ in range(n)]
    for value, index in zip(values, indices, strict=True):
        # Powers of two lie on a bucket's upper bound.
        assert base**index * (1 - 1e-9) <= value <= base ** (index + 1) * (1 + 1e-9)
    assert recorder.records() == []


def test_histogram_of_zero_and_negative_values(recorder: Recorder) -> None:
    """Zero and negative values are counted where they belong."""
    histogram = ot.histogram("instruments.pnl")
    for value in (-2.0, -2.0, 0.0, 3.0):
        histogram.record(value)
    _, count, total, least, greatest, zeros, _, positive, _, negative = told("instruments.pnl")["total"]
    assert (count, total, least, greatest, zeros) == (4, -1.0, -2.0, 3.0, 1)
    assert sum(struct.unpack(f"={len(positive) // 8}Q", positive)) == 1
    assert sum(struct.unpack(f"={len(negative) // 8}Q", negative)) == 2
    assert recorder.faults == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_faults(recorder: Recorder, value: float) -> None:
    """NaN and infinities are refused by histograms and counters, and counted as faults."""
    histogram, counter = ot.histogram("instruments.odd"), ot.counter("instruments.odd.sum")
    histogram.record(value)
    counter.add(value)
    assert told("instruments.odd")["total"][1] == 0
    assert told("instruments.odd.sum")["value"] == 0
    recorder.faults_expected = 2


def test_histogram_values_and_spans_share_a_ring(recorder: Recorder) -> None:
    """A reader of spans passes over histogram values, and the accounts count spans only."""
    histogram, probe = ot.histogram("instruments.mixed"), ot.probe("instruments.span")
    for _ in range(10):
        histogram.record(1.0)
        probe.stop(probe.start())
    assert len(recorder.records()) == 10
    assert recorder.accounts()[1]["recorded"] == 10
    assert told("instruments.mixed")["total"][1] == 10


def test_histogram_exemplars(recorder: Recorder) -> None:
    """A value recorded inside a span carries the span's ids as its exemplar."""
    histogram = ot.histogram("instruments.exemplar")
    with ot.probe("instruments.exemplar.span") as span:
        histogram.record(1.5)
    exemplars = told("instruments.exemplar")["exemplars"]
    assert [(value, trace, identity) for value, trace, identity, _ in exemplars] == [(1.5, span.trace_id, span.span_id)]
    assert recorder.faults == 0


def test_attributes_make_series(recorder: Recorder) -> None:
    """Each set of attributes is a series; their order is not told apart."""
    buy = ot.counter("instruments.by_side", attributes={"side": "buy", "venue": "gateio"})
    sell = ot.counter("instruments.by_side", attributes={"side": "sell", "venue": "gateio"})
    assert ot.counter("instruments.by_side", attributes={"venue": "gateio", "side": "buy"}) is buy
    buy.add(1)
    sell.add(2)
    texts = {side: json.dumps({"side": side, "venue": "gateio"}, separators=(",", ":")) for side in ("buy", "sell")}
    assert told("instruments.by_side", texts["buy"])["value"] == 1
    assert told("instruments.by_side", texts["sell"])["value"] == 2
    assert recorder.faults == 0


@pytest.mark.parametrize("make", [ot.counter, ot.gauge, ot.histogram])
def test_a_name_is_one_instrument(make: Callable[..., object]) -> None:
    """The same name and attributes give the same instrument."""
    name = f"instruments.one.{make.__name__}"
    assert make(name, unit="s") is make(name)
    assert make(name, attributes={"a": 1}) is not make(name)
    assert make(name, attributes={}) is make(name)


def test_redefinition_is_a_fault(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """A second definition with another unit is ignored, logged, and counted."""
    first = ot.counter("instruments.redefined", unit="By")
    assert ot.counter("instruments.redefined", unit="s") is first
    assert "instruments.redefined" in caplog.text
    recorder.faults_expected = 1


def test_attributes_of_wrong_types_are_faults(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Attributes that JSON or OpenTelemetry can not take are left out, logged, and counted."""
    ot.counter("instruments.attributes", attributes={"a": 1, "b": [1], "c": math.nan}).add(1)
    assert told("instruments.attributes", '{"a":1}')["value"] == 1
    assert "instruments.attributes" in caplog.text
    recorder.faults_expected = 2


@pytest.mark.parametrize("amount", ["1", None, [1]])
def test_amounts_of_wrong_types_are_type_errors(recorder: Recorder, amount: Any) -> None:
    """What is no number is a TypeError, as for any function."""
    for update in (
        ot.counter("instruments.typed").add,
        ot.gauge("instruments.typed.gauge").set,
        ot.histogram("instruments.typed.histogram").record,
    ):
        with pytest.raises(TypeError):
            update(amount)
    assert recorder.faults == 0


def test_a_tier_that_is_off_records_no_values(recorder: Recorder) -> None:
    """Instruments of a tier that is off do nothing, those of the others go on."""
    names = {tier: f"instruments.tier.{tier}" for tier in (ot.P0, ot.P3)}
    with Control(recorder.path) as control:
        control.set_tier(ot.P3, False)
    for tier, name in names.items():
        ot.counter(name, tier=tier).add(1)
        ot.histogram(name + ".h", tier=tier).record(1.0)
    assert (told(names[0])["value"], told(names[3])["value"]) == (1, 0)
    assert (told(names[0] + ".h")["total"][1], told(names[3] + ".h")["total"][1]) == (1, 0)


def test_nothing_is_recorded_before_and_after() -> None:
    """Instruments are harmless without a recorder."""
    ot.counter("instruments.unrecorded").add(1)
    ot.gauge("instruments.unrecorded").set(1)
    ot.histogram("instruments.unrecorded").record(1)


def test_threads_add_without_loss(recorder: Recorder) -> None:
    """Nothing is lost when many threads add to one counter."""
    counter, floats = ot.counter("instruments.threads"), ot.counter("instruments.threads.float")

    def work() -> None:
        for _ in range(1000):
            counter.add(1)
            floats.add(0.5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told("instruments.threads")["value"] == 8000
    assert told("instruments.threads.float")["value"] == 4000.0
    assert recorder.faults == 0


def test_every_instrument_is_in_the_snapshot(recorder: Recorder) -> None:
    """Instruments that were never used are told with their zeros."""
    ot.histogram("instruments.unused")
    got = told("instruments.unused")
    assert (got["updates"], got["total"][1]) == (0, 0)
    assert set(got["windows"]) == {"1s", "5s", "1m"}
    assert recorder.faults == 0


def test_garbage_collections_are_timed(recorder: Recorder) -> None:
    """Each collection's pause is in the histogram ``gc.pause``."""
    import gc

    before = told("gc.pause")["total"][1] if any(i["name"] == "gc.pause" for i in core.snapshot()["instruments"]) else 0
    for _ in range(3):
        gc.collect()
    got = told("gc.pause")
    assert got["total"][1] >= before + 3
    assert got["unit"] == "s"
    assert recorder.faults == 0
