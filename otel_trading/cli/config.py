"""Check the configuration: our YAML file, the environment, and what they come to.

    otel-trading config check
    otel-trading config check bot.yaml

Tells every mistake at once, each with its key and line; without mistakes, what is in force and where each value came
from: a default, the file, a variable.  Later ones win: defaults, file, environment, arguments of configure().
FILE takes the place of the one that OTEL_TRADING_CONFIG names.  Headers and secrets are masked.

Exit codes: 0 fine, 1 there are mistakes, 2 the file can not be read.
"""

from __future__ import annotations

import argparse
import json
import sys

_OK, _MISTAKES, _UNREADABLE = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", choices=["check"], help="check: tell what is wrong, or what is in force")
    parser.add_argument("file", nargs="?", metavar="FILE", help="our YAML file (default: OTEL_TRADING_CONFIG)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Check; gives the exit code."""
    from otel_trading.config.effective import Effective

    found = Effective(arguments.file)
    code = _UNREADABLE if found.unreadable else _MISTAKES if found.problems else _OK
    if arguments.json:
        sys.stdout.write(json.dumps({**found.document(), "exit_code": code}, indent=2) + "\n")
        return code
    lines = [str(problem) for problem in found.problems]
    if lines:
        lines += ["", f"{len(lines)} mistake{'s' if len(lines) > 1 else ''}; nothing is recorded until this is right."]
    else:
        lines = [*found.lines(), *_others(found.document()["variables"])]
        if found.settings is not None and found.settings.sources["export.traces"] == "default":
            lines += ["", "Where nothing names an exporter, otel-trading run takes otlp, if one is installed."]
    lines += [f"note: {note}" for note in found.notes]
    if not found.problems:
        lines += ["", f"The configuration is fine ({found.file or 'no file; OTEL_TRADING_CONFIG names none'})."]
    again = f"otel-trading config check{f' {arguments.file}' if arguments.file else ''}"
    lines.append(f"Next: {again if found.problems else 'otel-trading doctor'}")
    sys.stdout.write("\n".join(lines) + "\n")
    return code


def _others(variables: dict[str, str]) -> list[str]:
    if not variables:
        return []
    return ["", "Variables that OpenTelemetry's exporters and SDK read:"] + [
        f"  {name}={value}" for name, value in variables.items()
    ]
