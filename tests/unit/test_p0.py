"""P0 stays: no path switches it off or thins it out, and where there is a caller to tell, it is an error."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from api_tracers import make_tracer
from governed import Governed

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading import faults
from otel_trading._backend import core
from otel_trading.budget.modes import MODES
from otel_trading.cli import main
from otel_trading.config import resolve
from otel_trading.errors import ConfigurationError, ControlError
from otel_trading.sdk.adaptive import AdaptiveSampler, adaptive_sampler
from otel_trading.sdk.sampler import TradingTierSampler, tier_sampler

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Recorder

P0 = ot.probe("p0.work", tier=ot.P0)
LEAF = ot.probe("p0.leaf", tier=ot.P0, leaf=True)
P3 = ot.probe("p0.extra", tier=ot.P3)
COUNTER = ot.counter("p0.counter", tier=ot.P0)
GAUGE = ot.gauge("p0.gauge", tier=ot.P0)
HISTOGRAM = ot.histogram("p0.histogram", tier=ot.P0)
INSTRUMENTS = ("p0.counter", "p0.gauge", "p0.histogram")
ROUNDS = 50
SPANS = 5  # that a round records, one of each form


@P0
def decorated() -> None:
    """Be a span."""


@LEAF
def leaf() -> None:
    """Be a flat one."""


def record() -> None:
    """Record P0 in each form there is, each span a trace of its own, and as many of P3."""
    tracer = make_tracer()
    for number in range(ROUNDS):
        P0.stop(P0.start())
        with P0.span(number=number):
            pass
        decorated()
        leaf()
        tracer.start_span("p0.api", attributes={"trading.tier": 0}).end()
        COUNTER.add(1)
        GAUGE.set(number)
        HISTOGRAM.record(number)
        for _ in range(SPANS):
            P3.stop(P3.start())


def updates() -> dict[str, int]:
    """Give how often each instrument of P0 was updated."""
    return {one["name"]: one["updates"] for one in core.snapshot()["instruments"] if one["name"] in INSTRUMENTS}


def recorded() -> list[int]:
    """Give how many spans of each tier there are."""
    return [account["recorded"] for account in ot.accounts().values()]


def assert_p0_is_recorded(*, others: bool | None = None) -> None:
    """Demand that all of P0 is recorded now, and of P3, where it is told, all or nothing."""
    before, counts = recorded(), updates()
    record()
    after = recorded()
    assert after[0] - before[0] == ROUNDS * SPANS
    assert updates() == {name: count + ROUNDS for name, count in counts.items()}
    if others is not None:
        assert after[3] - before[3] == (ROUNDS * SPANS if others else 0)


@pytest.fixture
def governed(make_recorder: Callable[..., Recorder]) -> Iterator[Governed]:
    """Give a governed recorder, with room for all that is recorded here."""
    recorder = make_recorder(**{"ring.slots": 16_384})
    governed = Governed(recorder.path)
    yield governed
    governed.close()


# ---- modes ----


@pytest.mark.parametrize("mode", range(len(MODES)))
def test_no_mode_does(governed: Governed, mode: int) -> None:
    """In each of the modes, forced through the control page, before and after the governor's next tick."""
    others = mode < at.MODE_STRESSED
    governed.control.force(mode)
    assert_p0_is_recorded(others=others)
    governed.tick()
    assert_p0_is_recorded(others=others)
    assert governed.readings.read().rates[0] == 1.0
    governed.control.force(None)


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_does_that_the_program_asks_for(governed: Governed, mode: str) -> None:
    """The same through the API."""
    ot.set_mode(mode)
    governed.tick()
    assert_p0_is_recorded()
    ot.set_mode(None)


