"""Measure what monitoring does to a trading program, and judge it.

A program gets 10,000 market-data updates a second of four symbols and sends 1,000 orders, bare and instrumented with
everything switched on, exporting to a live local receiver. Blocks of both are interleaved, each in a fresh process;
CPU, memory, added latency (p50 … p99.99) and throughput are compared, with 95 % intervals, and held against the limits:
2.5 % of a core, 30 MB, 200 µs, 5 %. About as long as --seconds says, and a quarter more. Leave the machine alone
meanwhile.

With --host agent an agent of its own drains the instrumented program: CPU and memory of all its processes (the agent,
the drain host, the watchdog) are in the sum.

With --stress: five kinds of pressure, each really applied for some seconds, to an instrumented program whose engine
decides: CPU at 0.9, memory at 0.9, 5,000 orders/s, volatile prices, a bad connection to the receiver. How long until
the mode changed, which one, and back; and a score. --trials: how often it is measured how fast a new mode follows.

Exit code: 0 all limits are kept (--stress: every expected mode was reached), 1 not so, 2 it could not be measured.
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

    from rich.console import Console, RenderableType

_WIDTH = 130
"""Columns where the output goes to a file or a pipe."""
_LONGEST = 86_400.0
SCHEMA = 1
"""Of the JSON file."""


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.0 < number <= _LONGEST:
        message = f"{text} is not between 0 and {_LONGEST:g} seconds"
        raise argparse.ArgumentTypeError(message)
    return number


def _trials(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 10_000:  # noqa: PLR2004
        message = f"{text} is not a number of trials"
        raise argparse.ArgumentTypeError(message)
    return number


def _megabytes(text: str) -> float:
    number = float(text)
    if not number > 0.0:
        message = f"{text} is no amount of memory, in MB"
        raise argparse.ArgumentTypeError(message)
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--seconds", type=_seconds, default=300.0, metavar="S", help="of measuring (default: 300)")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured ('-': standard output)")
    parser.add_argument("--mode", type=str.upper, choices=("NORMAL", "STRESSED", "EMERGENCY"), default="NORMAL",
                        help="have the instrumented program in this mode (default: NORMAL)")  # fmt: skip
    parser.add_argument("--host", choices=("embedded", "agent"), default="embedded",
                        help="who drains the instrumented program; an agent's processes count in the sum "
                        "(default: embedded)")  # fmt: skip
    parser.add_argument("--against", choices=("otel-sdk",), help="run the stock OpenTelemetry SDK as well")
    parser.add_argument("--stress", action="store_true", help="put it under pressure instead")
    parser.add_argument("--only", metavar="NAME", help="with --stress: this kind of pressure only")
    parser.add_argument(
        "--trials", type=_trials, metavar="N", help="with --stress: measure N changes of mode (default: 10)"
    )
    parser.add_argument("--memory-limit", type=_megabytes, metavar="MB",
                        help="with --stress: the most that may be allocated")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds: the figures mean little")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, judge; gives the exit code."""
    from rich.console import Console

    from otel_trading.bench.children import has_otlp

    if not has_otlp():
        message = "there is nothing to export with: pip install otel-trading[otlp]"
        raise BenchmarkError(message)
    if arguments.json not in (None, "-"):
        require_writable(arguments.json)
    console = Console(stderr=arguments.json == "-")
    if not console.is_terminal:
        console = Console(stderr=console.stderr, width=_WIDTH)
    results, shown, passed = (_stress if arguments.stress else _impact)(arguments)
    results = {"schema": SCHEMA, "kind": "stress" if arguments.stress else "impact", "passed": passed, **results}
    for part in shown:
        console.print(part)
    _write(results, arguments.json, console)
    following = "impact --against otel-sdk" if arguments.stress else "impact --stress"
    console.print(f"Next: otel-trading {following if passed else 'doctor'}", highlight=False)
    return 0 if passed else 1


_Outcome = tuple[dict[str, Any], "Iterable[RenderableType]", bool]


def _impact(arguments: argparse.Namespace) -> _Outcome:
    from otel_trading.impact import blocks, report, verdicts
    from otel_trading.impact.progress import Progress

    plan = blocks.plan(
        arguments.seconds,
        sdk=arguments.against is not None,
        mode=arguments.mode,
        quick=arguments.quick,
        host=arguments.host,
    )
    with Progress(plan.measured_s) as progress:
        measured = blocks.run(plan, progress.step)
    boiled = verdicts.summary(measured)
    found = verdicts.verdicts(measured, boiled)
    results = {**measured, "summary": boiled, "verdicts": [verdict._asdict() for verdict in found]}
    return results, [*report.impact_tables(measured, boiled), report.verdict_table(found)], verdicts.passed(found)


def _stress(arguments: argparse.Namespace) -> _Outcome:
    from otel_trading.impact import stress, stress_report
    from otel_trading.impact.progress import Progress

    plan = stress.plan(
        quick=arguments.quick, only=arguments.only, trials=arguments.trials, memory_mb=arguments.memory_limit
    )
    with Progress(plan.expected_s) as progress:
        measured = stress.run(plan, progress.step)
    return measured, stress_report.tables(measured), stress.passed(measured)


def _write(results: dict[str, Any], path: str | None, console: Console) -> None:
    text = json.dumps(results, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
    elif path:
        Path(path).write_text(text, encoding="utf-8")
        console.print(f"Everything is in {path}", highlight=False)
