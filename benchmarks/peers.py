"""What other tools cost for one start and end, in floors: ``python -m benchmarks.peers [--json FILE]``.

Each peer gets a virtual environment of its own, in the user's cache directory, made once. Its floor is measured in
its own process, interleaved with it (otel_trading/bench/measure.py). A peer that cannot be installed or does not run
is named in the table with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from otel_trading.bench import measure
from otel_trading.bench.intervals import median
from otel_trading.bench.machine import describe
from otel_trading.bench.measure import Timing

# Pinned, so that a figure belongs to a version.
PEERS = {
    "otel": ["opentelemetry-sdk==1.45.2"],
    "ddtrace": ["ddtrace==4.16.0"],
    "logfire": ["logfire==5.2.0"],  # 5.3 and 5.4 ask for a certifi that is newer than the newest one published
    "prometheus": ["prometheus-client==0.26.0"],
    "viztracer": ["viztracer==1.1.1"],
}
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "LOGFIRE_SEND_TO_LOGFIRE": "false",
    "LOGFIRE_IGNORE_NO_CONFIG": "1",
}
WORKER = Path(__file__).with_name("peer_worker.py")
LONGEST = 900
"""Seconds that one peer may take, its installation not counted."""


class PeerError(Exception):
    """A peer could not be installed, or failed."""


def cache() -> Path:
    """Where the environments are: ``$XDG_CACHE_HOME/otel-trading/peers``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "otel-trading" / "peers"


def environment(peer: str, packages: list[str]) -> Path:
    """Make the peer's environment where it is not there yet; gives its interpreter.

    Raises PeerError with the installer's last line where that fails.
    """
    version = "-".join(package.partition("==")[2] for package in packages)
    where = cache() / f"{peer}-{version}-py{sys.version_info[0]}.{sys.version_info[1]}"
    python = where / "bin" / "python"
    if (where / "ready").exists():
        return python
    try:
        venv.create(where, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as error:
        message = f"no environment at {where}: {error}"
        raise PeerError(message) from error
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PeerError(_last(done.stderr) or "pip failed")
    (where / "ready").touch()
    return python


def run(peer: str, packages: list[str], rounds: int, block_ns: int) -> dict[str, Any]:
    """Measure one peer.  Raises PeerError where it cannot be."""
    python = environment(peer, packages)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
    command = [str(python), str(WORKER), measure.__file__, peer, str(rounds), str(block_ns)]
    try:
        done = subprocess.run(
            command, env={**kept, **QUIET}, capture_output=True, text=True, check=False, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        message = f"did not end within {LONGEST} s"
        raise PeerError(message) from None
    if done.returncode != 0:
        raise PeerError(_last(done.stderr) or f"ended with status {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def table(results: dict[str, Any]) -> Table:
    """All peers, and why one is missing."""
    shown = Table(title="One start and end, peers", title_justify="left", box=box.SIMPLE_HEAD)
    for name, justify in (("peer", "left"), ("form", "left"), ("ns", "right"), ("floors", "right"), ("95 %", "right")):
        shown.add_column(name, justify=justify)  # type: ignore[arg-type]
    for peer, result in results.items():
        if "error" in result:
            shown.add_row(peer, f"not measured: {result['error']}", "", "", "")
            continue
        for form in result["forms"].values():
            timing = Timing(**form["timing"])
            cost, ratio = median(timing.cost_ns()), median(timing.ratios())
            shown.add_row(
                f"{peer} {result['version']}",
                form["label"],
                f"{cost.estimate:,.0f}",
                f"{ratio.estimate:,.1f}",
                f"{ratio.low:,.1f}–{ratio.high:,.1f}",
            )
    return shown


def main() -> int:
    """Measure every peer, print the table; 1 where none could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="a smoke test: the figures mean little")
    parser.add_argument("--only", choices=list(PEERS), help="this peer alone")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    rounds, block_ns = (3, 1_000_000) if arguments.quick else (arguments.rounds, 20_000_000)
    results: dict[str, Any] = {}
    with Console(stderr=True).status("measuring …") as status:
        for peer, packages in PEERS.items():
            if arguments.only in (None, peer):
                status.update(f"{peer}: installing and measuring …")
                try:
                    results[peer] = run(peer, packages, rounds, block_ns)
                except PeerError as error:
                    results[peer] = {"error": str(error)}
    console = Console()
    console.print(table(results))
    if arguments.json:
        text = json.dumps({"machine": describe(), "peers": results}, indent=2)
        Path(arguments.json).write_text(text + "\n", encoding="utf-8")
        console.print(f"Everything is in {arguments.json}", highlight=False)
    return 0 if any("error" not in result for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