@pytest.mark.parametrize("mode", ["off", "none", "", "P0", 7, object()])
def test_there_is_no_mode_for_it(recorder: Recorder, mode: object) -> None:
    """What is no mode is an error of the control page, and a fault of the program that changes nothing."""
    governed = Governed(recorder.path)
    with pytest.raises(ControlError):
        governed.control.force(mode)  # type: ignore[arg-type]
    ot.set_mode(mode)  # type: ignore[arg-type]
    recorder.faults_expected = 1
    assert (governed.control.mode, governed.control.forced) == (at.MODE_NORMAL, None)
    assert governed.tick().rates == (1.0, 1.0, 1.0, 1.0)
    governed.close()


def test_no_pressure_does(governed: Governed) -> None:
    """The engine's own EMERGENCY leaves it."""
    governed.tick(cpu_load=1.0, memory_load=1.0)
    assert ot.mode() == "EMERGENCY"
    assert_p0_is_recorded(others=False)


# ---- the budget ----


@pytest.mark.parametrize("figure", ["cpu", "memory", "latency", "network", "disk", "all"])
def test_no_step_of_the_budget_does(governed: Governed, figure: str) -> None:
    """Whatever is exceeded for however long: when nothing more can be given up, P0 is recorded."""
    for mode in range(len(MODES)):
        for name in ("cpu", "memory", "latency", "network", "disk"):
            governed.policy.set_limit(name, mode, 0.0)
    names = ("cpu", "memory", "latency", "network", "disk") if figure == "all" else (figure,)
    for _ in range(60):
        reading = governed.tick(1.0, **dict.fromkeys(names, 1e12))
        assert reading.rates[0] == 1.0
    core.fit_buffers()
    assert_p0_is_recorded(others=None if figure in {"memory", "network", "disk"} else False)


def test_the_alert_leaves_it(governed: Governed) -> None:
    """P0 only means P0."""
    governed.policy.set_limit("cpu", at.MODE_NORMAL, 0.01)
    for _ in range(5):
        reading = governed.tick(1.0, cpu=0.5)
    assert governed.decisions(at.DECISION_ALERT)
    assert reading.rates == (1.0, 0.0, 0.0, 0.0)
    assert_p0_is_recorded(others=False)


# ---- sampling, rollout, export ----


def test_no_sampling_rate_does(governed: Governed) -> None:
    """At a rate of 0 traces of P1 to P3 are not exported; those of P0 are recorded, and exported all the same."""
    core.keep(10_000)
    governed.control.sampling_rate = 0.0
    governed.tick(0.2)
    assert_p0_is_recorded(others=True)
    core.drain(True)
    batch = core.take(10_000)
    assert batch.tiers == (ROUNDS * SPANS, 0, 0, 0)
    batch.settle()
    assert ot.accounts()[0]["sampled_out"] == 0


def test_no_configured_sampling_rate_does(make_recorder: Callable[..., Recorder]) -> None:
    """The same by the configuration, without a budget: recorded, and in the metrics."""
    recorder = make_recorder(**{"ring.slots": 16_384, "sampling.rate": 0.0})
    assert recorder
    assert_p0_is_recorded(others=True)
    assert ot.stats()["p0.work"]["count"] == 3 * ROUNDS


def test_no_rollout_does(governed: Governed) -> None:
    """A share of 0 records nothing of P1 to P3, to the trace, and all of P0."""
    governed.control.rollout = 0.0
    assert_p0_is_recorded(others=False)
    governed.tick()
    assert_p0_is_recorded(others=False)


