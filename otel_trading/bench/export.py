"""CPU time a span from the ring to a live receiver, ours against the stock SDK: fresh processes, paired rounds.

What is compared, and how, is in docs/performance.md.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_trading.bench import children
from otel_trading.bench.intervals import median, ratio_of_medians
from otel_trading.bench.receiving import receiver
from otel_trading.bench.suite import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TARGET_NS = {"native-http": 1_500.0}
"""What a span may cost, in nanoseconds of CPU time, drain, encoding and export together."""


class Variant(NamedTuple):
    """Who exports, by what, and how many spans a second are recorded meanwhile."""

    label: str
    backend: str | None
    protocol: str
    rate: int


VARIANTS = {
    "native-http": Variant("ours, native, http", "native", "http", 50_000),
    "native-grpc": Variant("ours, native, grpc", "native", "grpc", 50_000),
    "pure-http": Variant("ours, pure, http", "pure", "http", 5_000),
    "pure-grpc": Variant("ours, pure, grpc", "pure", "grpc", 5_000),
    "sdk-http": Variant("OpenTelemetry SDK, batch, http", None, "http", 5_000),
    "sdk-grpc": Variant("OpenTelemetry SDK, batch, grpc", None, "grpc", 5_000),
}


def run(
    *,
    seconds: float,
    rounds: int,
    seed: int,
    variants: Sequence[str],
    progress: Callable[[int, str], object] | None = None,
) -> dict[str, Any]:
    """Run every variant once a round, in random order; results by variant, a list with one entry a round.

    Raises BenchmarkError where a child fails, and where a receiver does not have every span: what is lost is cheap.
    """
    shuffle = random.Random(seed).shuffle  # noqa: S311 - an order, not a secret
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for number in range(rounds):
        order = list(variants)
        shuffle(order)
        for name in order:
            if progress is not None:
                progress(number, name)
            results[name].append(_once(name, VARIANTS[name], seconds))
    return {"seconds": seconds, "rounds": rounds, "runs": results}


def _once(name: str, variant: Variant, seconds: float) -> dict[str, Any]:
    options = {
        "stock": variant.backend is None,
        "spans": max(2, round(seconds * variant.rate)),
        "rate": variant.rate,
    }
    with receiver(None, variant.protocol) as (endpoint, told):
        extra = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if variant.protocol == "grpc" else "http/protobuf",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        found = children.task("export", options, backend=variant.backend, extra=extra)
        received = told()
    if received["spans"] != found["sent"]:
        message = f"{name}: {received['spans']} of {found['sent']} spans arrived"
        raise children.BenchmarkError(message)
    return {**found, "requests": received["requests"], "bytes": received["bytes"]}


def checks(results: dict[str, Any]) -> list[Check]:
    """Hold the costs against the targets."""
    found = []
    for name, row in summary(results).items():
        if row["target_ns"] is not None:
            cost, target = row["span_ns"]["estimate"], row["target_ns"]
            what = f"CPU a span, drained, encoded and sent by {VARIANTS[name].protocol}, ns"
            found.append(Check(VARIANTS[name].backend or "", what, cost, target, cost <= target))
    return found


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Boil the rounds down: nanoseconds a span, the SDK's to ours over the same protocol, spans a request."""
    costs = {name: [run["cpu_ns"] / run["spans"] for run in mine] for name, mine in results["runs"].items() if mine}
    rows: dict[str, Any] = {}
    for name, mine in costs.items():
        runs = results["runs"][name]
        stock = costs.get(f"sdk-{VARIANTS[name].protocol}")
        rows[name] = {
            "span_ns": median(mine)._asdict(),
            "sdk_to_it": ratio_of_medians(stock, mine)._asdict() if stock and not name.startswith("sdk") else None,
            "spans_a_request": sum(run["sent"] for run in runs) / max(1, sum(run["requests"] for run in runs)),
            "bytes_a_span": sum(run["bytes"] for run in runs) / max(1, sum(run["sent"] for run in runs)),
            "target_ns": TARGET_NS.get(name),
        }
    return rows
