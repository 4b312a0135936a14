"""The control page: what another process sets is in force at the next record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.errors import ControlError
from otel_trading.segment import Control

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]

PROBES = [ot.probe(f"control.p{tier}", tier=tier) for tier in range(4)]


@pytest.fixture
def steer(run_python: Run, recorder: Recorder) -> Callable[[str], str]:
    """Give a function that steers this process from another one."""
    code = "import sys\nfrom otel_trading.segment import Control\nwith Control(sys.argv[1]) as control:\n    "
    return lambda command: run_python(code + command, str(recorder.path)).stdout


def record() -> list[bool]:
    """Record a span in each tier; tells which were recorded."""
    recorded = []
    for probe in PROBES:
        with contextless(probe) as span:
            recorded.append(span.recording)
    return recorded


def contextless(probe: core.Probe) -> core.Span:
    """Make a span that is a root."""
    return probe.span(ot.extract({}))


def test_master_switch(steer: Callable[[str], str], recorder: Recorder) -> None:
    """Recording stops and goes on at another process's word."""
    assert record() == [True] * 4
    steer("control.record = False")
    assert record() == [False] * 4
    steer("control.record = True")
    assert record() == [True] * 4
    assert len(recorder.records()) == 8


def test_tiers(steer: Callable[[str], str], recorder: Recorder) -> None:
    """Each tier is switched by itself."""
    for tier in (1, 2, 3):
        steer(f"control.set_tier({tier}, False)")
        assert record() == [other != tier for other in range(4)]
        steer(f"control.set_tier({tier}, True)")
    assert [account["recorded"] for account in recorder.accounts().values()] == [3, 2, 2, 2]


def test_p0_is_never_off(steer: Callable[[str], str], recorder: Recorder) -> None:
    """Tier P0 cannot be switched off by the proper means, nor by writing its word."""
    assert (
        steer("""
    try:
        control.set_tier(0, False)
    except Exception as error:
        print(type(error).__name__)
""")
        == ControlError.__name__ + "\n"
    )
    with Control(recorder.path) as control:
        control._set(tier_word(0), 0)
    assert record() == [True] * 4


def tier_word(tier: int) -> int:
    """Give the place of a tier's word in the control page."""
    from otel_trading import _layout

    return _layout.OFF_CONTROL_TIER_WORD + 8 * tier


def test_sampling_rate_and_export_switch(steer: Callable[[str], str], recorder: Recorder) -> None:
    """Both decide at the drain what is exported of what was recorded."""
    core.keep(100)
    for command, pending in (
        ("control.sampling_rate = 0.0", 0),
        ("control.sampling_rate = 1.0", 4),
        ("control.export = False", 4),
        ("control.export = True", 8),
    ):
        steer(command)
        record()
        assert sum(account["pending"] for account in recorder.accounts().values()) == pending
    assert sum(account["sampled_out"] for account in recorder.accounts().values()) == 8


def test_a_tiers_own_threshold(recorder: Recorder) -> None:
    """A tier's sampling threshold keeps its traces from being recorded at all."""
    with Control(recorder.path) as control:
        control._set(tier_word(3), (1 << 64) - 255)
        assert record() == [True, True, True, False]
        control._set(tier_word(3), 1)
    assert record() == [True] * 4


def test_generation_tells_of_changes(steer: Callable[[str], str], recorder: Recorder) -> None:
    """Each change raises the page's generation, seen by all."""
    with Control(recorder.path) as control:
        before = control.generation
        steer("control.record = True")
        assert control.generation == before + 1


def test_enable_is_seen_by_others(steer: Callable[[str], str]) -> None:
    """What this process switches itself is what others read."""
    ot.enable(False)
    assert steer("print(control.record)") == "False\n"
    ot.enable(True)
    assert steer("print(control.record)") == "True\n"
