"""What the demo's three processes have in common: how the runner talks to them.

The runner writes one command a line to a process's standard input, and reads one JSON object a line from its
standard output:

========== ===========================================================================
``status`` live figures, at once
``quiet``  make no new work; answers when what was under way is done, or 4 s are over
``report`` statistics, accounts and measured cost; the process goes on living
``exit``   end
========== ===========================================================================

The first line comes unasked, when the process can be used.  When its input ends, a process ends: none outlives
its runner.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from websockets.exceptions import WebSocketException

import otel_trading as ot
from otel_trading.demo import footprint
from otel_trading.demo.errors import DemoError
from otel_trading.demo.options import CONFIG
from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from otel_trading.demo.cost import Recipe

QUIET_LIMIT = 4.0
"""Seconds that work under way gets to end."""


class Child:
    """One process of the demo; subclasses do the work."""

    service = ""
    recipes: tuple[Recipe, ...] = ()

    def __init__(self, instrument: Mapping[str, Any] | None = None) -> None:
        """Configure recording, and note what that took of memory.

        ``instrument`` has the options of the instrumentor of ``websockets``; None leaves it out.
        """
        self.before = footprint.private_bytes()
        ot.configure(service=self.service, config=configuration(os.environ, ot.backend))
        if instrument is not None:
            from otel_trading.instrument.websockets import WebsocketsInstrumentor

            WebsocketsInstrumentor().instrument(**instrument)
        self.configured = footprint.private_bytes()
        self.started_ns = time.monotonic_ns()
        self.quiet_ns = 0
        self.cpu_started = time.process_time_ns()
        self.cpu_quiet = 0
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ---- what a subclass does ----

    async def start(self) -> Mapping[str, object]:
        """Begin; give what the runner has to know (a port, for one)."""
        raise NotImplementedError

    def status(self) -> Mapping[str, object]:
        """Give live figures; must be cheap."""
        return {}

    def idle(self) -> bool:
        """Tell whether no work is under way."""
        return True

    async def quiet(self) -> None:
        """Make no new work."""

    def result(self) -> Mapping[str, object]:
        """Give the figures for the report."""
        return {}

    async def stop(self) -> None:
        """Close what is open."""

    # ---- the conversation ----

    async def run(self) -> None:
        """Live until ``exit`` or the end of standard input."""
        commands = await _standard_input()
        ready = await self.start()
        say({"event": "ready", "pid": os.getpid(), "backend": ot.backend, **ready})
        answers: Mapping[str, Callable[[], Awaitable[Mapping[str, object]]]] = {
            "status": self._status,
            "quiet": self._quiet,
            "report": self._report,
        }
        while (line := await self._next(commands)) not in ("", "exit"):
            answer = answers.get(line)
            say({"event": line, **(await answer() if answer else {"error": f"unknown command {line!r}"})})
        await self.stop()

    async def _next(self, commands: asyncio.StreamReader) -> str:
        """Wait for the next command, "" at the end of input; raises what a spawned task failed with."""
        reading = asyncio.ensure_future(commands.readline())
        await asyncio.wait((reading, self._failed), return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            reading.cancel()
            self._failed.result()
        return (await reading).decode().strip()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` beside everything else; where it fails, the process does."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _status(self) -> Mapping[str, object]:
        return self.status()

    async def _quiet(self) -> Mapping[str, object]:
        await self.quiet()
        deadline = time.monotonic() + QUIET_LIMIT
        while not self.idle() and time.monotonic() < deadline:  # noqa: ASYNC110  an event would tax every order
            await asyncio.sleep(0.005)
        self.quiet_ns = time.monotonic_ns()
        self.cpu_quiet = time.process_time_ns()
        return {"idle": self.idle(), **self.status()}

    async def _report(self) -> Mapping[str, object]:
        from otel_trading.demo import cost  # not before the work is done

        lasted_ns = (self.quiet_ns or time.monotonic_ns()) - self.started_ns
        cpu_ns = (self.cpu_quiet if self.quiet_ns else time.process_time_ns()) - self.cpu_started
        return {
            "service": self.service,
            "lasted_ns": lasted_ns,
            "cpu_ns": cpu_ns,
            "memory": {"configured": self.configured - self.before},
            **self.result(),
            **cost.report(self.recipes),
        }


def configuration(environment: Mapping[str, str], backend: str) -> dict[str, object]:
    """Give the configuration of a demo's process.

    Traces are to be whole.  So unless OTEL_TRADING_MODE says something, the mode is forced to NORMAL, as three
    processes and a picture on a small machine are load enough for one that leaves P1 to P3 out; and what the pure
    backend costs is measured, but nothing is given up for it.
    """
    if environment.get("OTEL_TRADING_MODE"):
        return dict(CONFIG)
    unbounded = {"budget.normal.cpu_percent": "none", "budget.normal.latency_us": "none"} if backend == "pure" else {}
    return {**CONFIG, "mode": "normal", **unbounded}


@contextlib.asynccontextmanager
async def connection_to(service: str) -> AsyncIterator[None]:
    """Turn the loss of a connection within the block into a DemoError that names the other side."""
    try:
        yield
    except (OSError, WebSocketException) as error:
        message = f"lost the connection to the {service}: {error}"
        raise DemoError(message) from None


def say(message: Mapping[str, object]) -> None:
    """Write one JSON line to the runner."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def _standard_input() -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def main(make: Callable[[argparse.Namespace], Child], parser: argparse.ArgumentParser) -> None:
    """Run a child process from its command line."""
    arguments = parser.parse_args()
    # What the imports left behind is not the work's: without this, the first collections would walk all of it.
    gc.collect()
    gc.freeze()

    async def live() -> None:
        child = make(arguments)
        await child.run()

    try:
        asyncio.run(live())
    except OtelTradingError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    finally:
        ot.shutdown()
