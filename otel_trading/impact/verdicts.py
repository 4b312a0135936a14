"""What was measured, boiled down, and held against the limits."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_trading.bench.intervals import Interval, median, ratio_of_medians
from otel_trading.bench.paced import POINTS
from otel_trading.impact.blocks import each

if TYPE_CHECKING:
    from collections.abc import Mapping

MEGA = 1e6
THROUGHPUT_PERCENT = 5.0
OWN_THROUGHPUT_PERCENT = 1.0
OWN_TAIL_RATIO = 1.5
OWN_METER_PERCENT = 10.0
_COUNTED = 0.005
"""Share of a core: what is added is not told from nothing below it, and a meter is not compared with nothing."""


class Limits(NamedTuple):
    """What monitoring may cost in a mode."""

    cpu_percent: float
    memory_mb: float
    latency_us: float
    network_kbps: float
    disk_iops: float


LIMITS = {
    "NORMAL": Limits(2.5, 30.0, 200.0, 256.0, 25.0),
    "HIGH_VOLATILITY": Limits(2.5, 30.0, 200.0, 256.0, 25.0),
    "STRESSED": Limits(1.0, 15.0, 50.0, 64.0, 5.0),
    "EMERGENCY": Limits(0.3, 5.0, 10.0, 0.0, 0.0),
}


class Verdict(NamedTuple):
    """A limit and what was measured; the interval holds the true value with 95 % certainty, as far as rounds tell."""

    what: str
    unit: str
    measured: float
    low: float
    high: float
    limit: float
    met: bool
    own: bool
    """A target of this project, not a limit that monitoring is held to: it does not change the exit code."""


def summary(results: Mapping[str, Any]) -> dict[str, Any]:
    """Boil the rounds of each variant down, as differences to the plain program's of the same round.

    ``cpu_percent``: of one core; ``machine_percent``: of all; ``memory_mb``; ``latency_us``: by quantile, tick to
    order; ``update_us``: the same of all updates; ``tail_ratio``: of p99.9, least disturbed rounds;
    ``throughput_percent``: lost; ``network_kbps``, ``disk_kbps``: as seen from outside.  Each has estimate, low, high.
    """
    return {
        variant: _row(results, variant)
        for variant in results["runs"]
        if variant != "bare" and "bare" in results["runs"]
    }


def _row(results: Mapping[str, Any], variant: str) -> dict[str, Any]:
    batches = list(zip(each(results, variant, "batches"), each(results, "bare", "batches"), strict=True))
    cpu = [100.0 * (_cpu(mine) - _cpu(bare)) for mine, bare in batches]
    row: dict[str, Any] = {
        "cpu_percent": median(cpu)._asdict(),
        "machine_percent": median([value / (os.cpu_count() or 1) for value in cpu])._asdict(),
        "bare_cpu_percent": median([100.0 * _cpu(bare) for _, bare in batches])._asdict(),
        "latency_us": _added(results, variant, "order_ns"),
        "update_us": _added(results, variant, "update_ns"),
        "bare_latency_us": _plain(results, "order_ns"),
        "bare_update_us": _plain(results, "update_ns"),
        "tail_ratio": _tail(results, variant),
        "throughput_percent": _throughput(results, variant),
        **_memory(batches),
        **_beside([mine for mine, _ in batches]),
        **_outside([mine for mine, _ in batches]),
    }
    meters = [(mine["meter"], added) for (mine, _), added in zip(batches, cpu, strict=True) if mine.get("meter")]
    if meters:
        row["meter"] = _meter(meters, row["cpu_percent"]["estimate"])
    row["lost_spans"] = sum(
        mine["accounts"].get("overwritten", 0) + mine["accounts"].get("refused", 0) for mine, _ in batches
    )
    return row


def _cpu(run: Mapping[str, Any]) -> float:
    return float((run["cpu_s"] + run.get("beside", {}).get("cpu_s", 0.0)) / run["wall_s"])


def _pairs(results: Mapping[str, Any], variant: str, kind: str, key: str, point: str) -> list[tuple[float, float]]:
    runs = zip(each(results, variant, kind), each(results, "bare", kind), strict=True)
    return [(mine[key][point], bare[key][point]) for mine, bare in runs]


def _added(results: Mapping[str, Any], variant: str, key: str) -> dict[str, Any]:
    found = {}
    for point in POINTS:
        pairs = _pairs(results, variant, "latency", key, point)
        found[point] = median([(mine - bare) / 1000.0 for mine, bare in pairs])._asdict()
    return found


def _plain(results: Mapping[str, Any], key: str) -> dict[str, float]:
    return {
        point: statistics.median(run[key][point] for run in each(results, "bare", "latency")) / 1000.0
        for point in POINTS
    }


def _tail(results: Mapping[str, Any], variant: str) -> dict[str, float]:
    """p99.9 to the plain program's: that of the least disturbed rounds, with the interval of the medians' ratio."""
    pairs = _pairs(results, variant, "latency", "order_ns", "p99.9")
    mine, bare = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    spread = ratio_of_medians(mine, bare)
    return {"estimate": min(mine) / min(bare), "low": spread.low, "high": spread.high}


def _throughput(results: Mapping[str, Any], variant: str) -> dict[str, float]:
    runs = zip(each(results, variant, "throughput"), each(results, "bare", "throughput"), strict=True)
    lost = [
        100.0 * (1.0 - (mine["updates"] / mine["seconds"]) / (bare["updates"] / bare["seconds"])) for mine, bare in runs
    ]
    return median(lost)._asdict()


def _memory(batches: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """All that it adds; what the exporters' libraries are of it, by its own account, is not held to a limit."""
    told = [(mine["memory"], bare["memory"], mine.get("meter")) for mine, bare in batches]
    if any(mine is None or bare is None for mine, bare, _ in told):
        return {}
    beside = [mine.get("beside", {}).get("memory") or 0 for mine, _ in batches]
    added = [
        (mine["own"] + mine["segment"] + agent - bare["own"]) / MEGA
        for (mine, bare, _), agent in zip(told, beside, strict=True)
    ]
    libraries = [(meter or {}).get("exporter_memory", 0.0) / MEGA for _, _, meter in told]
    held = [total - library for total, library in zip(added, libraries, strict=True)]
    return {
        "memory_mb": median(held)._asdict(),
        "memory_all_mb": median(added)._asdict(),
        "exporter_mb": median(libraries)._asdict(),
        "segment_mb": median([mine["segment"] / MEGA for mine, _, _ in told])._asdict(),
        **({"beside_mb": median([one / MEGA for one in beside])._asdict()} if any(beside) else {}),
    }


