"""Which recording processes a command is for: all in a directory, or those of a pid or a service."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from otel_trading.segment import FoundSegment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that choose."""
    parser.add_argument("--pid", type=int, action="append", metavar="N", help="this process only; may be repeated")
    parser.add_argument("--service", action="append", metavar="NAME", help="processes of this service only")
    parser.add_argument(
        "--directory", "--dir", metavar="DIR", help="look in this directory (default: that of the configuration)"
    )


def directory(arguments: argparse.Namespace) -> str:
    """Give the directory that is looked in."""
    if arguments.directory:
        return str(arguments.directory)
    from otel_trading.config.effective import Effective
    from otel_trading.segment import default_directory

    settings = Effective().settings
    return (settings and settings.directory) or default_directory()


def chosen(arguments: argparse.Namespace) -> list[FoundSegment]:
    """Give the segments of the living processes that are meant, oldest first.

    Raises OtelTradingError where there is none, SegmentDirectoryError where the directory is not safe.
    """
    from otel_trading.segment import segments

    where = directory(arguments)
    living = [found for found in segments(where) if found.alive and not found.closed]
    meant = [
        found
        for found in living
        if (not arguments.pid or found.pid in arguments.pid)
        and (not arguments.service or found.service in arguments.service)
    ]
    if meant:
        return meant
    others = ", ".join(f"{found.service} (pid {found.pid})" for found in living[:10])
    raise OtelTradingError(
        f"none of the processes that record in {where} is meant: there are {others}"
        if others
        else f"no process records in {where}: start one, as with otel-trading run -- python bot.py, or name another "
        "directory with --directory"
    )
