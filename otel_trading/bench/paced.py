"""The paced load, variant against variant: fresh processes, in random order within each round.

What is compared, and how, is in docs/performance.md.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

from otel_trading.bench import children
from otel_trading.bench.intervals import median, ratio_of_medians
from otel_trading.bench.receiving import receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RATE = 10_000
"""Market-data updates a second."""
ORDERS = 1_000
"""Updates a second, of those, that go on to an order."""
TARGET = 1.5
"""What p99.9 with every span recorded and drained may be, to the plain code, least disturbed rounds."""
VARIANTS = {
    "bare": "the plain code",
    "native": "ours, native, drained",
    "native-otlp": "ours, native, every span sent by OTLP",
    "pure": "ours, pure, drained",
    "sdk": "OpenTelemetry SDK, batch, OTLP",
}
POINTS = ("p50", "p90", "p99", "p99.9", "p99.99", "max")


def trading_cpu() -> int | None:
    """The processor for the trading thread: the last that we may use, None where there is no other to spare."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    return max(allowed) if len(allowed) > 1 else None


def run(
    *,
    seconds: float,
    rounds: int,
    seed: int,
    variants: Sequence[str],
    progress: Callable[[int, str], object] | None = None,
) -> dict[str, Any]:
    """Run every variant once a round; results by variant, a list with one entry a round.

    Raises BenchmarkError where a child fails.
    """
    shuffle = random.Random(seed).shuffle  # noqa: S311  an order, not a secret
    cpu = trading_cpu()
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    with receiver(cpu) as (endpoint, _):
        for number in range(rounds):
            order = list(variants)
            shuffle(order)
            for variant in order:
                if progress is not None:
                    progress(number, variant)
                options = {
                    "variant": variant,
                    "seconds": seconds,
                    "rate": RATE,
                    "orders": ORDERS,
                    "seed": seed + number,
                    "cpu": cpu,
                    "endpoint": endpoint,
                }
                backend = variant.partition("-")[0] if variant not in ("bare", "sdk") else None
                extra = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
                results[variant].append(children.task("paced", options, backend=backend, extra=extra))
    return {"seconds": seconds, "rounds": rounds, "rate": RATE, "orders": ORDERS, "cpu": cpu, "runs": results}


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Boil the rounds down; times in nanoseconds, ratios to the plain code where that was run.

    ``least``: each quantile in its least disturbed round.  ``median``: median of the rounds with its 95 % interval.
    ``ratio_least`` and ``ratio_median``: the same, to the plain code.
    """
    runs: dict[str, list[dict[str, Any]]] = results["runs"]
    bare = runs.get("bare")
    rows: dict[str, Any] = {}
    for variant, mine in runs.items():
        row: dict[str, Any] = {"least": {}, "median": {}, "ratio_least": {}, "ratio_median": {}}
        for point in POINTS:
            values = [float(run["latency_ns"][point]) for run in mine]
            row["least"][point] = min(values)
            row["median"][point] = median(values)._asdict()
            if bare:
                plain = [float(run["latency_ns"][point]) for run in bare]
                row["ratio_least"][point] = min(values) / min(plain)
                row["ratio_median"][point] = ratio_of_medians(values, plain)._asdict()
        unpaced = [float(run["unpaced_ns_per_tick"]) for run in mine]
        added = unpaced
        if bare:
            added = [own - float(plain["unpaced_ns_per_tick"]) for own, plain in zip(unpaced, bare, strict=True)]
        row["unpaced_added_ns"] = median(added)._asdict()
        row["accounts"] = [run["accounts"] for run in mine if "accounts" in run]
        rows[variant] = row
    return rows
