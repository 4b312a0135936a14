"""Steering a segment from outside through its control page."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_image import Image, busy, write

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
    return write(tmp_path / "image-1-1.seg", asked(busy()))


def asked(image: Image, **words: int) -> Image:
    """Have all tiers of an image asked for and left on, as the recorder does; ``words`` are others (``shed2=0``)."""
    for what, offset in (("asked", at.OFF_CONTROL_ASKED), ("shed", at.OFF_CONTROL_SHED)):
        for tier in range(at.TIERS):
            word = words.get(f"{what}{tier}", at.TIER_ON)
            struct.pack_into("<Q", image.bytes, image.control + offset + 8 * tier, word)
    return image


def share(rate: float) -> int:
    """Give the word of a tier that is on, at a rate."""
    return round((1.0 - rate) * (1 << at.SAMPLE_BITS)) << 8 | at.TIER_ON


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
    write(file, asked(busy(), asked2=share(0.25)))
    with Control(file) as control:
        control.set_tier(3, True)  # which puts the words in force
        assert [control.tier_rate(tier) for tier in range(4)] == [1.0, 1.0, 0.25, 1.0]
        control.set_tier(2, False)
        assert [control.tier(tier) for tier in range(4)] == [True, True, False, True]
        assert control.asked_rate(2) == 0.0
        control.set_tier(0, True)
        control.set_tier(2, True)
        assert [control.tier_rate(tier) for tier in range(4)] == [1.0, 1.0, 0.25, 1.0]
    reader = segment.attach(file)
    assert reader.info()["tier_words"][2] == share(0.25)
    reader.close()


def test_a_tier_that_is_none(file: Path) -> None:
    """There are four tiers, and nothing but numbers of them are taken."""
    with Control(file) as control:
        for tier in (-1, 4):
            for step in (control.tier, control.tier_rate, control.asked_rate):
                with pytest.raises(ControlError, match="no tier"):
                    step(tier)
            with pytest.raises(ControlError, match="no tier"):
                control.set_tier(tier, True)
            with pytest.raises(ControlError, match="no tier"):
                control.set_tier_rate(tier, 1.0)
        assert control.generation == 0


def test_p0_is_refused(file: Path) -> None:
    """Nothing that is asked of P0 but all of it is taken, and each refusal says so."""
    with Control(file) as control:
        with pytest.raises(OtelTradingError, match="P0 can not be switched off"):
            control.set_tier(0, False)
        for rate in (0.5, 1e-9):
            with pytest.raises(ControlError, match="P0 can not be thinned out"):
                control.set_tier_rate(0, rate)
        control.set_tier_rate(0, 1)
        assert control.tier(0)


@pytest.mark.parametrize("words", [{"asked0": 0}, {"shed0": 0}, {"asked0": share(0.01)}, {"shed0": share(0.01)}])
def test_p0_stays_whatever_is_in_the_page(file: Path, words: dict[str, int]) -> None:
    """A page that others have damaged does not make P0 less than it is when the words are put in force."""
    write(file, asked(busy(), **words))
    with Control(file) as control:
        control.rollout = 0.0
        assert (control.tier(0), control.tier_rate(0), control.asked_rate(0)) == (True, 1.0, 1.0)
    reader = segment.attach(file)
    assert reader.info()["tier_words"][0] == at.TIER_ON
    reader.close()


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan"), float("inf")])
def test_a_tiers_rate_that_is_none(file: Path, rate: float) -> None:
    """A rate is above 0 and up to 1; switching off has a command of its own."""
    with Control(file) as control:
        with pytest.raises(ControlError, match="above 0"):
            control.set_tier_rate(2, rate)
        assert (control.tier_rate(2), control.generation) == (1.0, 0)


@given(
    asked_for=st.floats(1e-12, 1.0),
    shed=st.floats(0.0, 1.0),
    rollout=st.floats(0.0, 1.0),
    on=st.booleans(),
    left_on=st.booleans(),
)
def test_the_strictest_is_in_force(asked_for: float, shed: float, rollout: float, on: bool, left_on: bool) -> None:  # noqa: FBT001
    """A tier's word is on where both are, with the highest of the three thresholds; P0's is constant."""
    with tempfile.TemporaryDirectory() as directory:
        word = share(shed) % (1 << 64) & ~at.TIER_ON | left_on
        file = write(Path(directory) / "image-1-1.seg", asked(busy(), shed1=word, shed0=word))
        with Control(file) as control:
            control.set_tier_rate(1, asked_for)
            control.set_tier(1, on)
            control.rollout = rollout
            expected = min(asked_for, 1.0 - (word >> 8) / (1 << at.SAMPLE_BITS), rollout) if on and left_on else 0.0
            assert control.tier_rate(1) == pytest.approx(expected, abs=1e-15)
            assert control.asked_rate(1) == pytest.approx(asked_for if on else 0.0, abs=1e-15)
            assert control.rollout == pytest.approx(rollout, abs=1e-15)
            assert control.tier_rate(0) == 1.0


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_rollout_that_is_none(file: Path, value: float) -> None:
    """The rollout's share is from 0 to 1."""
    with Control(file) as control:
        with pytest.raises(ControlError, match="rollout"):
            control.rollout = value
        assert (control.rollout, control.generation) == (1.0, 0)


