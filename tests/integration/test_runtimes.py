"""Event loops, green threads, worker processes: each span arrives once, below its parent, whatever runs the program."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import child_environment, wait_until
from otlp_receiver import Receiver, attributes, over_http

# Each span has a number `n`; the ledger has a line for each that ended, with the number of the span it should be below.
COMMON = """
import json, os, sys
import otel_trading as ot

OUTER, INNER, LEAF = ot.probe("outer"), ot.probe("inner"), ot.probe("leaf", tier=ot.P0)
LEDGER = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def ended(n, parent=None):
    os.write(LEDGER, (json.dumps([n, parent]) + "\\n").encode())

def number(*parts):
    return "-".join(map(str, (os.getpid(), *parts)))

def plain(*parts):
    n = number(*parts)
    with OUTER.span(n=n):
        with INNER.span(n=n + ".i"):
            LEAF_SPAN = LEAF.span(n=n + ".l")
            with LEAF_SPAN:
                pass
            ended(n + ".l", n + ".i")
        ended(n + ".i", n)
    ended(n)
"""

ASYNC = """
async def work(rest, *parts):
    n = number(*parts)
    with OUTER.span(n=n):
        await rest()
        with INNER.span(n=n + ".i"):
            await rest()
            with LEAF.span(n=n + ".l"):
                await rest()
            ended(n + ".l", n + ".i")
        await rest()
        ended(n + ".i", n)
    ended(n)
"""

ASYNCIO = (
    COMMON
    + ASYNC
    + """
import asyncio

async def main():
    for turn in range(5):
        await asyncio.gather(*(work(lambda: asyncio.sleep(0), turn, task) for task in range(60)))

ot.configure("asyncio")
asyncio.run(main())
"""
)

UVLOOP = ASYNCIO.replace("import asyncio\n", "import asyncio, uvloop\n").replace(
    "asyncio.run(main())", "uvloop.run(main())"
)

TRIO = (
    COMMON
    + ASYNC
    + """
import trio

async def main():
    for turn in range(5):
        async with trio.open_nursery() as nursery:
            for task in range(60):
                nursery.start_soon(work, trio.lowlevel.checkpoint, turn, task)

ot.configure("trio")
trio.run(main)
"""
)

GEVENT = (
    "from gevent import monkey\nmonkey.patch_all()\n"
    + COMMON
    + """
import gevent, time

def work(*parts):
    n = number(*parts)
    with OUTER.span(n=n):
        gevent.sleep(0)
        with INNER.span(n=n + ".i"):
            gevent.sleep(0)
            with LEAF.span(n=n + ".l"):
                gevent.sleep(0.001)
            ended(n + ".l", n + ".i")
        gevent.sleep(0)
        ended(n + ".i", n)
    ended(n)

ot.configure("gevent")
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.005)
        ticks += 1
ticking = gevent.spawn(tick)
for turn in range(5):
    gevent.joinall([gevent.spawn(work, turn, task) for task in range(60)])
before = ticks
gevent.sleep(0.5)
assert ticks - before > 20, f"the loop was held up: {ticks - before} turns"
ticking.kill()
"""
)

THREADS = (
    COMMON
    + """
import threading

ot.configure("threads", config={"ring.thread_slots": 1024})

def work(turn, task):
    plain(turn, task)
    left = OUTER.span(n=number(turn, task, "left"))  # the thread ends in the middle of this one
    left.begin()

