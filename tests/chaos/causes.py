"""Each cause of forensics' list provoked for real, many times: is the right one told, and never a wrong one?

    python tests/chaos/causes.py [--runs 20] [--only leak,hang] [--json FILE]

A child trades a little, gets into trouble, and dies; its segment and the kernel's words are judged as the agent does.
Exit code 1 where a cause is told rightly in less than 95 % of its runs, or another one is told (``unknown`` is none).
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_trading.forensics.causes import Verdict
    from otel_trading.forensics.evidence import Evidence
    from otel_trading.forensics.how_it_ended import End

ROOT = Path(__file__).resolve().parents[2]
_MEMORY = Path("/sys/fs/cgroup/memory")  # version 1
_UNIFIED = Path("/sys/fs/cgroup")
_LIMIT = 300 << 20
_PATIENCE = 90.0

PRELUDE = """
import os, sys, threading, time
import otel_trading as ot

ot.configure("bot", config={"drain.period": 0.1})
tick, send, timer = ot.probe("tick"), ot.probe("order.send", tier=ot.P0), ot.probe("timer")
depth = ot.gauge("queue.size")
ot.queue(depth)
number = 0

def data():
    ot.market_data("BTCUSDT", time.time() * 1e3, 100.0 + number % 7, 1.0)

def trade(feed=True):
    global number
    number += 1
    if feed:
        data()
    with tick.span(n=number):
        if number % 5 == 0:
            with send.span():
                order = ot.order(f"o{number}", symbol="BTCUSDT", side="buy", qty=1.0, price=100.0)
            order.ack()
            order.fill(100.0, 1.0)