def test_modes_are_forced_and_released(file: Path) -> None:
    """What a mode leaves of the tiers is in force at once; without a governor the release is, too."""
    with Control(file) as control:
        assert (control.mode, control.forced) == (at.MODE_NORMAL, None)
        for mode, number, rates in (
            ("stressed", at.MODE_STRESSED, [1.0, 1.0, 0.5, 0.0]),
            (at.MODE_EMERGENCY, at.MODE_EMERGENCY, [1.0, 0.0, 0.0, 0.0]),
            ("HIGH_VOLATILITY", at.MODE_HIGH_VOLATILITY, [1.0] * 4),
        ):
            control.force(mode)
            assert (control.mode, control.forced) == (number, number)
            assert [control.tier_rate(tier) for tier in range(4)] == rates
        control.force("EMERGENCY")
        control.force(None)
        assert (control.mode, control.forced) == (at.MODE_NORMAL, None)
        assert [control.tier_rate(tier) for tier in range(4)] == [1.0] * 4


def test_a_governor_is_left_to_choose(file: Path) -> None:
    """Where a policy is active, a release changes nothing but the wish: the engine decides at its next tick."""
    image = asked(busy())
    struct.pack_into("<Q", image.bytes, image.policy + at.OFF_POLICY_ACTIVE, 1)
    write(file, image)
    with Control(file) as control:
        control.force("EMERGENCY")
        generation = control.generation
        control.force(None)
        assert (control.mode, control.forced) == (at.MODE_EMERGENCY, None)
        assert control.generation == generation + 1


@pytest.mark.parametrize("mode", ["off", "P0", "", 4, -1, 1.5])
def test_a_mode_that_is_none(file: Path, mode: object) -> None:
    """There are four modes, and none of them is off."""
    with Control(file) as control:
        with pytest.raises(ControlError, match="no mode"):
            control.force(mode)  # type: ignore[arg-type]
        assert (control.mode, control.forced, control.generation) == (at.MODE_NORMAL, None, 0)


def test_rings_that_do_not_fit(file: Path) -> None:
    """Whether the rings have the size that is asked for is told."""
    with Control(file) as control:
        assert control.buffers_fit
    image = busy()
    image.set_control(buffers=2)
    write(file, image)
    with Control(file) as control:
        assert not control.buffers_fit


def test_steering_touches_the_control_page_only(file: Path) -> None:
    """Whatever is switched, no other byte of the file changes; the generation wraps like any word."""
    image = asked(busy())
    image.set_control(generation=2**64 - 1)
    write(file, image)
    with Control(file) as control:
        control.record = False
        control.sampling_rate = 0.1
        control.set_tier(1, False)
        control.set_tier_rate(2, 0.5)
        control.rollout = 0.1
        control.force("STRESSED")
        assert control.generation == 5
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
