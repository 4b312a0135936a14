"""Whole traces over real processes: native and pure ones of one directory agree on what is kept."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conftest import child_environment
from keeping import ALL, HALF, Shared

from otel_trading._backend import backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG = 3600.0  # seconds that no test waits

# A process that records and decides as it is told, by lines of JSON.
PART = """
import json, os, sys
import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.budget.policy import Policy
from otel_trading.segment.shared import shared_file

directory = os.environ["OTEL_TRADING_DIR"]
ot.configure("part", config={"drain.period": 60, "ring.slots": 8192, "budget.enabled": False})
fd = shared_file(directory)
core.share(fd)
os.close(fd)
core.keep(100_000)
policy = Policy(lifecycle.own_segment())
infinite = float("inf")
policy.write({"hold": 3600.0, "burst": 60.0, "budget": [infinite] * 20, "limit": [infinite] * 6 + [0.0, infinite]})
policy.active = True
TICK, PART = ot.probe("part.tick"), ot.probe("part.handle")

def tick(count, error):
    carriers = []
    for _ in range(count):
        try:
            with TICK:
                carriers.append(ot.inject({}))
                if error:
                    raise RuntimeError("wrong")
        except RuntimeError:
            pass
    return carriers

def handle(carriers, error):
    for carrier in carriers:
        try:
            with ot.extract(carrier), PART:
                if error:
                    raise RuntimeError("wrong")
        except RuntimeError:
            pass

def hold(seconds):
    policy.write({"hold": seconds})

def drain(decide=False):
    core.drain(decide)
    batch = core.take(100_000)
    batch.settle()
    (account,) = [account for tier, account in ot.accounts().items() if tier == 1]
    return {"kept": [[f"{state[2]:032x}", state[10]] for state in batch.states()], "account": account}

def share():
    fd = shared_file(directory)
    core.share(fd)
    os.close(fd)

def scribble():
    print("{}", flush=True)
    while True:
        handle(tick(50, True), True)
        core.drain()

for line in sys.stdin:
    name, arguments = json.loads(line)
    print(json.dumps(globals()[name](**arguments)), flush=True)
ot.shutdown()
"""


class Part:
    """One of the processes."""

    def __init__(self, directory: Path, which: str) -> None:
        """Start it on a backend."""
        script = directory / "part.py"
        script.write_text(PART, encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-W", "ignore:otel-trading runs without:Warning", str(script)],
            env=child_environment(directory, OTEL_TRADING_BACKEND=which),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.kept: dict[str, str | None] = {}
        self.account: dict[str, int] = {}

    def __call__(self, name: str, **arguments: Any) -> Any:
        """Have it do something, and give what it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the process has ended: {self.process.wait(30)}"
        return json.loads(answer)

    def drain(self, *, decide: bool = False) -> dict[str, str | None]:
        """Have it make a pass; give all that it has kept so far: tracestates by trace id."""
        told = self("drain", decide=decide)
        self.kept.update(told["kept"])
        self.account = told["account"]
        parts = ("exported", "sampled_out", "overwritten", "refused", "pending")
        assert self.account["recorded"] == sum(self.account[part] for part in parts)
        return self.kept

    def settled(self) -> bool:
        """Tell, after a pass, whether nothing waits for its verdict any longer."""
        self.drain()
        return self.account["pending"] == 0

    def end(self) -> None:
        """End it in an orderly way."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Part]]:
    """Give a function that starts a process on a backend."""
    started: list[Part] = []

    def begin(which: str) -> Part:
        if which == "native" and importlib.util.find_spec("otel_trading._native") is None:
            pytest.skip("the extension is not built here")
        started.append(Part(tmp_path, which))
        return started[-1]

    yield begin
    for part in started:
        with part.process as process:
            process.kill()


@pytest.fixture(params=["native", "pure"])
def pair(request: pytest.FixtureRequest, start: Callable[[str], Part]) -> tuple[Part, Part]:
    """Give a process on this run's backend, which has the roots, and one on either, which has their children."""
    first, second = start(backend), start(request.param)
    first("hold", seconds=LONG)  # both are up from here on
    second("hold", seconds=LONG)
    return first, second


