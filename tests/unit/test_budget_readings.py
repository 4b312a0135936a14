"""Readings and decisions, read from any segment: whole, torn, hostile, or gone."""

from __future__ import annotations

import os
import struct
import tempfile
from math import isnan, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_image import Image, busy, write

from otel_trading import _layout as at
from otel_trading.budget.decisions import Decision, decision_of, sentence
from otel_trading.budget.modes import KINDS, MODES, REASONS, name_of, number_of
from otel_trading.budget.readings import Readings, decisions
from otel_trading.errors import SegmentDamagedError, SegmentTruncatedError


def put(image: Image, offset: int, *words: float) -> None:
    """Write words of the readings: integers as they are, floats by their bits."""
    for place, word in enumerate(words):
        code = "<d" if isinstance(word, float) else "<Q"
        struct.pack_into(code, image.bytes, image.readings + offset + 8 * place, word)


def decide(image: Image, number: int, *, seq: int | None = None, **fields: float) -> None:
    """Enter a decision."""
    values = {"unix_ns": 5, "figure": 0.5, "limit": 0.25, "before": 0.0, "after": 2.0, "kind": 1, "reason": 1}
    values |= {"tier": 0, "mode": 2} | fields
    struct.pack_into(
        "<QQ4dBBBBIQ",
        image.bytes,
        image.decisions + number % at.DECISIONS * at.SIZE_DECISION,
        2 * number + 2 if seq is None else seq,
        *values.values(),
        0,
        0,
    )


@pytest.fixture
def image() -> Image:
    """Give a segment whose governor has ticked three times."""
    image = busy()
    put(image, at.OFF_READINGS_SEQ, 6, 3, 1234, 0.75, 0.5, float("nan"), 0.01, 0.9, 2.5)
    put(image, at.OFF_READINGS_USAGE, 0.02, 1e6, 3e-6, 100.0, 2.0)
    put(image, at.OFF_READINGS_CPU_HOT, 0.01, 0.004, 0.003, 0.003, 2e6, 3e6, 10, 20, 30)
    put(image, at.OFF_READINGS_VIOLATIONS, 1, 2, 3, 4, 5, 6, 7)
    put(image, at.OFF_READINGS_HORIZON, 12.5, 640.0)
    put(image, at.OFF_READINGS_THRESHOLD, 0, 1 << 55, 3 << 54, 1 << 56)
    put(image, at.OFF_READINGS_KEPT, *range(8), *range(10, 18), 99, 0, 0)
    image.set_control(mode=2, mode_since_ns=77, mode_reason=1, forced=4, rollout=1 << 55, buffers_now=2, exports_wait=1)
    for tier, word in enumerate((0, 1, (1 << 55) << 8 | 1, 0)):
        struct.pack_into("<Q", image.bytes, image.control + at.OFF_CONTROL_TIER_WORD + 8 * tier, word)
    return image


def test_all_figures(tmp_path: Path, image: Image) -> None:
    """Each figure is where the format has it, in its base unit."""
    with Readings(write(tmp_path / "a.seg", image)) as readings:
        reading = readings.read()
    assert (reading.ticks, reading.unix_ns, reading.whole, reading.failed) == (3, 1234, True, False)
    assert (reading.cpu_load, reading.memory_load, reading.memory_stall) == (0.75, 0.5, 0.01)
    assert isnan(reading.cpu_stall)
    assert (reading.volatility, reading.volume) == (0.9, 2.5)
    assert reading.usage == (0.02, 1e6, 3e-6, 100.0, 2.0)
    assert (reading.cpu_hot, reading.cpu_drain, reading.cpu_export, reading.cpu_governor) == (0.01, 0.004, 0.003, 0.003)
    assert (reading.memory_segment, reading.memory_heap) == (2e6, 3e6)
    assert (reading.network_total, reading.disk_total, reading.cpu_total_ns) == (10, 20, 30)
    assert (reading.violations, reading.steps, reading.in_a_row) == ((1, 2, 3, 4, 5), 6, 7)
    assert (reading.horizon, reading.tokens) == (12.5, 640.0)
    assert reading.thresholds == (0.0, 0.5, 0.75, 1.0)
    assert (reading.kept, reading.missed) == (tuple(range(8)), tuple(range(10, 18)))
    assert (reading.dropped, reading.decisions) == (99, 0)
    assert (reading.mode, reading.mode_since_ns, reading.mode_reason, reading.forced) == (2, 77, 1, 3)
    assert (reading.rates, reading.rollout, reading.buffers) == ((1.0, 1.0, 0.5, 0.0), 0.5, 2)
    assert reading.exports_wait


