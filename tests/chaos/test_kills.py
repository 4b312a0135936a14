"""Programs and agents killed at any moment: no finished span is lost, none comes twice, open ones are told."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import wait_until
from killing import Agent, Arrived, Became, Trader, became_of, environment, running_agent
from otlp_receiver import Receiver, over_http


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    """Give a receiver and its address."""
    made = Receiver()
    with over_http(made) as url:
        yield made, url


@pytest.fixture
def segments(tmp_path: Path) -> Path:
    """Give a directory for segments."""
    made = tmp_path / "segments"
    made.mkdir(mode=0o700)
    return made


class Sum:
    """What became of the spans of all programs that were killed, and how soon each death was told."""

    def __init__(self, what: str, figures: Callable[..., None], progress: Callable[[str], None]) -> None:
        """Begin with none."""
        self.what, self._figures, self._progress = what, figures, progress
        self.kills = 0
        self.delays: list[float] = []
        self.wrong: list[str] = []
        self._counts: Counter[str] = Counter()

    def add(self, became: Became, delay: float | None = None) -> None:
        """Take one more."""
        self.kills += 1
        self._counts.update(became.counts)
        timed = {} if delay is None else {"death_to_trace_s": delay}
        self.delays += timed.values()
        wrong = [*became.lost, *became.missing, *became.twice]
        self.wrong += wrong[:20]
        which = {"which": wrong[:20]} if wrong else {}
        self._figures(f"{self.what}, one of them", each=True, **became.counts, **timed, **which)
        self._progress(f"{self.what}: {self._found()}")

    def tell(self) -> None:
        """Note it, and demand that nothing was wrong."""
        self._figures(self.what, **self._found())
        assert self.wrong == []

    def _found(self) -> dict[str, float]:
        found: dict[str, float] = {"kills": self.kills, **self._counts}
        if self.delays:
            delays = sorted(self.delays)
            found["deaths_timed"] = len(delays)
            found["p50_s"] = delays[len(delays) // 2]
            found["p99_s"] = delays[int(len(delays) * 0.99)]
            found["max_s"] = delays[-1]
        return found


def test_programs_that_are_killed(
    receiver: tuple[Receiver, str],
    segments: Path,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figures: Callable[..., None],
    progress: Callable[[str], None],
) -> None:
    """Of programs killed at random moments under load every span arrives, the open ones as interrupted."""
    chance = random.Random(20261121)
    arrived = Arrived(receiver[0])
    total = Sum("killed programs", figures, progress)
    around = environment(segments, receiver[1])
    with running_agent(around, tmp_path / "agent.log"):
        for number in range(rounds(6, 1_000)):
            trader = Trader(tmp_path, around, f"t{number}", chance.choice([0.0002, 0.001]))
            time.sleep(chance.uniform(0.0, 0.5))
            killed = time.monotonic()
            trader.kill()
            key = (trader.who, "session", -1)

            def told(key: tuple[str, str, int] = key) -> bool:
                arrived.count()
                return arrived.interrupted[key] > 0

            with contextlib.suppress(AssertionError):  # then it is missing
                wait_until(told, 30.0)
            wait_until(lambda: not list(segments.glob("*.seg")), 30.0)
            arrived.count()
            total.add(became_of(arrived, trader), arrived.when[key] - killed if key in arrived.when else None)
            arrived.finished.clear()
    total.tell()


def test_embedded_programs_that_are_killed(
    receiver: tuple[Receiver, str],
    segments: Path,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figures: Callable[..., None],
    progress: Callable[[str], None],
) -> None:
    """Of programs that drained themselves, what they had not sent when they were killed is sent by an agent, once."""
    chance = random.Random(7)
    arrived = Arrived(receiver[0])
    total = Sum("killed embedded programs", figures, progress)
    embedded = environment(segments, receiver[1]) | {"OTEL_TRADING_HOST": "embedded", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    for group in range(rounds(1, 50)):
        traders = []
        for number in range(4):  # no more dead ones than are kept without an agent
            trader = Trader(tmp_path, embedded, f"e{4 * group + number}", chance.choice([0.0002, 0.001]))
            time.sleep(chance.uniform(0.0, 0.5))
            trader.kill()
            traders.append(trader)
        with running_agent(environment(segments, receiver[1]), tmp_path / "agent.log"):
            wait_until(lambda: not list(segments.glob("*.seg")), 60.0)
        arrived.count()
        for trader in traders:
            total.add(became_of(arrived, trader))
        arrived.finished.clear()
    total.tell()


def test_agents_that_are_killed(
    receiver: tuple[Receiver, str],
    segments: Path,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    chosen: Callable[[float, float], float],
    figures: Callable[..., None],
    progress: Callable[[str], None],
) -> None:
    """While agents are killed, stopped and started again, no span of a program under load is lost or comes twice."""
    chance = random.Random(42)
    arrived = Arrived(receiver[0])
    around = environment(segments, receiver[1])
    around["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    trader = Trader(tmp_path, around, "t", chosen(0.0005, 0.002), slots=1 << 18)
    done = {"killed": 0, "stopped_and_killed": 0, "restarted": 0}
    for number in range(rounds(6, 200)):
        agent = Agent(around, tmp_path / "agent.log")
        time.sleep(chance.uniform(0.0, 1.0))
        what = chance.choice(["killed", "killed", "stopped_and_killed", "restarted"])
        done[what] += 1
        if what == "stopped_and_killed":
            agent.process.send_signal(signal.SIGSTOP)
            time.sleep(chosen(1.0, 10.0))
            agent.process.send_signal(signal.SIGCONT)
        if what == "restarted":
            assert agent.stop() == 0
        else:
            agent.kill()
        arrived.count()
        progress(f"killed agents: {number + 1}, {done}, {len(arrived.finished)} spans have arrived")
    with running_agent(around, tmp_path / "agent.log"):
        assert trader.stop(600) == 0
        wait_until(lambda: not list(segments.glob("*.seg")), 60.0)
    arrived.count()
    begun, inner, turns = trader.ledger()
    assert begun == inner == turns > 0
    lost: list[str] = []
    twice: list[str] = []
    for name in ("outer", "inner"):
        spans = arrived.of("t", name)
        lost += [f"{name} {n}" for n in range(turns) if n not in spans]
        twice += [f"{name} {n}" for n, times in spans.items() if times != 1 or n >= turns]
    figures("killed agents", **done, spans=2 * turns, lost=len(lost), twice=len(twice))
    assert (lost[:10], twice[:10]) == ([], [])
    assert arrived.finished["t", "session", -1] == 1
