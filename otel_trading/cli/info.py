"""Show what this installation is, and what is recording now.

The version, which backend runs and why, the clock, the directory of the segments, each segment in it with its process,
and the settings that are not the defaults.
"""

from __future__ import annotations

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--dir", metavar="DIR", help="look in this directory (default: that of the configuration)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Look and print; gives the exit code."""
    from otel_trading.doctor import installation

    found = installation.document(arguments.dir)
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(installation.lines(found)) + "\n")
    return 0
