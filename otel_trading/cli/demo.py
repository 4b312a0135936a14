"""Trace a small trading pipeline, live: a bot, a gateway, a paper exchange.

Each is a process of its own, and one trace leads from a candle to the fill.

The market is a seeded generator, or a recorded session of Gate.io, Binance or
OKX (--replay).  At the end: the latencies of every stage, the slowest order
across the three processes, what monitoring cost by measurement, and the
accounts of every span.  Nothing leaves the machine unless an exporter is
configured, and nothing is left behind on it.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from pathlib import Path

_MOST_RATE = 100_000.0
_MOST_SECONDS = 86_400.0


def _between(least: float, most: float, what: str) -> type[float]:
    """A number for argparse, above ``least`` and up to ``most``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least < value <= most:
            message = f"{text!r} is no {what}: give a number above {least:g} and up to {most:g}"
            raise argparse.ArgumentTypeError(message)
        return value

    return read  # type: ignore[return-value]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    seconds = _between(0, _MOST_SECONDS, "length of time in seconds")
    parser.add_argument(
        "--seconds", type=seconds, metavar="S", help="how long to run (default: 10, or the whole of a recording)"
    )
    parser.add_argument(
        "--rate",
        type=_between(0, _MOST_RATE, "rate"),
        default=500.0,
        metavar="N",
        help="market data updates a second; about every tenth leads to an order (default: 500)",
    )
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="of the generated market (default: 7)")
    parser.add_argument("--replay", metavar="FILE", help="serve a recorded websocket session in place of the generator")
    parser.add_argument(
        "--speed",
        type=_between(0, 1e6, "speed"),
        default=1.0,
        metavar="N",
        help="times the recording's pace (default: 1)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write all figures as JSON; - for standard output, and nothing else"
    )
    parser.add_argument("--traces", metavar="FILE", help="write every order's trace as a line of JSON")
    parser.add_argument("--no-color", "--plain", dest="plain", action="store_true", help="no colours, no live picture")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; gives the exit code."""
    from otel_trading.demo import runner  # --help must not wait for it
    from otel_trading.demo.options import Options

    return runner.run(
        Options(
            seconds=arguments.seconds,
            rate=arguments.rate,
            seed=arguments.seed,
            replay=arguments.replay,
            speed=arguments.speed,
            json=arguments.json,
            traces=arguments.traces,
            plain=arguments.plain,
            command=_command(),
        )
    )


def _command() -> str:
    """How this program was called, as something that can be typed again."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{_typed(Path(sys.executable))} -m otel_trading"
    return _typed(called) if called.name == "otel-trading" else "otel-trading"


def _typed(program: Path) -> str:
    """A program's bare name where that finds it, else its path, relative where it is below this directory."""
    # Not resolved: the python of a virtual environment is a link to one that does not have this package.
    path = program.absolute()
    found = shutil.which(program.name)
    if found and Path(found).absolute() == path:
        return program.name
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
