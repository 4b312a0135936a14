"""The blocks of a run: each variant under each kind of load, once a round, in random order, in a fresh process."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from otel_trading import backend
from otel_trading.bench import children, machine
from otel_trading.bench.paced import ORDERS, RATE, trading_cpu
from otel_trading.bench.receiving import receiver
from otel_trading.impact import feed, usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from otel_trading.impact.agency import Agency

    Step = Callable[[str, float], object]

PROGRAM = Path(__file__).with_name("program.py")
REJECTED = 0.002
"""Share of the orders that are rejected: some of the traces have to be kept."""
KINDS = ("latency", "batches", "throughput")
SHARES = {"latency": 0.35, "batches": 0.45, "throughput": 0.2}
"""Of a round's time."""
VARIANTS = {"bare": "the plain program", "ours": "otel-trading", "sdk": "OpenTelemetry SDK, batch, OTLP over http"}
_ROUND_S = 15.0  # of each variant
_FEWEST = 3


class Plan(NamedTuple):
    """What is run.  Seconds are those of one block of a kind."""

    variants: tuple[str, ...]
    rounds: int
    seconds: dict[str, float]
    mode: str = "NORMAL"
    rate: int = RATE
    orders: int = ORDERS
    seed: int = 7
    host: str = "embedded"

    @property
    def measured_s(self) -> float:
        """Seconds of all blocks, without what it takes to start the processes."""
        return sum(self.seconds.values()) * self.rounds * len(self.variants)


def plan(
    seconds: float, *, sdk: bool = False, mode: str = "NORMAL", quick: bool = False, host: str = "embedded"
) -> Plan:
    """Divide ``seconds`` of measuring up into rounds of some 15 s a variant.

    ``quick``: two short ones of a fifth of the load.  ``host``: who drains ours; an agent's processes count in the sum.
    """
    variants = ("bare", "ours", "sdk") if sdk else ("bare", "ours")
    if quick:
        short = {"latency": 0.1, "batches": 0.5, "throughput": 0.05}
        return Plan(variants, 2, short, mode, RATE // 5, ORDERS // 5, host=host)
    rounds = max(_FEWEST, round(seconds / len(variants) / _ROUND_S))
    each = seconds / len(variants) / rounds
    return Plan(variants, rounds, {kind: each * share for kind, share in SHARES.items()}, mode, host=host)


def run(what: Plan, progress: Step | None = None) -> dict[str, Any]:
    """Run all blocks; ``progress`` is told each one and its seconds before it runs.

    Gives ``runs``: by variant and kind, a list with one entry a round.  Raises BenchmarkError where a child fails.
    """
    shuffle = random.Random(what.seed).shuffle  # noqa: S311  an order, not a secret
    cpu = trading_cpu()
    # An update has to be as much work as fills a core at the load's rate.
    levels = feed.levels_for(1e6 / what.rate)
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        variant: {kind: [] for kind in KINDS} for variant in what.variants
    }
    with receiver(cpu) as (endpoint, _):
        for number in range(what.rounds):
            blocks = [(variant, kind) for variant in what.variants for kind in KINDS]
            shuffle(blocks)
            for variant, kind in blocks:
                if progress is not None:
                    progress(f"round {number + 1} of {what.rounds}: {VARIANTS[variant]}, {kind}", what.seconds[kind])
                options: dict[str, Any] = {
                    "variant": variant,
                    "endpoint": endpoint,
                    "cpu": cpu,
                    "seconds": what.seconds[kind],
                    "rate": what.rate,
                    "orders": what.orders,
                    "rejected": REJECTED,
                    "seed": what.seed + number,
                }
                if kind == "throughput":
                    options["levels"] = levels
                runs[variant][kind].append(block(kind, options, what.mode, what.host))
    return {
        "machine": machine.describe(),
        "backend": backend,
        "plan": what._asdict(),
        "cpu": cpu,
        "levels": levels,
        "runs": runs,
    }


def block(kind: str, options: Mapping[str, Any], mode: str, host: str = "embedded") -> dict[str, Any]:
    """Run one block in a child; beside what it tells itself, what was seen of it from outside meanwhile.

    With host "agent" our variant has an agent, ``beside``: its processes' CPU seconds in that time, and their memory.
    """
    endpoint = options["endpoint"]
    around = children.environment(backend, environment(endpoint, mode))
    if host != "agent" or options["variant"] != "ours":
        return _measured(kind, options, around, None)
    from otel_trading.impact.agency import agency

    exporting = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp"}
    with agency({**around, **exporting}, options.get("cpu")) as beside:
        return _measured(kind, options, {**around, **beside.environment}, beside)


def _measured(
    kind: str, options: Mapping[str, Any], around: Mapping[str, str], beside: Agency | None
) -> dict[str, Any]:
    seen: dict[str, dict[str, int | None]] = {}
    agents: dict[str, Any] = {}

    def mark(said: Mapping[str, Any]) -> None:
        seen[said["at"]] = {**totals(options["endpoint"]), "written": usage.written(said["pid"])}
        if beside is not None:
            agents[said["at"]] = beside.cpu()
            agents["memory"], agents["processes"] = beside.memory(), len(beside.processes())

    command = [sys.executable, str(PROGRAM), kind, json.dumps(dict(options))]
    found = children.lines(command, around, mark)
    if len(seen) == 2:  # noqa: PLR2004  begin and end
        found["seen"] = {key: _less(seen["end"][key], seen["begin"][key]) for key in seen["begin"]}
    if "end" in agents:
        from otel_trading.impact.agency import used

        cpu = used(agents["begin"], agents["end"])
        found["beside"] = {"cpu_s": cpu, "memory": agents["memory"], "processes": agents["processes"]}
    return found


def environment(endpoint: str, mode: str) -> dict[str, str]:
    """What makes a program send to the receiver, in a mode ("auto": the engine decides)."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRADING_MODE": mode.lower(),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def totals(endpoint: str) -> dict[str, int]:
    """Ask the receiver what it took so far.  Raises BenchmarkError where it does not answer."""
    try:
        with contextlib.closing(http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=10.0)) as connection:
            connection.request("GET", "/totals")
            found: dict[str, int] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        message = f"the OTLP receiver at {endpoint} does not answer: {error}"
        raise children.BenchmarkError(message) from error
    return found


def _less(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def each(results: Mapping[str, Any], variant: str, kind: str) -> Iterator[dict[str, Any]]:
    """The blocks of a variant and kind, round by round."""
    yield from results["runs"].get(variant, {}).get(kind, ())