@pytest.fixture
def shared(pair: tuple[Part, Part], tmp_path: Path) -> Iterator[Shared]:
    """Give the file that both share."""
    del pair
    page = Shared(tmp_path / "traces.shared")
    yield page
    page.close()


def trace_of(carrier: dict[str, str]) -> str:
    """Give the trace id of a traceparent."""
    return carrier["traceparent"].split("-")[1]


def test_an_error_elsewhere_keeps_the_root(pair: tuple[Part, Part], shared: Shared, until: Callable[..., None]) -> None:
    """An error in the process of the child keeps the span in the process of the root; a plain trace goes in both."""
    ticks, parts = pair
    shared.thresholds = (ALL,) * 4
    wrong, plain = ticks("tick", count=2, error=False)
    ticks.drain()
    parts("handle", carriers=[wrong], error=True)
    parts("handle", carriers=[plain], error=False)
    parts.drain()
    for part in pair:
        part("hold", seconds=0.05)
    until(lambda: ticks.settled() and parts.settled())
    assert ticks.kept == parts.kept == {trace_of(wrong): None}
    for part in pair:
        assert (part.account["exported"], part.account["sampled_out"]) == (1, 1)


def test_an_error_in_the_root_keeps_the_child(
    pair: tuple[Part, Part], shared: Shared, until: Callable[..., None]
) -> None:
    """An error in the process of the root keeps the span in the other one, which asked before."""
    ticks, parts = pair
    shared.thresholds = (ALL,) * 4
    wrong, *_ = ticks("tick", count=1, error=True)
    plain, *_ = ticks("tick", count=1, error=False)
    parts("handle", carriers=[wrong, plain], error=False)
    parts.drain()
    ticks.drain()
    for part in pair:
        part("hold", seconds=0.05)
    until(lambda: ticks.settled() and parts.settled())
    assert ticks.kept == parts.kept == {trace_of(wrong): None}


def test_plain_traces_are_kept_or_left_whole(
    pair: tuple[Part, Part], shared: Shared, until: Callable[..., None]
) -> None:
    """Of half of the plain traces all spans go out, with the same threshold, of the others none, in both processes."""
    ticks, parts = pair
    shared.thresholds = (HALF,) * 4
    carriers = ticks("tick", count=200, error=False)
    parts("handle", carriers=carriers, error=False)
    for part in pair:
        part("hold", seconds=0.05)
    until(lambda: ticks.settled() and parts.settled())
    # Of 200 fair coins fewer than 60 or more than 140 heads come once in a hundred million runs.
    assert 60 <= len(ticks.kept) <= 140
    assert ticks.kept == parts.kept
    assert set(ticks.kept.values()) == {"ot=th:8"}


def test_the_child_follows_the_roots_verdict(
    pair: tuple[Part, Part], shared: Shared, until: Callable[..., None]
) -> None:
    """The process of the child waits for the verdict of the root's, and follows it, whatever its own would be."""
    ticks, parts = pair
    shared.thresholds = (HALF,) * 4
    carriers = ticks("tick", count=100, error=False)
    parts("handle", carriers=carriers, error=False)
    assert parts.drain() == {}  # it asks
    ticks("hold", seconds=0.0)
    until(ticks.settled)
    shared.thresholds = (ALL,) * 4
    parts("hold", seconds=0.0)
    until(parts.settled)
    assert parts.kept == ticks.kept
    assert 20 <= len(parts.kept) <= 80


def test_the_child_that_comes_late_is_answered(
    pair: tuple[Part, Part], shared: Shared, until: Callable[..., None]
) -> None:
    """A process that asks when the root was decided long ago gets the answer at the next pass of the root's process."""
    ticks, parts = pair
    shared.thresholds = (HALF,) * 4
    carriers = ticks("tick", count=100, error=False)
    ticks.drain(decide=True)
    shared.thresholds = (ALL,) * 4
    parts("handle", carriers=carriers, error=False)
    assert parts.drain() == {}
    until(lambda: ticks.drain() is not None and all(verdict for verdict, _, _ in shared.verdicts().values()))
    parts("hold", seconds=0.0)
    until(parts.settled)
    assert parts.kept == ticks.kept