for turn in range(30):
    threads = [threading.Thread(target=work, args=(turn, task)) for task in range(10)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for task in range(10): ended(number(turn, task, "left"))
"""
)

PROCESSES = (
    COMMON
    + """
import multiprocessing

ot.configure("processes")

def work(task):
    plain("task", task)
    return os.getpid()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(3) as pool:
        assert os.getpid() not in pool.map(work, range(60), chunksize=5)
        pool.close()
        pool.join()
    plain("parent")
"""
)

FORKS = (
    COMMON
    + """
ot.configure("forks")
for child in range(8):
    with OUTER.span(n=number("before", child)):
        pid = os.fork()
        if pid == 0:
            for turn in range(20):
                n = number("child", child, turn)
                with INNER.span(n=n):
                    pass
                ended(n, "%d-before-%d" % (os.getppid(), child))
            sys.exit(0)
    ended(number("before", child))
    assert os.waitpid(pid, 0)[1] == 0
"""
)


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    """Give a receiver and its address."""
    made = Receiver()
    with over_http(made) as url:
        yield made, url


def environment(directory: Path, url: str, **changes: str) -> dict[str, str]:
    """Give the environment of a program that exports everything there."""
    return child_environment(
        directory,
        LEDGER=str(directory / "ledger"),
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_ENDPOINT=url,
        OTEL_TRADING_BUDGET_ENABLED="false",
        **changes,
    )


def expected(directory: Path) -> dict[str, str | None]:
    """Give what the ledger says: {number: number of the parent}."""
    lines = [json.loads(line) for line in (directory / "ledger").read_text().splitlines()]
    assert len({n for n, _ in lines}) == len(lines)
    return dict(lines)


def assert_exported(receiver: Receiver, ledger: dict[str, str | None]) -> None:
    """Demand that each span of the ledger has come, once, below its parent, and no other one."""
    spans: list[Any] = receiver.spans()
    numbers = {span.span_id: attributes(span).get("n") for span in spans}
    counts = Counter(numbers[span.span_id] for span in spans)
    assert not {n for n, count in counts.items() if count != 1}
    assert set(counts) == set(ledger)
    for span in spans:
        assert numbers.get(span.parent_span_id) == ledger[numbers[span.span_id]]
    by_number = {numbers[span.span_id]: span for span in spans}
    for n, parent in ledger.items():
        if parent is not None:
            assert by_number[n].trace_id == by_number[parent].trace_id


def missing(*modules: str) -> Any:
    """Give a mark that leaves a test out where a library is not installed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        pytest.param(ASYNCIO, [], id="asyncio"),
        pytest.param(UVLOOP, [], id="uvloop", marks=missing("uvloop")),
        pytest.param(TRIO, [], id="trio", marks=missing("trio")),
        pytest.param(GEVENT, [], id="gevent", marks=missing("gevent")),
        pytest.param(THREADS, [], id="threads"),
        pytest.param(PROCESSES, ["fork"], id="fork"),
        pytest.param(PROCESSES, ["spawn"], id="spawn"),
        pytest.param(PROCESSES, ["forkserver"], id="forkserver"),
        pytest.param(FORKS, [], id="os.fork"),
    ],
)
def test_each_span_arrives_once(
    receiver: tuple[Receiver, str], tmp_path: Path, program: str, arguments: list[str]
) -> None:
    """Spans of concurrent work come once each, below their parents, and the program's end is not held up."""
    there, url = receiver
    script = tmp_path / "program.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment(tmp_path, url),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_exported(there, expected(tmp_path))


APPLICATION = (
    COMMON
    + """
import itertools

ot.configure("gunicorn")
requests = itertools.count()

def app(environ, start_response):
    plain("request", next(requests))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
)


@missing("gunicorn")
@pytest.mark.parametrize("preload", [True, False])
def test_gunicorns_workers(receiver: tuple[Receiver, str], tmp_path: Path, *, preload: bool) -> None:
    """With gunicorn's forked workers, the program loaded before or after the fork, each request's spans arrive once."""
    there, url = receiver
    (tmp_path / "application.py").write_text(APPLICATION)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "application:app", "--workers", "3", "--bind", f"127.0.0.1:{port}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, *(["--preload"] if preload else [])],
            env=environment(tmp_path, url),
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    try:

        def fetch(_: int = 0) -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20.0) as answer:
                return str(answer.read().decode())

        wait_until(lambda: _listens(port))
        with ThreadPoolExecutor(6) as pool:
            workers = set(pool.map(fetch, range(120)))
        os.kill(int(next(iter(workers))), signal.SIGTERM)  # one ends orderly, and the server starts another
        with ThreadPoolExecutor(6) as pool:
            workers |= set(pool.map(fetch, range(60)))
    finally:
        server.terminate()
        server.wait(30)
    assert server.returncode == 0, (tmp_path / "log").read_text()
    assert len(workers) > 1
    ledger = expected(tmp_path)
    assert len(ledger) == 3 * 180
    assert_exported(there, ledger)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