def calm(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        trade()
        time.sleep(0.02)

def say(word):
    print(word, flush=True)

"""

LEAK = """
hoard = []
while True:
    trade()
    hoard.append(bytes([number & 255]) * (1 << 20))
    time.sleep(0.03)
"""


class Trouble(NamedTuple):
    """A way to get into trouble."""

    cause: str
    """What has to be told."""
    program: str
    """What the child runs behind the prelude."""
    number: int | None = None
    """The signal that ends it, sent by this process when it has said ``now`` and ``looks`` pulses have followed."""
    looks: int = 0
    cgroup: bool = False
    """Whether it runs in a control group with a memory limit."""


TROUBLES: dict[str, Trouble] = {
    "leak": Trouble(
        "memory_leak",
        "import resource\ncalm(1.0)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {_LIMIT},) * 2)\n" + LEAK,
    ),
    "leak_oom": Trouble("memory_leak", "calm(1.0)\n" + LEAK, cgroup=True),
    "oom": Trouble("oom_kill", f"calm(4.0)\nhoard = b'x' * {4 * _LIMIT}\ntime.sleep(30)\n", cgroup=True),
    "spin": Trouble(
        "cpu_exhaustion",
        "calm(5.0)\ntry: os.nice(-10)\nexcept OSError: pass\nsay('now')\nwith tick:\n    while True: pass\n",
        signal.SIGKILL,
        5,
    ),
    "queue": Trouble(
        "queue_overflow",
        "import collections\nwaiting = collections.deque()\ncalm(1.0)\nsaid = False\n"
        "while True:\n    trade()\n    waiting.extend([number] * 100)\n"
        "    waiting.popleft()\n    depth.set(len(waiting))\n"
        "    if len(waiting) > 12000 and not said:\n        said = True\n        say('now')\n    time.sleep(0.02)\n",
        signal.SIGKILL,
        2,
    ),
    "feed": Trouble(
        "market_data_disconnect",
        "calm(3.0)\nuntil = time.monotonic() + 7.0\n"
        "while time.monotonic() < until:\n    with timer: time.sleep(0.1)\nos._exit(3)\n",
    ),
    "hang": Trouble(
        "hang",
        "def loop():\n    until = time.monotonic() + 3.0\n    while time.monotonic() < until:\n"
        "        ot.heartbeat('main', late=1.0)\n        trade()\n        time.sleep(0.02)\n"
        "loop()\nlock = threading.Lock()\nlock.acquire()\nsay('now')\nlock.acquire()\n",
        signal.SIGKILL,
        4,
    ),
    "hang_unseen": Trouble(
        "hang",
        "calm(3.0)\nlock = threading.Lock()\nlock.acquire()\nsay('now')\n"
        "with send.span(venue='slow'):\n    lock.acquire()\n",
        signal.SIGKILL,
        8,
    ),
    "exception": Trouble("uncaught_exception", "calm(2.0)\nraise ValueError('no such symbol')\n"),
    "fault": Trouble("fault", "import ctypes\ncalm(2.0)\nctypes.string_at(8)\n"),
    "abort": Trouble("fault", "calm(2.0)\nos.abort()\n"),
    "killed": Trouble("killed", "say('now')\nwhile True: calm(1.0)\n", signal.SIGKILL, 3),
    "terminated": Trouble("terminated", "say('now')\nwhile True: calm(1.0)\n", signal.SIGTERM, 2),
    "exit": Trouble("exit", "calm(2.0)\nsys.exit(4)\n"),
}


class Told(NamedTuple):
    """What was made of one death."""

    evidence: Evidence
    end: End
    verdict: Verdict


@contextmanager
def memory_group(name: str) -> Iterator[Path | None]:
    """Make a control group with a memory limit; None where that is not allowed here."""
    v1 = (_MEMORY / "memory.limit_in_bytes").exists()
    group = (_MEMORY if v1 else _UNIFIED) / f"otel-trading-{name}-{os.getpid()}-{time.monotonic_ns()}"
    made = False
    try:
        group.mkdir()
        made = True
        (group / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(_LIMIT), encoding="ascii")
    except OSError:
        yield None
    else:
        yield group
    finally:
        if made:
            _remove(group)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 10.0
    while True:  # who was killed in it may not be gone yet
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def provoke(name: str, directory: Path, **environment: str) -> Told | None:
    """Bring a trouble about in a child whose segment is in ``directory``; None where it needs what is not allowed."""
    trouble = TROUBLES[name]
    if not trouble.cgroup:
        return _run(trouble, directory, None, environment)
    with memory_group(name) as group:
        return None if group is None else _run(trouble, directory, group, environment)


def _run(trouble: Trouble, directory: Path, group: Path | None, environment: dict[str, str]) -> Told:
    from otel_trading.forensics import how_it_ended
    from otel_trading.forensics.causes import judge
    from otel_trading.forensics.evidence import gather

    directory.mkdir(mode=0o700, exist_ok=True)
    join = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n" if group else ""
    told = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OTEL_TRADING_DIR": str(directory),
        "OTEL_TRADING_BUDGET_ENABLED": "false",
        **environment,
    }
    with subprocess.Popen(
        [sys.executable, "-c", join + PRELUDE + trouble.program],
        env=told,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=directory,
    ) as child:
        try:
            pidfd = os.pidfd_open(child.pid)
            path = _until(lambda: next(iter(directory.glob("*.seg")), None), child)
            before = how_it_ended.Before(child.pid)
            if trouble.number is not None:
                _wait_and_kill(child, path, trouble)
            ready, _, _ = select.select([pidfd], [], [], _PATIENCE)
            assert ready, "it does not die"
            end = how_it_ended.look(child.pid, pidfd=pidfd, before=before)
        finally:
            child.kill()
            os.close(pidfd)
    evidence = gather(path if path.exists() else _archived(directory), alive=False)
    end = how_it_ended.with_told(end, evidence.life.get("ending"), closed=evidence.closed)
    return Told(evidence, end, judge(evidence, end))


def _archived(directory: Path) -> Path:
    """Give the copy of a segment that its process removed at its orderly end."""
    return next(directory.glob("*.copy"))


def _until(found: Callable[[], Path | None], child: subprocess.Popen[str]) -> Path:
    from otel_trading.segment import attach

    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        path = found()
        if path is not None:
            try:
                attach(path).close()
            except Exception:  # noqa: BLE001, S110 - not published yet
                pass
            else:
                # An orderly end removes the file: the memory stays as long as it has a name.
                copy = path.with_suffix(".copy")
                if not copy.exists():
                    os.link(path, copy)
                return path
        assert child.poll() is None, f"it died before it began: {child.returncode}"
        time.sleep(0.01)
    raise AssertionError("it made no segment")


def _wait_and_kill(child: subprocess.Popen[str], path: Path, trouble: Trouble) -> None:
    from otel_trading.segment import attach

    assert child.stdout is not None
    assert trouble.number is not None
    assert child.stdout.readline() == "now\n"
    reader = attach(path)
    try:
        wanted = reader.life()["pulses"] + trouble.looks
        deadline = time.monotonic() + _PATIENCE
        while reader.life()["pulses"] < wanted:
            assert time.monotonic() < deadline, "nobody looks at it"
            time.sleep(0.02)
    finally:
        reader.close()
    child.send_signal(trouble.number)


def main() -> int:
    """Provoke them all, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default=",".join(TROUBLES))
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--json")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    results: dict[str, list[str]] = {name: [] for name in names}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [(name, number) for number in range(arguments.runs) for name in names]

        def one(run: tuple[str, int]) -> None:
            name, number = run
            told = provoke(name, Path(scratch) / f"{name}-{number}")
            results[name].append("not allowed" if told is None else told.verdict.cause)
            if told is not None and told.verdict.cause != TROUBLES[name].cause:
                sys.stderr.write(f"{name} {number} {told.end} {told.verdict}\n")
            if name == names[-1]:
                sys.stderr.write(f"{number + 1} of {arguments.runs} runs, {time.monotonic() - began:.0f} s\n")

        list(pool.map(one, runs))
    failed = False
    for name, causes in results.items():
        tried = [cause for cause in causes if cause != "not allowed"]
        right = tried.count(TROUBLES[name].cause)
        wrong = len(tried) - right - tried.count("unknown")
        bad = bool(tried) and (right < 0.95 * len(tried) or wrong > 0)
        failed = failed or bad
        state = "FAILED" if bad else "ok" if tried else "not allowed here"
        sys.stdout.write(f"{name:12} {TROUBLES[name].cause:24} {right}/{len(tried)} right, {wrong} wrong  {state}\n")
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
