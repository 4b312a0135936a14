"""Finds the subcommand, runs it, and turns what goes wrong into one line and an exit code.

Exit codes: 0 fine, 1 a check failed, 2 could not run, 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Protocol

from otel_trading._version import __version__
from otel_trading.cli.arguments import Parser, nearest
from otel_trading.errors import OtelTradingError

SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "run": ("otel_trading.cli.run", "run a command with every Python in it instrumented"),
    "config": ("otel_trading.cli.config", "check the configuration, and show what is in force"),
    "agent": ("otel_trading.cli.agent", "drain, keep and export for other processes, and look into their deaths"),
    "forensics": ("otel_trading.cli.forensics", "what a process did when it died, and the likely cause"),
    "watchdog": ("otel_trading.cli.watchdog", "see that monitoring goes on, and start it again where it does not"),
    "info": ("otel_trading.cli.info", "which backend, clock and directory, and what is recording now"),
    "doctor": ("otel_trading.cli.doctor", "check everything that recording and exporting need"),
    "alert": ("otel_trading.cli.alert", "send an alert through the ways out that are configured"),
    "mode": ("otel_trading.cli.mode", "the mode of each recording process, and to force one"),
    "rollout": ("otel_trading.cli.rollout", "record a share of the traces, step by step, and back where that costs"),
    "demo": ("otel_trading.cli.demo", "a traced trading pipeline, live, and what tracing it cost"),
    "bench": ("otel_trading.cli.bench", "what each form of recording costs on this machine"),
    "impact": ("otel_trading.cli.impact", "what monitoring does to a trading program, judged by its limits"),
}
"""Name → (module, one line).  A module is imported when its subcommand is asked for, and not before."""

EXIT_OK = 0
EXIT_CANNOT_RUN = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


class Subcommand(Protocol):
    """What the module of a subcommand has."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; gives the exit code."""


def _overview() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, (_, line) in SUBCOMMANDS.items()]
    return "commands:\n" + "\n".join(lines)


def _parser() -> Parser:
    parser = Parser(
        prog="otel-trading",
        usage="otel-trading [--help] [--version] COMMAND …",
        description="Tracing and metrics for trading programs, at a cost that the trade does not notice.",
        epilog=_overview() + "\n\notel-trading COMMAND --help tells more.",
    )
    parser.add_argument("--version", action="version", version=f"otel-trading {__version__}")
    return parser


def _run(argv: Sequence[str]) -> int:
    parser = _parser()
    if not argv:
        parser.print_help()
        return EXIT_CANNOT_RUN
    command, *rest = argv
    if command.startswith("-"):
        parser.parse_args([command])  # ends by --help, --version, or a mistake
    if command not in SUBCOMMANDS:
        parser.error(f"there is no command {command!r}{nearest(command, SUBCOMMANDS)}")
    module: Subcommand = importlib.import_module(SUBCOMMANDS[command][0])
    own = Parser(prog=f"otel-trading {command}", description=module.__doc__)
    module.add_arguments(own)
    return module.run(own.parse_args(rest))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; ``argv`` is ``sys.argv`` without its first by default.  Gives the exit code.

    Raises SystemExit as argparse does: 0 after ``--help``, 2 for arguments that are wrong.
    """
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except OtelTradingError as error:
        _complain(f"otel-trading: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _complain("otel-trading: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough (as in "| head").  Python flushes standard output once more at its
        # end, and would complain then.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    return code


def _complain(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
