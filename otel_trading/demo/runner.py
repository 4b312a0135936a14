"""Runs the demo: starts the three processes, watches them, brings them to an orderly end, and shows what was seen."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.text import Text

from otel_trading._backend import backend
from otel_trading.demo import children, recording, segments
from otel_trading.demo.errors import DemoError
from otel_trading.demo.options import (
    DEFAULT_SECONDS,
    RECORDED_UPDATES_A_CANDLE,
    UPDATES_A_CANDLE,
    UPDATES_AN_ORDER,
)
from otel_trading.demo.page import Page
from otel_trading.demo.result import Result
from otel_trading.demo.screen import FRAME, Screen

if TYPE_CHECKING:
    from types import FrameType

    from otel_trading.demo.options import Options

EXIT_OK, EXIT_CHECK_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 130, 143

_LEAST_ORDER_RATE = 100.0
_REPORT_LIMIT = 15.0
_SETTLING = 0.5  # seconds for the others to notice that a process died
_LAST_UPDATES = 0.3  # seconds after the end of a recording, for what is still on its way

# Measured in a fresh interpreter, since by the time a child's own code runs the package is there already.
_IMPORT = """
def resident():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return 1024 * int(fields["VmRSS"].split()[0])
before = resident()
import otel_trading
print(resident() - before)
"""


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class Runner:
    """One run."""

    def __init__(self, options: Options, console: Console) -> None:
        """Check what can be checked before anything starts; raises DemoError."""
        if importlib.util.find_spec("websockets") is None:
            message = "the demo needs the package websockets: pip install 'otel-trading[demo]'"
            raise DemoError(message)
        self.options = options
        self.console = console
        self.seconds, source = _length_and_source(options)
        self.result = Result(options, backend, source)
        self.processes: dict[str, children.Process] = {}
        self.attached: list[segments.Attached] = []
        self.traces: TextIO | None = None
        self.document: TextIO | None = sys.stdout if options.json == "-" else None
        self.whole = 0

    # ---- start ----

    def start(self, directory: Path) -> None:
        """Start the three, each with the addresses of those before it, and attach to their segments."""
        options = self.options
        feed = ["--rate", str(options.rate), "--seed", str(options.seed)]
        if options.replay:
            feed = ["--replay", options.replay, "--speed", str(options.speed)]
        exchange = self._start("exchange", feed, directory)
        exchange_url = f"ws://127.0.0.1:{exchange['port']}"
        symbols = ",".join(exchange["symbols"])
        limit = max(_LEAST_ORDER_RATE, 2 * options.rate / UPDATES_AN_ORDER, 50 * options.speed)
        gateway = self._start(
            "gateway", ["--exchange", exchange_url, "--symbols", symbols, "--rate", str(limit)], directory
        )
        gateway_url = f"ws://127.0.0.1:{gateway['port']}"
        where = ["--exchange", exchange_url, "--gateway", gateway_url, "--symbols", symbols]
        candle = RECORDED_UPDATES_A_CANDLE if options.replay else UPDATES_A_CANDLE
        self._start("bot", [*where, "--candle", str(candle)], directory)
        self.result.backend = self.processes["bot"].ready["backend"]
        for service, process in self.processes.items():
            try:
                self.attached.append(segments.attach(service, process.pid, directory))
            except DemoError as error:
                raise DemoError(f"{error}{process.tail()}") from None

    def _start(self, service: str, arguments: list[str], directory: Path) -> Mapping[str, Any]:
        process = self.processes[service] = children.Process(service, arguments, directory)
        return process.wait_ready()

    # ---- while it runs ----

    def watch(self) -> None:
        """Gather and draw until the time is over, the recording is, or a process is gone."""
        screen = Screen(self.console, self.seconds, self.result.joiner)
        bot, exchange = self.processes["bot"], self.processes["exchange"]
        started = time.monotonic()
        end = started + self.seconds
        try:
            with screen.shown(), _ctrl_c() as interrupted:
                while (left := end - time.monotonic()) > 0 and not interrupted:
                    time.sleep(min(FRAME, left))
                    for process in self.processes.values():
                        process.check()
                    self.gather()
                    screen.update(bot.ask("status"))
                    if exchange.ask("status").get("exhausted"):
                        end = min(end, time.monotonic() + _LAST_UPDATES)
                self.result.interrupted = bool(interrupted)
        finally:
            self.result.lasted = time.monotonic() - started

    def gather(self) -> None:
        """Read what the segments have, and join it."""
        for attached in self.attached:
            spans = attached.read()
            for trace in self.result.joiner.add(attached.service, attached.names(), spans):
                self.whole += 1
                if self.traces is not None:
                    self.traces.write(json.dumps(trace.document()) + "\n")

    # ---- the end ----

    def finish(self) -> None:
        """Let the work under way end, take the reports, and read the segments for the last time."""
        budgets = {attached.service: attached.budget() for attached in self.attached}  # what was used under load
        for service in ("exchange", "bot", "gateway"):  # the market closes first; orders are still answered
            self.processes[service].ask("quiet")
        self.gather()
        for attached in self.attached:  # now: to measure the cost, each process then records more than a ring holds
            self.result.unread[attached.service] = attached.missed()
            used = {"usage": budgets[attached.service]["usage"]} if budgets[attached.service] else {}
            self.result.budgets[attached.service] = {**attached.budget(), **used}
        for process in self.processes.values():
            process.tell("report")
        for service, process in self.processes.items():
            report = process.answer("report", _REPORT_LIMIT)
            self.result.reports[service] = {key: value for key, value in report.items() if key != "event"}
            self.result.joiner.ignored.add(int(report["calibration_trace_id"], 16))
        self.gather()
        if self.traces is not None:
            for trace in self.result.joiner.unfinished:
                self.traces.write(json.dumps(trace.document()) + "\n")

    def cause(self, error: DemoError) -> DemoError:
        """Give the first cause of ``error``: when one process dies, those that were connected to it end as well."""
        deadline = time.monotonic() + _SETTLING
        processes = list(self.processes.values())
        while time.monotonic() < deadline and any(process.ended is None for process in processes):
            time.sleep(0.01)
        # Killed by a signal goes before all; otherwise the order of starting, as each depends on those before it.
        ended = [process for process in processes if process.ended is not None]
        ended.sort(key=lambda process: (process.ended or 0) >= 0)
        return ended[0].died() if ended else error

    def run(self) -> int:
        """Do all of it; gives the exit code."""
        with contextlib.ExitStack() as stack:
            directory = segments.directory()
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            self.processes = stack.enter_context(children.family())
            stack.callback(self._detach)
            if self.options.traces:
                self.traces = stack.enter_context(_writable(self.options.traces))
            if self.options.json not in (None, "-"):
                self.document = stack.enter_context(_writable(self.options.json))
            self._say_start()
            try:
                self.start(directory)
                importing = stack.enter_context(_measured_import())
                self.watch()
                self.finish()
            except DemoError as error:
                raise self.cause(error) from None
            self.result.import_bytes = importing()
            if self.document is not None:
                self.document.write(json.dumps(self.result.document(), indent=1, allow_nan=False) + "\n")
        self._show()
        if self.result.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_OK if self.result.adds_up else EXIT_CHECK_FAILED

    def _detach(self) -> None:
        for attached in self.attached:
            attached.close()

    # ---- what is said ----

    def _say_start(self) -> None:
        result = self.result
        head = Text.assemble(("otel-trading demo", "bold"), (f"  {result.source}; {result.backend} backend", "dim"))
        self.console.print(head, soft_wrap=True)
        what = "bot, gateway, exchange: three processes, and one trace for each order"
        self.console.print(Text(what, style="dim"), soft_wrap=True)

    def _show(self) -> None:
        if self.result.interrupted:
            self.console.print(Text("\ninterrupted: this is what there was until then", style="bold yellow"))
        self.console.print(Page(self.result))


def _length_and_source(options: Options) -> tuple[float, str]:
    if options.replay is None:
        seconds = DEFAULT_SECONDS if options.seconds is None else options.seconds
        return seconds, f"{options.rate:g} updates/s for {seconds:g} s, seed {options.seed}"
    scanned = recording.scan(options.replay)
    whole = scanned.seconds / options.speed + 2.0  # the runner ends sooner, when the exchange has come to the end
    seconds = whole if options.seconds is None else min(options.seconds, whole)
    times = "" if options.speed == 1 else f" × {options.speed:g}"
    source = f"{scanned.venue}: {scanned.ticks:,} recorded updates of {scanned.seconds:.0f} s{times}"
    return seconds, source


@contextlib.contextmanager
def _writable(path: str) -> Iterator[TextIO]:
    try:
        file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115  only its opening may be a DemoError
    except OSError as error:
        message = f"can not write {path}: {error.strerror or error}"
        raise DemoError(message) from None
    with file:
        yield file


@contextlib.contextmanager
def _measured_import() -> Iterator[Any]:
    """Measure, beside the run, what ``import otel_trading`` takes of memory; 0 where the system does not tell."""
    process = subprocess.Popen(
        [sys.executable, "-c", _IMPORT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )

    def wait() -> int:
        try:
            text, _ = process.communicate(timeout=_REPORT_LIMIT)
            return max(0, int(text))
        except (ValueError, subprocess.TimeoutExpired):
            return 0

    with process:
        try:
            yield wait
        finally:
            if process.poll() is None:
                process.kill()


@contextlib.contextmanager
def _ctrl_c() -> Iterator[list[bool]]:
    """Let the first Ctrl-C only fill the list, so that nothing is cut in two; the second one raises."""
    asked: list[bool] = []

    def note(_number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the children and the directory go on every way out."""

    def raise_it(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(options: Options) -> int:
    """Run the demo; gives the exit code.

    Raises DemoError where it could not run, and KeyboardInterrupt at a Ctrl-C that it can make nothing of.
    """
    only_json = options.json == "-"
    console = Console(
        no_color=True if options.plain else None,
        force_terminal=False if options.plain else None,
        quiet=only_json,
        highlight=False,
    )
    with _sigterm():
        try:
            return Runner(options, console).run()
        except Terminated:
            return EXIT_TERMINATED
