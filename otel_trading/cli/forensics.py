"""Look into what a process did before it died, or does now: how it ended, the likely cause, and what to do.

    otel-trading forensics
    otel-trading forensics bot --last 30s
    otel-trading forensics SEGMENT --json --perfetto trace.pftrace

The process that died last, unless a segment, a pid or a service is named; live ones are looked at without touching
them.  Segments are looked for where programs record and in the archive of crashes; a copied or damaged one may be named
by its path, a packed one (.seg.gz) and a flight record (.flight) too.

Exit codes: 0 it lives, or ended as programs should, 1 it died, 2 there is no such segment, or it can not be read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from otel_trading.forensics.candidates import Candidate
    from otel_trading.forensics.how_it_ended import End


def _seconds(word: str) -> float:
    from otel_trading.config.durations import duration_ns

    number = word.strip()
    if number.endswith("min"):
        number = f"{float(number[:-3]) * 60.0}s"
    try:
        return duration_ns(float(number) if number.replace(".", "", 1).isdigit() else number) / 1e9
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", nargs="?", metavar="SEGMENT|PID|SERVICE", help="default: the process that died last")
    parser.add_argument("--last", type=_seconds, default=30.0, metavar="TIME", help="before the end (default: 30s)")
    parser.add_argument("--perfetto", metavar="FILE", help="write a trace for https://ui.perfetto.dev")
    parser.add_argument("--list", action="store_true", help="list what there is to look into")
    parser.add_argument(
        "--directory", "--dir", metavar="DIR", help="look in this directory (default: that of the configuration)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Look and tell; gives the exit code."""
    from otel_trading.cli import targets
    from otel_trading.config.effective import Effective
    from otel_trading.forensics import archive, candidates

    settings = Effective().settings
    where = targets.directory(arguments)
    crashes = archive.directory_of(None if settings is None else settings.values)
    if arguments.list:
        return _list(candidates.candidates(where, crashes), as_json=arguments.json)
    return _look(candidates.choose(arguments.what, where, crashes), arguments)


def _list(found: list[Candidate], *, as_json: bool) -> int:
    from otel_trading.budget.overview import columns
    from otel_trading.forensics.evidence import clock
    from otel_trading.forensics.page import day

    if as_json:
        sys.stdout.write(json.dumps({"segments": [one._asdict() for one in found]}, indent=2) + "\n")
        return 0
    rows = [("service", "pid", "state", "when", "cause", "path")]
    rows += [
        (
            one.service[:24],
            str(one.pid),
            one.state,
            f"{day(one.unix_ns)} {clock(one.unix_ns)[:8]}" if one.unix_ns else "",
            one.cause or "",
            one.path,
        )
        for one in reversed(found)
    ]
    table = columns(rows) if found else ["there is nothing to look into"]
    after = "otel-trading forensics SEGMENT" if found else "otel-trading run -- python bot.py"
    sys.stdout.write("\n".join([*table, "", f"Next: {after}"]) + "\n")
    return 0


def _look(chosen: Candidate, arguments: argparse.Namespace) -> int:
    from otel_trading.forensics import candidates, page, report

    with candidates.opened(chosen) as fd:
        found, end = candidates.look_into(chosen, fd)
        document = report.document(found, end, arguments.last)
        if arguments.perfetto:
            from otel_trading.forensics import perfetto, slots

            _write(arguments.perfetto, perfetto.trace(found, slots.threads_of(fd), arguments.last))
    after = _next(chosen, arguments, end)
    if arguments.json:
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.write("\n".join([*page.lines(document), "", f"Next: {after}"]) + "\n")
    return 0 if found.alive or end.orderly else 1


def _write(path: str, data: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        message = f"cannot write {path} ({error.strerror}): name another file with --perfetto"
        raise OtelTradingError(message) from error


def _next(chosen: Candidate, arguments: argparse.Namespace, end: End) -> str:
    import shlex

    if arguments.perfetto:
        return f"open {arguments.perfetto} in https://ui.perfetto.dev"
    command: list[Any] = ["otel-trading", "forensics", arguments.what or chosen.path, "--perfetto", "trace.pftrace"]
    if end.kind == "gone" and not arguments.what:
        return "otel-trading forensics --list"
    return shlex.join(command)
