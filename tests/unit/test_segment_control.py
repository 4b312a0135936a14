"""Steering a segment from outside through its control page."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from segment_image import busy, write

from otel_trading import _layout as at
from otel_trading import segment
from otel_trading.errors import (
    ControlError,
    OtelTradingError,
    SegmentDamagedError,
    SegmentError,
    SegmentForeignError,
    SegmentTruncatedError,
    SegmentVersionError,
)
from otel_trading.segment import Control


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a segment's file, of this process."""
    return write(tmp_path / "image-1-1.seg", busy())


def test_switches(file: Path) -> None:
    """Each switch is one bit, leaves the other alone, and every change is counted."""
    with Control(file) as control:
        assert (control.record, control.export, control.generation) == (True, True, 0)
        control.record = False
        assert (control.record, control.export, control.generation) == (False, True, 1)
        control.export = False
        control.record = True
        assert (control.record, control.export, control.generation) == (True, False, 3)
    with Control(str(file)) as again:
        assert (again.record, again.export, again.generation) == (True, False, 3)
    reader = segment.attach(file)
    assert reader.info()["switches"] == at.SWITCH_RECORD
    reader.close()


@pytest.mark.parametrize(("rate", "threshold"), [(1, 0), (0, 2**56), (0.5, 2**55), (0.25, 3 * 2**54), (1.0, 0)])
def test_the_sampling_rate_is_a_threshold(file: Path, rate: float, threshold: int) -> None:
    """A rate is kept as the number below which a trace's random bits are sampled out."""
    with Control(file) as control:
        control.sampling_rate = rate
        assert control.sampling_rate == rate
    reader = segment.attach(file)
    assert reader.info()["threshold"] == threshold
    reader.close()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_rate_that_is_none(file: Path, rate: float) -> None:
    """Rates outside 0 to 1 change nothing."""
    with Control(file) as control:
        with pytest.raises(ControlError, match="0 to 1"):
            control.sampling_rate = rate
        assert (control.sampling_rate, control.generation) == (1.0, 0)


def test_tiers(file: Path) -> None:
    """A tier is switched without touching its threshold or the other tiers; P0 stays on."""
    image = busy()
    word = at.TIER_ON | 0x123456 << 8
    struct.pack_into("<Q", image.bytes, image.control + at.OFF_CONTROL_TIER_WORD + 16, word)
    write(file, image)
    with Control(file) as control:
        assert [control.tier(tier) for tier in range(4)] == [True] * 4
        control.set_tier(2, False)
        assert [control.tier(tier) for tier in range(4)] == [True, True, False, True]
        control.set_tier(0, True)
        with pytest.raises(OtelTradingError, match="P0"):
            control.set_tier(0, False)
        assert control.tier(0)
        for tier in (-1, 4):
            with pytest.raises(ControlError, match="no tier"):
                control.tier(tier)
            with pytest.raises(ControlError, match="no tier"):
                control.set_tier(tier, True)
    reader = segment.attach(file)
    assert reader.info()["tier_words"][2] == word & ~at.TIER_ON
    reader.close()


def test_steering_touches_the_control_page_only(file: Path) -> None:
    """Whatever is switched, no other byte of the file changes; the generation wraps like any word."""
    image = busy()
    image.set_control(generation=2**64 - 1)
    write(file, image)
    with Control(file) as control:
        control.record = False
        control.sampling_rate = 0.1
        control.set_tier(1, False)
        assert control.generation == 2
        control.close()  # twice is once
    changed = {at for at, (a, b) in enumerate(zip(image.bytes, file.read_bytes(), strict=True)) if a != b}
    assert changed
    assert min(changed) >= image.control
    assert max(changed) < image.control + at.SIZE_CONTROL


def test_a_file_that_can_not_be_steered(file: Path) -> None:
    """Control checks the file as the reader does, before it maps anything."""
    cases: list[tuple[dict[str, int], type[SegmentError]]] = [
        ({"magic": 1}, SegmentForeignError),
        ({"version": 0}, SegmentDamagedError),
        ({"version": at.VERSION + 1}, SegmentVersionError),
        ({"control_offset": 0}, SegmentDamagedError),
        ({"control_offset": at.PAGE + 8}, SegmentDamagedError),
        ({"control_offset": 2**63}, SegmentDamagedError),
        ({"control_offset": 1 << 20}, SegmentTruncatedError),
    ]
    for header, kind in cases:
        image = busy()
        image.header(**header)
        write(file, image)
        with pytest.raises(kind):
            Control(file)
    file.write_bytes(busy().bytes[:50])
    with pytest.raises(SegmentTruncatedError):
        Control(file)
