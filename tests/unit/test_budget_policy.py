"""The policy page: what a configuration makes of it, and what it refuses."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_image import busy, write

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading import lifecycle
from otel_trading.budget import policy
from otel_trading.budget.modes import BUDGETS, COSTS, EMERGENCY, MODES, NORMAL, STRESSED, TRIGGERS
from otel_trading.budget.policy import FIELDS, Policy
from otel_trading.config import resolve
from otel_trading.errors import ControlError, SegmentDamagedError, SegmentNotFoundError, SegmentTruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a segment's file, of this process."""
    return write(tmp_path / "image-1-1.seg", busy())


def test_the_names_have_the_formats_numbers() -> None:
    """There are as many names as the format has numbers of each."""
    assert (len(MODES), len(BUDGETS), len(TRIGGERS), len(COSTS)) == (at.MODES, at.BUDGETS, at.TRIGGERS, at.COSTS)


def test_every_field_is_written_where_the_format_has_it(file: Path) -> None:
    """What is written of each field is read again, other fields and other pages stay as they were."""
    before = busy()
    written = 0
    with Policy(file) as page:
        for number, (name, (_, count)) in enumerate(FIELDS.items(), 1):
            values = [number + place / 64 for place in range(count)]
            page.write({name: values if count > 1 else values[0]})
            written += count
            assert page.numbers(name) == tuple(values)
        for number, (name, (_, count)) in enumerate(FIELDS.items(), 1):
            assert page.numbers(name) == tuple(number + place / 64 for place in range(count))
        assert not page.active
        page.active = True
        assert page.active
    changed = {place for place, (a, b) in enumerate(zip(before.bytes, file.read_bytes(), strict=True)) if a != b}
    assert min(changed) == before.policy + at.OFF_POLICY_ACTIVE
    assert before.policy + at.SIZE_POLICY - 8 <= max(changed) < before.policy + at.SIZE_POLICY
    assert 8 * (written + 1) == at.SIZE_POLICY


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nonsense": 1.0}, "no 'nonsense'"),
        ({"hold": -1.0}, "hold: -1.0"),
        ({"hold": nan}, "hold: nan"),
        ({"hold": [1.0, 2.0]}, "2 numbers"),
        ({"enter": [0.1]}, "1 numbers were given, and it has 4"),
        ({"limit": [1.0] * 7 + [nan]}, "limit"),
        ({"margin": 0.5, "dwell": -2.0}, "dwell"),
    ],
)
def test_values_that_are_none(file: Path, values: dict[str, float | list[float]], message: str) -> None:
    """A mistake in one field leaves all of them as they were."""
    before = file.read_bytes()
    with Policy(file) as page, pytest.raises(ControlError, match=message):
        page.write(values)
    assert file.read_bytes() == before


def test_limits_by_name(file: Path) -> None:
    """A limit has its place by mode and name; the others stay."""
    with Policy(file) as page:
        page.set_limit("network", STRESSED, 8000.0)
        page.set_limit("disk", EMERGENCY, inf)
        assert page.limits(STRESSED) == dict.fromkeys(BUDGETS, 0.0) | {"network": 8000.0}
        assert page.limits(EMERGENCY) == dict.fromkeys(BUDGETS, 0.0) | {"disk": inf}
        for budget, mode in (("nonsense", 0), ("cpu", 4), ("cpu", -1)):
            with pytest.raises(ControlError, match="no limit"):
                page.set_limit(budget, mode, 1.0)


def test_what_the_defaults_come_to() -> None:
    """The configuration's units become seconds, bytes and shares, row by row."""
    values = policy.values_of(resolve().values)
    assert set(values) == set(FIELDS) - {"cost", "base_memory", "exporter_memory"}
    assert values["budget"] == pytest.approx(
        [
            *(0.025, 0.025, 0.01, 0.003),
            *(30e6, 30e6, 15e6, 5e6),
            *(200e-6, 200e-6, 50e-6, 10e-6),
            *(32_000.0, 32_000.0, 8_000.0, 0.0),
            *(25.0, 25.0, 5.0, 0.0),
        ]
    )
    assert values["enter"] == [0.7, 0.85, 0.8, 0.9]
    assert values["limit"] == [inf] * 6 + [20.0, inf]
    assert (values["hold"], values["burst"], values["violations"]) == (5.0, 60.0, 3)


@given(
    mode=st.integers(0, 3),
    cpu=st.floats(0, 1e4),
    network=st.one_of(st.just("none"), st.integers(0, 10**9)),
    hold=st.floats(1e-6, 600),
)
def test_any_configuration_is_a_policy(mode: int, cpu: float, network: object, hold: float) -> None:
    """What the configuration takes, the page takes."""
    name = MODES[mode].lower()
    config = {
        f"budget.{name}.cpu_percent": cpu,
        f"budget.{name}.network_kbps": network,
        "keep.hold": hold,
        "budget.violations": 0,
    }
    values = policy.values_of(resolve(config=config).values)
    for field, value in values.items():
        policy._checked(field, value)
    budget = values["budget"]
    assert not isinstance(budget, (int, float))
    assert budget[mode] == pytest.approx(cpu / 100.0)
    assert budget[3 * at.MODES + mode] == (inf if network == "none" else pytest.approx(float(str(network)) * 125))


def test_a_recorders_policy(make_recorder: Callable[..., Recorder]) -> None:
    """With the budget at work the page is active and full; what a record costs was measured, and is small."""
    make_recorder(**{"budget.enabled": True, "budget.normal.memory_mb": 12, "engine.period": 10})
    path = lifecycle.own_segment()
    assert path is not None
    with Policy(path) as page:
        assert page.active
        assert page.limits(NORMAL)["memory"] == 12e6
        assert page.number("period") == 10.0
        assert all(0.0 <= cost < 1e-2 for cost in page.costs().values())
        assert page.costs()["span"] > 0.0
        assert page.trigger_limits()["slow"] == 20.0
        assert 0.0 <= page.number("base_memory") < 200e6


def test_without_the_budget(recorder: Recorder) -> None:
    """Switched off, the page is as the recorder lays it out, and no thread of the budget's runs."""
    with Policy(recorder.path) as page:
        assert not page.active
        assert page.numbers("budget") == (0.0,) * 20
    assert lifecycle._host.governing is None


def test_a_policy_that_can_not_be_found(file: Path) -> None:
    """The page is looked for as every other one: bounds checked, nothing mapped that is not there."""
    for header, kind in (
        ({"policy_offset": 0}, SegmentDamagedError),
        ({"policy_offset": 2**40}, SegmentDamagedError),
        ({"policy_offset": at.PAGE + 8}, SegmentDamagedError),
        ({"policy_offset": 1 << 20}, SegmentTruncatedError),
    ):
        image = busy()
        image.header(**header)
        write(file, image)
        with pytest.raises(kind):
            Policy(file)
    with pytest.raises(SegmentNotFoundError):
        Policy(file.with_name("none.seg"))


def test_a_new_configure_has_a_policy_of_its_own(tmp_path: Path) -> None:
    """After a shutdown, the next segment's page is what its own configuration says."""
    for limit in (10, 20):
        ot.configure("bot", tmp_path, {"ring.slots": 64, "budget.enabled": True, "budget.stressed.disk_iops": limit})
        path = lifecycle.own_segment()
        assert path is not None
        with Policy(path) as page:
            assert page.limits(STRESSED)["disk"] == limit
        ot.shutdown()