def test_a_lock_that_nobody_opens(tmp_path: Path, image: Image) -> None:
    """What a process was writing when it died is read, and told not to be of one moment."""
    put(image, at.OFF_READINGS_SEQ, 7)
    with Readings(write(tmp_path / "a.seg", image)) as readings:
        reading = readings.read()
    assert (reading.whole, reading.cpu_load) == (False, 0.75)


def test_decisions(tmp_path: Path, image: Image) -> None:
    """Decisions come oldest first from a number on; torn ones and those of another number are left out."""
    for number in range(4):
        decide(image, number, figure=float(number))
    decide(image, 1, seq=3)
    decide(image, 2, seq=2 * (2 + at.DECISIONS) + 2)
    put(image, at.OFF_READINGS_DECISIONS, 5)
    path = write(tmp_path / "a.seg", image)
    assert [(one.number, one.figure) for one in decisions(path)] == [(0, 0.0), (3, 3.0)]
    assert [one.number for one in decisions(path, 1)] == [3]
    assert decisions(path, 5) == decisions(path, 2**64) == []
    (decision,) = decisions(path, since=3)
    assert (decision.kind_name, decision.reason_name, decision.mode_name) == ("mode", "cpu", "STRESSED")
    assert (decision.unix_ns, decision.limit, decision.before, decision.after) == (5, 0.25, 0.0, 2.0)


def test_the_newest_decisions(tmp_path: Path, image: Image) -> None:
    """Of many, as many as there are places are given."""
    for number in range(200, 200 + at.DECISIONS):
        decide(image, number)
    put(image, at.OFF_READINGS_DECISIONS, 200 + at.DECISIONS)
    found = decisions(write(tmp_path / "a.seg", image))
    assert [one.number for one in found] == list(range(200, 200 + at.DECISIONS))


@given(st.binary(min_size=at.SIZE_READINGS, max_size=at.SIZE_READINGS), st.binary(min_size=2048, max_size=2048))
def test_hostile_pages(page: bytes, entries: bytes) -> None:
    """Whatever is in the pages, reading them ends, and each decision can be said."""
    image = busy()
    image.bytes[image.readings : image.readings + len(page)] = page
    image.bytes[image.decisions : image.decisions + len(entries)] = entries
    image.bytes[image.control : image.control + at.SIZE_CONTROL] = (entries * 2)[: at.SIZE_CONTROL]
    put(image, at.OFF_READINGS_SEQ, 2)
    with tempfile.TemporaryDirectory() as directory, Readings(write(Path(directory) / "a.seg", image)) as readings:
        reading = readings.read()
        assert reading.rates[0] == 1.0
        assert all(0.0 <= rate <= 1.0 for rate in (*reading.rates, reading.rollout, *reading.thresholds))
        assert name_of(reading.mode) in {*MODES, "UNKNOWN"}
        for decision in readings.decisions():
            assert sentence(decision)