def test_a_late_error_brings_back_what_follows(pair: tuple[Part, Part], shared: Shared) -> None:
    """A trace that both left out, and that fails afterwards in one of them, is kept from there on in both."""
    ticks, parts = pair
    shared.thresholds = (ALL,) * 4
    carriers = ticks("tick", count=1, error=False)
    parts("handle", carriers=carriers, error=False)
    assert parts.drain() == {}
    assert ticks.drain(decide=True) == {}
    assert parts.drain(decide=True) == {}
    parts("handle", carriers=carriers, error=True)
    assert parts.drain(decide=True) == {trace_of(carriers[0]): None}
    ticks("handle", carriers=carriers, error=False)
    assert ticks.drain(decide=True) == {trace_of(carriers[0]): None}


def test_a_killed_process_leaves_the_others_in_agreement(
    pair: tuple[Part, Part], shared: Shared, start: Callable[[str], Part], until: Callable[..., None]
) -> None:
    """A process that is killed while it writes to the shared file does no harm: the others, and a new one, agree."""
    for which in dict.fromkeys([backend, "pure"]):
        scribbler = start(which)
        scribbler("scribble")
        until(lambda: len(shared.verdicts()) > 1000)
        os.kill(scribbler.process.pid, signal.SIGKILL)
        assert scribbler.process.wait(30) == -signal.SIGKILL
    third = start("pure")
    trio = (*pair, third)
    for part in trio:
        part("share")
    shared.thresholds = (ALL,) * 4
    ticks, parts = pair
    wrong, plain = ticks("tick", count=2, error=False)
    for part in (parts, third):
        part("handle", carriers=[plain], error=False)
    parts("handle", carriers=[wrong], error=False)
    third("handle", carriers=[wrong], error=True)
    for part in reversed(trio):
        part.drain()
    for part in trio:
        part("hold", seconds=0.05)
    until(lambda: all(part.settled() for part in trio))
    assert ticks.kept == parts.kept == third.kept == {trace_of(wrong): None}
    for part in trio:
        part.end()


# ---- the file -------------------------------------------------------------------------------------

GOVERNED = """
import sys
import otel_trading as ot
from otel_trading._backend import core

ot.configure("governed", config={"drain.period": 60})
core.keep(100)
with ot.probe("governed.work"):
    pass
print(ot.accounts()[1]["recorded"], core.kept(), end="")
core.take(100).settle()
ot.shutdown()
"""


def governed(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> str:
    """Run a process under its budget, which must record and keep; give what it said."""
    done = run_python(GOVERNED, OTEL_TRADING_BUDGET_ENABLED="true", OTEL_TRADING_MODE="normal")
    assert done.stdout == "1 1"
    return done.stderr


NEIGHBOUR = """
import os, subprocess, sys
import otel_trading as ot

ot.configure("neighbour", config={"drain.period": 60})
found = os.lstat(os.path.join(os.environ["OTEL_TRADING_DIR"], "traces.shared"))
print(f"{found.st_mode:o} {found.st_ino}", flush=True)
if len(sys.argv) > 1:
    subprocess.run([sys.executable, __file__], check=True)
ot.shutdown()
"""


def test_the_file_is_the_users_own(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Nobody else may read or write the file, and the processes of a directory have the same one."""
    settings = {"OTEL_TRADING_BUDGET_ENABLED": "true", "OTEL_TRADING_MODE": "normal"}
    done = run_python(NEIGHBOUR, "two", **settings)
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.split()[0] == "100600"
    assert done.stderr == ""


def test_a_link_is_not_followed(run_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """A link in the shared file's place is told, and what it points to is left alone."""
    victim = tmp_path / "victim"
    victim.touch(mode=0o600)
    (tmp_path / "traces.shared").symlink_to(victim)
    assert "is a link" in governed(run_python)
    assert victim.read_bytes() == b""


@pytest.mark.parametrize("content", [b"somebody's notes\n", b"x" * 300_000, bytes(8) + b"text"])
def test_a_foreign_file_is_left_alone(
    run_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, content: bytes
) -> None:
    """A file of somebody else's in that place is told, and not touched; the process decides alone."""
    path = tmp_path / "traces.shared"
    path.write_bytes(content)
    path.chmod(0o600)
    assert "decides for itself" in governed(run_python)
    assert path.read_bytes() == content
