"""Segments that are damaged at random, on disk and while they are read: no crash, no hang, no memory without bound."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import child_environment
from damage import Damage

from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from otel_trading._native import Reader

_LONGEST = 20  # seconds that one damaged file may take; a thousand times what a good one does
# Bytes, over the whole run; the address sanitizer keeps what was freed for a while.
_MOST_GROWTH = (1_024 if "asan" in os.environ.get("LD_PRELOAD", "") else 192) << 20

VICTIM = """
import os, signal, sys
import otel_trading as ot

ot.configure("victim", config={"ring.slots": 64, "ring.thread_slots": 16, "ring.open_spans": 16,
    "ring.arena_bytes": 16384, "names.max": 256, "orders.max": 64})
outer, inner = ot.probe("outer", tier=ot.P0), ot.probe("inner", tier=ot.P2, sla="5ms", leaf=True)
values, depth = ot.histogram("values"), ot.gauge("queue.size")
for number in range(100):
    with outer.span(number=number, text="x" * 200, short="s", many=[number]) as span:
        span.add_event("event", {"number": number})
        inner.stop(inner.start())
        values.record(number)
        depth.set(number)
    order = ot.order(f"order-{number}", symbol="BTCUSDT", side="buy", qty=1.0, price=2.0)
    order.ack() if number % 2 else order.reject("no margin")
    ot.market_data("BTCUSDT", 1_700_000_000_000 + number, price=100.0 + number, volume=1.0)
ot.risk_breach("exposure")
spans = [outer.span(left="open"), inner.span()]
for span in spans:
    span.begin()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the segment of a program that was killed."""
    directory = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-c", VICTIM],
        env=child_environment(directory, OTEL_TRADING_BUDGET_ENABLED="false"),
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    (path,) = directory.glob("*.seg")
    return path


@pytest.fixture
def damage(killed: Path, tmp_path: Path) -> Iterator[Damage]:
    """Give a copy of it to be damaged."""
    made = Damage(killed, tmp_path / "damaged.seg", seed=20261121)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """End the process with every thread's stack where one file takes too long."""
    yield
    faulthandler.cancel_dump_traceback_later()


def peak() -> int:
    """Give the most memory that this process has ever used, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def look_at_everything(reader: Reader) -> None:
    """Ask a reader for all that it can tell."""
    reader.info()
    probes = reader.probes()
    reader.accounts()
    for state in reader.read(10_000):
        assert state[0] < max(1, len(probes)) + at.MAX_PROBES
        assert 0 <= state[1] < at.TIERS
    reader.open_spans()
    reader.orders()
    reader.order("order-7")
    reader.missed()
    reader.life()
    reader.vitals()
    reader.pulses()
    reader.instruments()
    reader.markets()
    reader.settled()


def read(fd: int) -> bool:
    """Read a file that may be anything; whether it was taken for a segment."""
    try:
        reader = core.Reader(fd)
    except ValueError as error:
        if not str(error).startswith(("foreign: ", "version: ", "truncated: ", "damaged: ")):
            raise
        return False
    try:
        look_at_everything(reader)
    finally:
        reader.close()
    return True


def test_mutated_files(damage: Damage, rounds: Callable[[int, int], int]) -> None:
    """However a file is damaged, reading it ends, in bounded memory, with results or with the reason why not."""
    assert read(damage.fd)
    before, good = peak(), 0
    for number in range(rounds(1_500, 900_000)):
        if number % 100 == 0:
            faulthandler.dump_traceback_later(_LONGEST, exit=True)
        damage.some()
        good += read(damage.fd)
        damage.restore()
    assert good > 100
    assert peak() - before < _MOST_GROWTH


def test_files_that_are_cut_off(killed: Path, tmp_path: Path, rounds: Callable[[int, int], int]) -> None:
    """A file that ends anywhere is read as far as it goes, or told to be cut off."""
    for number in range(rounds(100, 50_000)):
        faulthandler.dump_traceback_later(_LONGEST, exit=True)
        cut = Damage(killed, tmp_path / "cut.seg", number)
        cut.truncate()
        read(cut.fd)
        cut.close()


def test_mutated_files_are_drained(killed: Path, tmp_path: Path, rounds: Callable[[int, int], int]) -> None:
    """However a file is damaged, adopting and draining it ends, and harms nothing but the file.

    In processes of their own, as the agent does it.
    """
    around = child_environment(tmp_path, OTEL_TRADING_BUDGET_ENABLED="false")
    around["PYTHONPATH"] = os.pathsep.join([around["PYTHONPATH"], str(Path(__file__).parent)])
    for seed in range(rounds(2, 200)):
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("draining.py"), killed, tmp_path / "drained.seg", str(seed)],
            env=around,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "drained\n"), f"seed {seed}: {done.stderr[-4000:]}"


def test_a_file_that_is_damaged_while_it_is_read(damage: Damage, rounds: Callable[[int, int], int]) -> None:
    """A segment that another thread damages and restores all the time is read to an end each time."""
    done = threading.Event()

    def keep_on() -> None:
        while not done.is_set():
            damage.some()
            damage.restore()

    before = peak()
    thread = threading.Thread(target=keep_on)
    thread.start()
    try:
        for number in range(rounds(300, 60_000)):
            if number % 50 == 0:
                faulthandler.dump_traceback_later(_LONGEST, exit=True)
            read(damage.fd)
    finally:
        done.set()
        thread.join(20)
    assert peak() - before < _MOST_GROWTH