@given(
    kind=st.integers(0, 255),
    reason=st.integers(0, 255),
    tier=st.integers(0, 255),
    mode=st.integers(0, 255),
    numbers=st.tuples(*[st.floats()] * 4),
)
def test_any_decision_has_a_sentence(
    kind: int, reason: int, tier: int, mode: int, numbers: tuple[float, float, float, float]
) -> None:
    """A sentence, a name of kind, reason and mode, and whether it is milder are told of any decision there can be."""
    data = struct.pack("<QQ4dBBBBIQ", 2, 0, *numbers, kind, reason, tier, mode, 0, 0)
    decision = decision_of(0, data)
    assert decision is not None
    assert len(sentence(decision)) > 20
    assert decision.kind_name in {*KINDS, "unknown"}
    assert decision.reason_name in {*REASONS, "unknown"}
    assert decision.milder in {True, False}


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (
            Decision(0, 0, at.DECISION_MODE, at.REASON_CPU, 0, 2, 0.744, 0.7, 0.0, 2.0),
            "mode NORMAL -> STRESSED: the system's CPU load, 0.744, is above 0.700",
        ),
        (
            Decision(0, 0, at.DECISION_RATE, at.REASON_BUDGET_CPU, 3, 0, 0.031, 0.025, 1.0, 0.5),
            "P3 1 -> 0.5 of its traces: monitoring's CPU, of one core, 3.1%, is above 2.5%",
        ),
        (
            Decision(0, 0, at.DECISION_BUFFERS, at.REASON_BUDGET_MEMORY, 0, 0, 31e6, 30e6, 1.0, 0.25),
            "rings 1 -> 0.25 of their size: monitoring's memory, 31 MB, is above 30 MB",
        ),
        (
            Decision(0, 0, at.DECISION_EXPORTS, at.REASON_BUDGET_NETWORK, 0, 0, 40_000.0, 32_000.0, 0.0, 1.0),
            "exports wait: monitoring's network, 320 kbit/s, is above 256 kbit/s",
        ),
        (
            Decision(0, 0, at.DECISION_ALERT, at.REASON_VIOLATIONS, 0, 3, 4.0, 3.0, 0.0, 4.0),
            "over the budget 4 times in a row, P0 only: 4 violations in a row, 3 are borne",
        ),
        (
            Decision(0, 0, at.DECISION_MODE, at.REASON_RECOVERED, 0, 0, 0.1, 0.65, 2.0, 0.0),
            "mode STRESSED -> NORMAL: what led to it is over",
        ),
        (
            Decision(0, 0, at.DECISION_FAILED, at.REASON_MARKET, 0, 0, nan, 0.0, 0.0, 0.0),
            "the market's condition can not be told, so recording stays as it is",
        ),
        (
            Decision(0, 0, at.DECISION_WORKS, at.REASON_CPU, 0, 0, 0.1, 0.0, 0.0, 0.0),
            "the system's CPU load can be told again",
        ),
    ],
)
def test_what_is_said(decision: Decision, text: str) -> None:
    """A sentence has the figures in units that people read."""
    assert sentence(decision) == text


def test_names_of_modes() -> None:
    """Modes have a name and a number, in any case; what is neither is told."""
    for number, name in enumerate(MODES):
        assert (name_of(number), number_of(name), number_of(f" {name.lower()} ")) == (name, number, number)
    assert name_of(4) == name_of(-1) == "UNKNOWN"
    for wrong in ("off", "", 1, None, b"NORMAL"):
        with pytest.raises(ValueError, match="no mode"):
            number_of(wrong)


def test_pages_that_are_nowhere(tmp_path: Path) -> None:
    """A file whose pages are not where they can be is refused, one that is cut short meanwhile as well."""
    path = tmp_path / "a.seg"
    for field in ("readings_offset", "decisions_offset", "control_offset"):
        for offset, kind in ((0, SegmentDamagedError), (2**50, SegmentDamagedError), (1 << 20, SegmentTruncatedError)):
            image = busy()
            image.header(**{field: offset})
            with pytest.raises(kind):
                Readings(write(path, image))
    with Readings(write(path, busy())) as readings:
        os.truncate(path, at.PAGE)
        for read in (readings.read, readings.decisions):
            with pytest.raises(SegmentTruncatedError):
                read()
    readings.close()  # twice is once
