"""Measure what recording costs on this machine.

Without options: every form of recording on both backends, in floors (one floor is two bare
time.perf_counter_ns() calls, what timing by hand costs), OpenTelemetry's API on both and on the stock SDK, what
recording allocates, how fast the drain is, and what memory and start-up time it adds. About four minutes.

With --paced: the tail. A program gets 10,000 market-data updates a second and sends 1,000 orders; its latency is
counted from the time at which each update was due; plain, with our backends, and with the OpenTelemetry SDK.
About seven minutes.

With --export: CPU time a span from the ring to a live local receiver, over http and grpc, with both backends and with
the OpenTelemetry SDK. About two minutes. Leave the machine alone meanwhile: neighbours are in the tails too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_trading.bench.children import BenchmarkError
from otel_trading.cli.results import require_writable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from otel_trading.bench.suite import Check


_WIDTH = 120
"""Columns where the output goes to a file or a pipe."""


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        message = f"{text} is not a number of rounds"
        raise argparse.ArgumentTypeError(message)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.0 < number <= 3_600.0:  # noqa: PLR2004  an hour
        message = f"{text} is not between 0 and 3600 seconds"
        raise argparse.ArgumentTypeError(message)
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--paced", action="store_true", help="measure latency under a paced load instead")
    parser.add_argument("--export", action="store_true", help="measure what getting spans to a receiver costs instead")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds (default: 25; paced and export: 7)")
    parser.add_argument("--seconds", type=_seconds, metavar="S", help="of each run (default: paced 10, export 2)")
    parser.add_argument("--quick", action="store_true", help="a smoke test: the figures mean little")
    parser.add_argument("--backend", choices=("native", "pure"), help="this backend only (default: both)")
    parser.add_argument("--no-sdk", action="store_true", help="paced and export: leave the OpenTelemetry SDK out")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured ('-': standard output)")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, compare with the targets; gives the exit code."""
    from rich.console import Console

    if arguments.json not in (None, "-"):
        require_writable(arguments.json)
    console = Console(stderr=arguments.json == "-")
    if not console.is_terminal:
        console = Console(stderr=console.stderr, width=_WIDTH)
    with Console(stderr=True).status("measuring …") as status:
        measure = _paced if arguments.paced else _export if arguments.export else _suite
        results, tables, checks = measure(arguments, status.update)
    results["checks"] = [check._asdict() for check in checks]
    for table in tables:
        console.print(table)
    if arguments.json == "-":
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
    elif arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        console.print(f"Everything is in {arguments.json}", highlight=False)
    following = "bench" if arguments.export else "bench --export" if arguments.paced else "bench --paced"
    console.print(f"Next: otel-trading {following}", highlight=False)
    return 1 if arguments.check and not all(check.met for check in checks) else 0


_Outcome = tuple[dict[str, Any], "Iterable[RenderableType]", "list[Check]"]


def _suite(arguments: argparse.Namespace, say: Any) -> _Outcome:
    from otel_trading.bench import report, suite

    effort = suite.QUICK if arguments.quick else suite.FULL
    if arguments.rounds:
        effort = effort._replace(rounds=arguments.rounds)
    backends = (arguments.backend,) if arguments.backend else suite.BACKENDS

    def progress(backend: str, done: int) -> None:
        say(f"{backend} backend, round {done} of {effort.rounds}")

    results = suite.run(effort, backends, progress)
    checks = suite.checks(results)
    return results, [*report.suite_tables(results), report.missed_table(checks)], checks


def _paced(arguments: argparse.Namespace, say: Any) -> _Outcome:
    from otel_trading.bench import children, machine, paced, report

    rounds, seconds = _length(arguments, 10.0, 0.3)
    wanted = [name for name in paced.VARIANTS if name == "bare" or arguments.backend in (None, name.partition("-")[0])]
    if not arguments.no_sdk and "sdk" not in wanted:
        wanted.append("sdk")
    notes: list[RenderableType] = []
    if any(name.startswith("native") for name in wanted) and not children.has_native():
        wanted = [name for name in wanted if not name.startswith("native")]
        notes.append("The native backend was not measured: its C extension is not built.")
    if not children.has_otlp():
        wanted = [name for name in wanted if name != "sdk" and not name.endswith("-otlp")]
        notes.append("Nothing was sent by OTLP: install otel-trading[otlp] for these rows.")
    elif arguments.no_sdk:
        wanted = [name for name in wanted if name != "sdk"]

    def progress(number: int, variant: str) -> None:
        say(f"round {number + 1} of {rounds}: {paced.VARIANTS[variant]}, {seconds:g} s")

    measured = paced.run(seconds=seconds, rounds=rounds, seed=2, variants=wanted, progress=progress)
    results = {"machine": machine.describe(), **measured, "summary": paced.summary(measured)}
    checks = report.paced_check(results)
    return results, [*report.paced_tables(results), *notes, report.missed_table(checks)], checks


def _length(arguments: argparse.Namespace, seconds: float, quick: float) -> tuple[int, float]:
    """Rounds, and the seconds of each."""
    rounds = arguments.rounds or (2 if arguments.quick else 7)
    wanted = arguments.seconds or seconds
    return rounds, min(wanted, quick) if arguments.quick else wanted


def _export(arguments: argparse.Namespace, say: Any) -> _Outcome:
    from otel_trading.bench import children, export, machine, report

    if not children.has_otlp():
        message = "there is nothing to export with: pip install otel-trading[otlp]"
        raise BenchmarkError(message)
    rounds, seconds = _length(arguments, 2.0, 0.05)
    wanted = [name for name, one in export.VARIANTS.items() if arguments.backend in (None, one.backend)]
    if arguments.backend is not None and not arguments.no_sdk:
        wanted += [name for name, one in export.VARIANTS.items() if one.backend is None]
    if arguments.no_sdk:
        wanted = [name for name in wanted if export.VARIANTS[name].backend is not None]
    notes: list[RenderableType] = []
    if any(name.startswith("native") for name in wanted) and not children.has_native():
        wanted = [name for name in wanted if not name.startswith("native")]
        notes.append("The native backend was not measured: its C extension is not built.")

    def progress(number: int, name: str) -> None:
        say(f"round {number + 1} of {rounds}: {export.VARIANTS[name].label}, {seconds:g} s")

    measured = export.run(seconds=seconds, rounds=rounds, seed=3, variants=wanted, progress=progress)
    results = {"machine": machine.describe(), **measured, "summary": export.summary(measured)}
    checks = export.checks(results)
    return results, [*report.export_tables(results), *notes, report.missed_table(checks)], checks
