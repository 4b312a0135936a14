"""Check everything that recording and exporting need.

The configuration, the backend and its compiler, the clock, the directory and its space, a span through the recorder,
the distro that OpenTelemetry's loader would choose, each instrumentor, a span to each configured exporter, the
Collector's clock.  Takes some seconds; one real span named "otel-trading doctor" is sent.

Exit codes: 0 all is well, or there are only warnings; 1 a check failed; 2 wrong options.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_trading.doctor.check import Check

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 < number <= 600.0:  # noqa: PLR2004  ten minutes
        message = f"{text!r} is not between 0 and 600 seconds"
        raise argparse.ArgumentTypeError(message)
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--timeout", type=_seconds, default=5.0, metavar="S", help="seconds for each try at the network (default: 5)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check; gives the exit code."""
    from otel_trading.doctor.examination import examine

    found: list[Check] = []
    for check in examine(arguments.timeout):
        found.append(check)
        if not arguments.json:
            sys.stdout.write(f"{_MARKS[check.state]}  {check.name}: {check.message}\n")
            if check.remedy:
                sys.stdout.write(
                    f"      \N{RIGHTWARDS ARROW} {check.remedy}\n".encode(sys.stdout.encoding, "replace").decode(
                        sys.stdout.encoding
                    )
                )
            sys.stdout.flush()
    failed = sum(check.state == "fail" for check in found)
    warned = sum(check.state == "warn" for check in found)
    if arguments.json:
        document = {"ok": not failed, "failed": failed, "warnings": warned, "checks": [one._asdict() for one in found]}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        verdict = f"{failed} failed, {warned} warnings, {len(found) - failed - warned} fine"
        sys.stdout.write(f"\n{verdict}\nNext: {_next(found)}\n")
    return 1 if failed else 0


def _next(found: list[Check]) -> str:
    failed = [check.name for check in found if check.state == "fail"]
    if "configuration" in failed:
        return "otel-trading config check"
    return "otel-trading doctor, when that is corrected" if failed else "otel-trading run -- python bot.py"
