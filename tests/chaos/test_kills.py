"""Programs and agents killed at any moment: no finished span is lost, none comes twice, open ones are told."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import wait_until
from killing import Agent, Arrived, Trader, assert_nothing_lost, environment, running_agent
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


def test_programs_that_are_killed(
    receiver: tuple[Receiver, str],
    segments: Path,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figures: Callable[..., None],
) -> None:
    """Of programs killed at random moments under load every span arrives, the open ones as interrupted."""
    chance = random.Random(20261121)
    arrived = Arrived(receiver[0])
    delays: list[float] = []
    around = environment(segments, receiver[1])
    with running_agent(around, tmp_path / "agent.log"):
        for number in range(rounds(6, 1_000)):
            trader = Trader(tmp_path, around, f"t{number}", pause=chance.choice([0.0002, 0.001]))
            time.sleep(chance.uniform(0.0, 0.5))
            trader.kill()
            killed = time.monotonic()
            key = (trader.who, "session", -1)

            def told(key: tuple[str, str, int] = key) -> bool:
                arrived.count()
                return arrived.interrupted[key] > 0

            wait_until(told, 30.0)
            delays.append(arrived.when[key] - killed)
            wait_until(lambda: not list(segments.glob("*.seg")), 30.0)
            arrived.count()
            assert_nothing_lost(arrived, trader)
            arrived.finished.clear()
    delays.sort()
    figures("killed programs", count=len(delays), p50_s=delays[len(delays) // 2], p99_s=delays[int(len(delays) * 0.99)])


def test_embedded_programs_that_are_killed(
    receiver: tuple[Receiver, str], segments: Path, tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    """Of programs that drained themselves, what they had not sent when they were killed is sent by an agent, once."""
    chance = random.Random(7)
    arrived = Arrived(receiver[0])
    embedded = environment(segments, receiver[1]) | {"OTEL_TRADING_HOST": "embedded", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    traders = []
    for number in range(rounds(4, 200)):
        trader = Trader(tmp_path, embedded, f"e{number}", pause=chance.choice([0.0002, 0.001]))
        time.sleep(chance.uniform(0.0, 0.5))
        trader.kill()
        traders.append(trader)
        if len(traders) % 4 == 0:  # no more dead ones than are kept without an agent
            with running_agent(environment(segments, receiver[1]), tmp_path / "agent.log"):
                wait_until(lambda: not list(segments.glob("*.seg")), 60.0)
            arrived.count()
            for dead in traders[-4:]:
                assert_nothing_lost(arrived, dead)
            arrived.finished.clear()


def test_agents_that_are_killed(
    receiver: tuple[Receiver, str],
    segments: Path,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figures: Callable[..., None],
) -> None:
    """While agents are killed, stopped and started again, no span of a program under load is lost or comes twice."""
    chance = random.Random(42)
    arrived = Arrived(receiver[0])
    around = environment(segments, receiver[1])
    around["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    count, turns = rounds(6, 200), rounds(4_000, 300_000)
    trader = Trader(tmp_path, around, "t", turns=turns, pause=0.0005, slots=1 << 18)
    done = {"killed": 0, "stopped": 0, "restarted": 0}
    for _ in range(count):
        agent = Agent(around, tmp_path / "agent.log")
        time.sleep(chance.uniform(0.0, 1.0))
        what = chance.choice(["killed", "killed", "stopped", "restarted"])
        done[what] += 1
        if what == "stopped":
            agent.process.send_signal(signal.SIGSTOP)
            time.sleep(rounds(1, 10))
            agent.process.send_signal(signal.SIGCONT)
        if what == "restarted":
            assert agent.stop() == 0
        else:
            agent.kill()
        arrived.count()
        if trader.process.poll() is not None:
            break
    with running_agent(around, tmp_path / "agent.log"):
        assert trader.wait(600) == 0
        wait_until(lambda: not list(segments.glob("*.seg")), 60.0)
    arrived.count()
    begun, inner, ended = trader.ledger()
    assert (begun, inner, ended) == (turns, turns, turns)
    for name in ("outer", "inner"):
        spans = arrived.of("t", name)
        lost = [n for n in range(turns) if n not in spans]
        twice = [n for n, times in spans.items() if times != 1]
        figures(f"killed agents, {name}", **done, spans=turns, lost=len(lost), twice=len(twice))
        assert (lost[:10], twice[:10]) == ([], [])
    assert arrived.finished["t", "session", -1] == 1
