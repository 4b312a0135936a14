"""Summaries of a snapshot: the dict behind ``stats()``, a table for people, and a JSON document."""

from __future__ import annotations

import math

from otel_trading.drain.histogram import ExponentialHistogram
from otel_trading.drain.series import HISTOGRAM, tier_name
from otel_trading.drain.table import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from otel_trading._native import HistogramState

__all__ = ["SCHEMA", "document", "stats", "text", "write_json"]

SCHEMA = "otel-trading/summary/1"
"""The JSON document's ``schema``; the number rises when a reader of the former one would be misled."""

_QUANTILES = (0.5, 0.95, 0.99, 0.999)
_QUANTILE_NAMES = ("p50", "p95", "p99", "p999")
_WINDOWS = (("1s", 1.0), ("5s", 5.0), ("1m", 60.0))


def stats(snapshot: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return {probe name: {count, p50_ns, p95_ns, p99_ns, p999_ns, max_ns, sla_breaches}}, all whole numbers.

    Probes of one name are taken together; the times are 0 for one that recorded nothing.
    """
    merged: dict[str, tuple[ExponentialHistogram, int]] = {}
    for probe in snapshot["probes"]:
        histogram, breaches = ExponentialHistogram.from_state(probe["total"]), probe["sla_breaches"]
        if probe["name"] in merged:
            former, former_breaches = merged[probe["name"]]
            histogram, breaches = histogram.merge(former), breaches + former_breaches
        merged[probe["name"]] = (histogram, breaches)
    return {
        name: {"count": histogram.count, **_quantiles_ns(histogram), "sla_breaches": breaches}
        for name, (histogram, breaches) in merged.items()
    }


def _quantiles_ns(histogram: ExponentialHistogram) -> dict[str, int]:
    found = dict(zip(_QUANTILE_NAMES, histogram.quantiles(_QUANTILES), strict=True))
    found["max"] = histogram.max
    return {f"{name}_ns": 0 if math.isnan(value) else round(value * 1e9) for name, value in found.items()}


# ---- the JSON document ----------------------------------------------------------------------------


def document(snapshot: Mapping[str, Any], accounts: Sequence[Mapping[str, int]]) -> dict[str, Any]:
    """Return everything as a JSON-able dict; stages in nanoseconds, instruments in their own units."""
    return {
        "schema": SCHEMA,
        "unix_ns": snapshot["unix_ns"],
        "start_unix_ns": snapshot["start_unix_ns"],
        "stages": [_stage_document(probe) for probe in snapshot["probes"]],
        "instruments": [_instrument_document(instrument) for instrument in snapshot["instruments"]],
        "accounts": {tier_name(tier): dict(account) for tier, account in enumerate(accounts)},
        "rings": [dict(ring) for ring in snapshot["rings"]],
        "drain": dict(snapshot["drain"]),
        "segment": dict(snapshot["segment"]),
    }


def _stage_document(probe: Mapping[str, Any]) -> dict[str, Any]:
    total = ExponentialHistogram.from_state(probe["total"])
    return {
        "name": probe["name"],
        "tier": tier_name(probe["tier"]),
        "count": total.count,
        "errors": probe["errors"],
        "sla_ns": probe["sla_ns"] or None,
        "sla_breaches": probe["sla_breaches"],
        **_quantiles_ns(total),
        "min_ns": round(total.min * 1e9) if total.count else 0,
        "mean_ns": round(total.mean * 1e9) if total.count else 0,
        "windows": {
            name: {"count": window.count, "rate": window.count / length, **_quantiles_ns(window)}
            for name, length, window in _windows(probe["windows"])
        },
        "exemplars": [
            {"ns": round(value * 1e9), "trace_id": f"{trace_id:032x}", "span_id": f"{span_id:016x}", "unix_ns": unix_ns}
            for value, trace_id, span_id, unix_ns in probe["exemplars"]
        ],
    }


def _windows(windows: Mapping[str, HistogramState]) -> Iterable[tuple[str, float, ExponentialHistogram]]:
    return [(name, length, ExponentialHistogram.from_state(windows[name])) for name, length in _WINDOWS]


def _instrument_document(instrument: Mapping[str, Any]) -> dict[str, Any]:
    kind = {1: "counter", 2: "gauge", HISTOGRAM: "histogram"}.get(instrument["kind"], "unknown")
    found: dict[str, Any] = {name: instrument[name] for name in ("name", "unit", "description", "attributes")}
    found |= {"kind": kind, "tier": tier_name(instrument["tier"]), "updates": instrument["updates"]}
    if instrument["kind"] != HISTOGRAM:
        return found | {"value": _finite(instrument["value"])}
    total = ExponentialHistogram.from_state(instrument["total"])
    return found | {
        "count": total.count,
        **_plain_quantiles(total),
        "windows": {
            name: {"count": window.count, "rate": window.count / length, **_plain_quantiles(window)}
            for name, length, window in _windows(instrument["windows"])
        },
    }


def _plain_quantiles(histogram: ExponentialHistogram) -> dict[str, float | None]:
    found = dict(zip(_QUANTILE_NAMES, histogram.quantiles(_QUANTILES), strict=True))
    found |= {"min": histogram.min, "max": histogram.max, "mean": histogram.mean}
    return {name: _finite(value) for name, value in found.items()}


def _finite(value: float | None) -> float | None:
    """Return None for what JSON has no number for."""
    return value if value is not None and math.isfinite(value) else None


def write_json(
    path: str | os.PathLike[str], snapshot: Mapping[str, Any], accounts: Sequence[Mapping[str, int]]
) -> None:
    """Write the document to ``path``, readable by the user alone, whole or not at all.

    A reader sees the former file or the new one: the text goes to a new file beside it, which is then
    renamed.  Raises OSError, with nothing left behind.
    """
    import json
    import os
    import tempfile

    path = os.fspath(path)
    content = json.dumps(document(snapshot, accounts), indent=1, allow_nan=False) + "\n"
    # mkstemp makes it 0600, with a name that was not there, and never through a link.
    descriptor, temporary = tempfile.mkstemp(prefix=".otel-trading-", suffix=".json", dir=os.path.dirname(path) or ".")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