def _beside(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """CPU of an agent's processes, of what is in the sum."""
    told = [100.0 * run["beside"]["cpu_s"] / run["wall_s"] for run in runs if "beside" in run]
    return {"beside_percent": median(told)._asdict()} if told else {}


def _outside(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Network and disk as receiver and kernel saw them."""
    found: dict[str, Any] = {}
    seen = [(run["seen"], run["wall_s"]) for run in runs if "seen" in run]
    if seen:
        sent = [8e-3 * (one["bytes"] + one["headers"]) / wall for one, wall in seen]
        found["network_kbps"] = median(sent)._asdict()
        found["bytes_sent"] = sum(one["bytes"] + one["headers"] for one, _ in seen)
        written = [(one["written"], wall) for one, wall in seen if one["written"] is not None]
        if written:
            found["disk_kbps"] = median([8e-3 * count / wall for count, wall in written])._asdict()
            found["bytes_written"] = sum(count for count, _ in written)
    return found


def _meter(meters: list[tuple[dict[str, Any], float]], added: float) -> dict[str, Any]:
    """The program's own meter beside what the comparison says; CPU in percent of one core."""
    own = [100.0 * meter["cpu"] for meter, _ in meters]
    last = meters[-1][0]
    found: dict[str, Any] = {
        "cpu_percent": median(own)._asdict(),
        "parts_percent": {
            part: 100.0 * statistics.median(meter[f"cpu_{part}"] for meter, _ in meters)
            for part in ("hot", "drain", "export", "governor")
        },
        "memory_mb": statistics.median(meter["usage"]["memory"] for meter, _ in meters) / MEGA,
        "network_kbps": statistics.median(meter["network"] for meter, _ in meters) * 8e-3,
        "latency_us": statistics.median(meter["usage"]["latency"] for meter, _ in meters) * 1e6,
        "costs_ns": {kind: seconds * 1e9 for kind, seconds in last["costs"].items()},
        "rates": last["rates"],
        "steps": max(meter["steps"] for meter, _ in meters),
        "kept": [sum(counts) for counts in zip(*(meter["kept"] for meter, _ in meters), strict=True)],
        "missed": [sum(counts) for counts in zip(*(meter["missed"] for meter, _ in meters), strict=True)],
    }
    if abs(added) > 100.0 * _COUNTED:
        compared = [difference for _, difference in meters]
        ratio = ratio_of_medians(own, compared) if all(compared) else Interval(0.0, 0.0, 0.0)
        found["agreement_percent"] = {
            "estimate": 100.0 * (ratio.estimate - 1.0),
            "low": 100.0 * (ratio.low - 1.0),
            "high": 100.0 * (ratio.high - 1.0),
        }
    return found


def verdicts(results: Mapping[str, Any], boiled: Mapping[str, Any]) -> list[Verdict]:
    """Hold ours against the limits of the mode that it ran in, and against our own targets."""
    row, mode = boiled["ours"], results["plan"]["mode"]
    limits = LIMITS[mode]
    found = [_verdict("CPU added", "% of a core", row["cpu_percent"], limits.cpu_percent)]
    if "memory_mb" in row:
        found.append(_verdict("memory added", "MB", row["memory_mb"], limits.memory_mb))
    found.append(_verdict("latency added, tick to order, p99", "µs", row["latency_us"]["p99"], limits.latency_us))
    found.append(_verdict("throughput lost", "%", row["throughput_percent"], THROUGHPUT_PERCENT))
    if "network_kbps" in row:
        found.append(_verdict("sent", "kbit/s", row["network_kbps"], limits.network_kbps))
    if limits.disk_iops == 0.0 and "disk_kbps" in row:
        found.append(_verdict("written to disks", "kbit/s", row["disk_kbps"], 0.0))
    found.append(_verdict("throughput lost", "%", row["throughput_percent"], OWN_THROUGHPUT_PERCENT, own=True))
    found.append(_verdict("p99.9 tick to order, to plain", "×", row["tail_ratio"], OWN_TAIL_RATIO, own=True))
    agreement = row.get("meter", {}).get("agreement_percent")
    if agreement is not None:
        found.append(_around("meter's CPU, off by", "%", agreement, OWN_METER_PERCENT))
    return found


def _verdict(what: str, unit: str, measured: Mapping[str, float], limit: float, *, own: bool = False) -> Verdict:
    estimate = measured["estimate"]
    return Verdict(what, unit, estimate, measured["low"], measured["high"], limit, estimate <= limit, own)


def _around(what: str, unit: str, measured: Mapping[str, float], limit: float) -> Verdict:
    """For a figure that may be off to either side."""
    estimate = measured["estimate"]
    return Verdict(what, unit, estimate, measured["low"], measured["high"], limit, abs(estimate) <= limit, own=True)


def passed(found: list[Verdict]) -> bool:
    """Tell whether every limit is kept; our own targets aside."""
    return all(verdict.met for verdict in found if not verdict.own)
