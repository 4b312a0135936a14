"""Show the mode of every recording process, or force one.

    otel-trading mode
    otel-trading mode stressed --service bot
    otel-trading mode auto

Without MODE: mode, since when and why, what monitoring uses against its limits, the pressure, what is recorded of each
tier, which traces are kept, and the last decisions.  With one (normal, high_volatility, stressed, emergency), that mode
is in force at the processes' next record, until auto releases it.  P0 is recorded in every mode.

Exit codes: 0 fine, 1 some process could not be changed, 2 there is no such process or mode.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from otel_trading.cli import targets
from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from otel_trading.segment import FoundSegment

_AUTO = "auto"
_MODES = ("normal", "high_volatility", "stressed", "emergency", _AUTO)


def _word(text: str) -> str:
    return text.lower().replace("-", "_")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "mode", nargs="?", type=_word, choices=_MODES, metavar="MODE", help=f"{', '.join(_MODES[:-1])}, or {_AUTO}"
    )
    targets.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Force, then show; gives the exit code."""
    meant = targets.chosen(arguments)
    failed = _force(meant, arguments.mode) if arguments.mode else {}
    shown = [_look(found, failed.get(found.pid)) for found in meant]
    if arguments.json:
        document = {"directory": targets.directory(arguments), "processes": shown, "failed": len(failed)}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join([*_lines(shown), "", f"Next: {_next(arguments.mode, shown)}"]) + "\n")
    return 1 if failed else 0


def _force(meant: list[FoundSegment], mode: str) -> dict[int, str]:
    """Force or release; gives {pid: why not}."""
    from otel_trading.segment import Control

    failed = {}
    for found in meant:
        try:
            with Control(found.path) as control:
                control.force(None if mode == _AUTO else mode)
        except OtelTradingError as error:
            failed[found.pid] = str(error)
    return failed


def _look(found: FoundSegment, error: str | None) -> dict[str, Any]:
    from otel_trading.budget import overview

    shown: dict[str, Any] = {"pid": found.pid, "service": found.service, "path": found.path}
    try:
        shown.update(overview.document(found.path))
    except OtelTradingError as gone:  # it has ended meanwhile
        error = error or str(gone)
    return {**shown, "error": error} if error else shown


def _lines(shown: list[dict[str, Any]]) -> list[str]:
    from otel_trading.budget import overview

    rows = [("pid", "service", "mode")]
    rows += [
        (str(one["pid"]), one["service"][:24], overview.mode_text(one) if "mode" in one else one["error"])
        for one in shown
    ]
    told = overview.columns(rows)
    for one in shown:
        if "mode" in one:
            told += ["", f"{one['service']}, pid {one['pid']}", *(f"  {line}" for line in overview.lines(one))]
            if "error" in one:
                told.append(f"  could not be changed: {one['error']}")
    return told


def _next(mode: str | None, shown: list[dict[str, Any]]) -> str:
    if any(one.get("forced") for one in shown):
        return "otel-trading mode auto, to let the engine decide again" if mode else "otel-trading mode auto"
    return "otel-trading rollout status" if mode is None else "otel-trading mode"