def test_no_command_does(governed: Governed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``otel-trading mode`` and ``rollout`` have no word for it, and what they have leaves it."""
    where = ("--directory", str(tmp_path))
    assert main.main(["mode", "emergency", *where]) == 0
    assert_p0_is_recorded(others=False)
    assert main.main(["mode", "auto", *where]) == 0
    governed.run(5.0)
    assert main.main(["rollout", "to", "0%", *where]) == 0
    assert_p0_is_recorded(others=False)
    for mode in ("off", "p0", "none"):
        with pytest.raises(SystemExit) as left:
            raise SystemExit(main.main(["mode", mode, *where]))
        assert left.value.code == 2
    assert_p0_is_recorded(others=False)
    capsys.readouterr()


# ---- the configuration ----


@pytest.mark.parametrize(
    "config",
    [
        {"tiers": {"order.*": "off"}},
        {"tiers": {"order.*": False}},
        {"tiers": {"P0": "none"}},
        {"tiers": {"order.*": "P4"}},
        {"tiers.P0": False},
        {"tiers.p0.enabled": False},
        {"budget.P0.enabled": False},
        {"sampling": {"P0": 0.0}},
        {"sampling.p0.rate": 0.0},
        {"keep": {"p0": 0}},
        {"mode": "off"},
        {"mode": False},
        {"sampling.rate": -1.0},
    ],
)
def test_no_configuration_does(config: dict[str, object], tmp_path: Path) -> None:
    """There is no key for it: each try is told with its place."""
    with pytest.raises(ConfigurationError):
        resolve(config=config)
    with pytest.raises(ConfigurationError):
        ot.configure("p0", tmp_path, config)
    assert not core.is_open()


@pytest.mark.parametrize(("name", "value"), [("OTEL_TRADING_MODE", "off"), ("OTEL_TRADING_SAMPLING_RATE", "-1")])
def test_no_environment_does(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is there a variable for it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError):
        resolve()


# ---- the control page ----


def test_the_control_page_refuses(governed: Governed) -> None:
    """Each way to ask for less of it is an error that changes nothing."""
    generation = governed.control.generation
    for refused in (
        lambda: governed.control.set_tier(0, False),
        lambda: governed.control.set_tier_rate(0, 0.0),
        lambda: governed.control.set_tier_rate(0, 0.5),
        lambda: governed.control.set_tier_rate(0, float("nan")),
    ):
        with pytest.raises(ControlError):
            refused()
    assert governed.control.generation == generation
    assert governed.control.tier_rate(0) == governed.control.asked_rate(0) == 1.0
    governed.control.set_tier(0, True)
    governed.control.set_tier_rate(0, 1.0)
    assert_p0_is_recorded(others=True)


RAW = """
import mmap, os, struct, sys
from otel_trading import _layout as at
path, values = sys.argv[1], [int(text) for text in sys.argv[2:]]
fd = os.open(path, os.O_RDWR)
page = mmap.mmap(fd, 0)
control = struct.unpack_from("<Q", page, at.OFF_HEADER_CONTROL_OFFSET)[0]
instruments = struct.unpack_from("<Q", page, at.OFF_HEADER_INSTRUMENTS_OFFSET)[0]
count = struct.unpack_from("<I", page, at.OFF_HEADER_INSTRUMENT_COUNT)[0]
for value in values:
    for field in (at.OFF_CONTROL_TIER_WORD, at.OFF_CONTROL_ASKED, at.OFF_CONTROL_SHED):
        struct.pack_into("<Q", page, control + field, value)
    struct.pack_into("<Q", page, control + at.OFF_CONTROL_ROLLOUT, (1 << 64) - 1)
    struct.pack_into("<Q", page, control + at.OFF_CONTROL_THRESHOLD, (1 << 64) - 1)
    generation = struct.unpack_from("<Q", page, control + at.OFF_CONTROL_GENERATION)[0]
    struct.pack_into("<Q", page, control + at.OFF_CONTROL_GENERATION, generation + 1)
for number in range(count):
    place = instruments + at.SIZE_INSTRUMENT * number
    if page[place + at.OFF_INSTRUMENT_TIER] == 0:
        page[place + at.OFF_INSTRUMENT_OFF] = 1
"""


@pytest.mark.parametrize("word", [0, (1 << 64) - 2, (1 << 64) - 1, 1 << 63])
def test_another_process_that_writes_to_the_page_does_not(
    make_recorder: Callable[..., Recorder], run_python: Callable[..., subprocess.CompletedProcess[str]], word: int
) -> None:
    """Raw words for P0, of whatever value, and a rollout of nothing: all of P0 is recorded as before."""
    recorder = make_recorder(**{"ring.slots": 16_384})
    record()  # so that what is looked at once and remembered is remembered
    run_python(RAW, str(recorder.path), str(word))
    assert_p0_is_recorded()


def test_the_governor_puts_raw_words_right(
    governed: Governed, run_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """At its next tick what is in force for P0 says so again."""
    (path,) = tmp_path.glob("*.seg")
    run_python(RAW, str(path), "0")
    assert_p0_is_recorded()
    governed.tick()
    assert governed.control.words[at.OFF_CONTROL_TIER_WORD // 8] == at.TIER_ON
    assert governed.control.words[at.OFF_CONTROL_SHED // 8] == at.TIER_ON
    assert_p0_is_recorded()


def test_the_switch_of_the_recorder_itself_is_another_matter(governed: Governed) -> None:
    """``enable(False)`` records nothing at all, as not installing it does; ``enable(True)`` begins with all of P0."""
    ot.enable(False)
    before = recorded()
    record()
    assert recorded() == before
    ot.enable(True)
    assert_p0_is_recorded(others=True)
    governed.control.record = True


# ---- the API ----


@pytest.mark.parametrize("kind", [core.Counter, core.Gauge, core.Histogram])
@pytest.mark.parametrize("off_cpu", [1, 60, 100])
def test_no_load_does(kind: type, off_cpu: int) -> None:
    """An instrument of P0 has no CPU load from which it is off."""
    with pytest.raises(ValueError, match="P0"):
        kind("p0.never", 0, "", "", "", off_cpu)


def test_loads_switch_others(governed: Governed) -> None:
    """Instruments of other tiers are off from their load on, and back five points below; those of P0 stay."""
    other = core.Counter("p0.other", 2, "", "", "", 80)
    other.add(1)
    governed.tick(cpu_load=0.8)
    other.add(1)
    governed.tick(cpu_load=0.76)
    other.add(1)
    assert_p0_is_recorded()
    governed.tick(cpu_load=0.74)
    other.add(1)
    (found,) = [one for one in core.snapshot()["instruments"] if one["name"] == "p0.other"]
    assert found["value"] == 2


@pytest.mark.parametrize("name", ["order.submit", "order.ack", "order.reject", "order.fill", "risk.breach"])
@pytest.mark.parametrize("tier", [ot.P2, ot.P3])
def test_orders_can_not_be_made_less(name: str, tier: int) -> None:
    """What orders and risk are recorded with is of P0 whatever a program says, and that is reported."""
    from otel_trading.probes import _tier

    assert _tier(name, tier) == ot.P0
    assert _tier(f"trading.{name}", tier) == ot.P0
    faults.forget()


@pytest.mark.parametrize("tier", [-1, 4, None, "P0", False])
def test_a_tier_that_is_none_is_not_less(tier: object) -> None:
    """A wrong tier gives one that records, never none."""
    from otel_trading.probes import _tier

    assert _tier("p0.wrong", tier) in {ot.P0, ot.P1}
    faults.forget()


# ---- samplers of the stock SDK ----


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.999])
def test_no_tier_sampler_does(rate: float) -> None:
    """Less than all of P0 is refused, by whatever way it is asked for."""
    with pytest.raises(ValueError, match="P0"):
        TradingTierSampler((rate, 1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="P0"):
        tier_sampler(f"P0={rate},P1=0.5")


def test_samplers_take_all_of_it() -> None:
    """However little of the other tiers is taken, and however many spans ask."""
    dice = random.Random(5)
    tiers = tier_sampler("0")
    clock = [0.0]
    adaptive = AdaptiveSampler(1.0, 1e-9, lambda: clock[0])
    for _ in range(500):
        trace_id = dice.getrandbits(128)
        for sampler in (tiers, adaptive):
            result = sampler.should_sample(None, trace_id, "p0", attributes={"trading.tier": "P0"})
            assert result.decision.is_sampled()
        assert not tiers.should_sample(None, trace_id, "p3", attributes={"trading.tier": "P3"}).decision.is_sampled()
    with pytest.raises(ValueError, match="least"):
        adaptive_sampler("least=0")
