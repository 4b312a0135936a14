"""The text summary: a snapshot and the accounts as plain-text tables."""

from __future__ import annotations

from otel_trading.drain import units
from otel_trading.drain.histogram import ExponentialHistogram
from otel_trading.drain.series import COUNTER, GAUGE, HISTOGRAM, attributes_of, tier_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

_QUANTILES = (0.5, 0.95, 0.99, 0.999)
_WINDOWS = (("1s", 1.0), ("5s", 5.0), ("1m", 60.0))
_OUTCOMES = ("recorded", "exported", "sampled_out", "overwritten", "refused", "pending")
_LOSSES = {
    "names_refused": "names beyond the name table",
    "attributes_dropped": "attributes beyond the limit",
    "values_overwritten": "histogram values overwritten before the drain read them",
    "text_overwritten": "attributes overwritten before the drain read them",
    "faults": "misuses of the API",
}


def text(snapshot: Mapping[str, Any], accounts: Sequence[Mapping[str, int]]) -> str:
    """Return tables of stages, rates, instruments, GC pauses, accounts, and losses; ends with a newline.

    Stages that recorded nothing are left out of the tables and counted below.
    """
    lasted = max(0.0, (snapshot["unix_ns"] - snapshot["start_unix_ns"]) / 1e9)
    parts = [
        _stages(snapshot["probes"]),
        _rates(snapshot["probes"], lasted),
        _instruments(snapshot["instruments"]),
        _histograms(snapshot["instruments"]),
        _pauses(snapshot["instruments"], lasted),
        _accounts(accounts),
        _machinery(snapshot),
        _losses(snapshot, accounts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Lay out columns: the first ``left`` to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _row(histogram: ExponentialHistogram, show: Callable[[float], str]) -> list[str]:
    return [f"{histogram.count:,}", *map(show, histogram.quantiles(_QUANTILES)), show(histogram.max)]


def _stages(probes: Sequence[Mapping[str, Any]]) -> str:
    rows, silent = [], []
    for probe in probes:
        total = ExponentialHistogram.from_state(probe["total"])
        if not total.count:
            silent.append(probe["name"])
            continue
        sla = probe["sla_ns"]
        rows.append(
            [
                probe["name"],
                tier_name(probe["tier"]),
                *_row(total, units.seconds),
                f"{probe['errors']:,}",
                units.seconds(sla / 1e9) if sla else "",
                f"{probe['sla_breaches']:,}" if sla else "",
            ]
        )
    head = ["stage", "tier", "count", "p50", "p95", "p99", "p99.9", "max", "errors", "SLA", "breaches"]
    shown = _table(head, rows, left=2) if rows else "no spans recorded"
    if silent:
        shown += f"\nwithout a span: {', '.join(silent)}"
    return shown


def _rates(probes: Sequence[Mapping[str, Any]], lasted: float) -> str:
    rows = []
    for probe in probes:
        if not probe["count"]:
            continue
        windows = [ExponentialHistogram.from_state(probe["windows"][name]) for name, _ in _WINDOWS]
        row = [probe["name"]]
        # A process younger than the window has had less time for what is in it.
        row += [
            units.rate(window.count / (min(length, lasted) or length))
            for window, (_, length) in zip(windows, _WINDOWS, strict=True)
        ]
        row += [units.seconds(window.quantile(0.99)) for window in windows]
        rows.append(row)
    if not rows:
        return ""
    return _table(["stage, last", "1 s", "5 s", "1 min", "p99 1 s", "p99 5 s", "p99 1 min"], rows)


def _label(instrument: Mapping[str, Any]) -> str:
    attributes = attributes_of(instrument["attributes"])
    if not attributes:
        return str(instrument["name"])
    return f"{instrument['name']}{{{', '.join(f'{key}={value}' for key, value in attributes.items())}}}"


def _instruments(instruments: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [
            _label(instrument),
            "counter" if instrument["kind"] == COUNTER else "gauge",
            _value(instrument["value"]),
            instrument["unit"],
        ]
        for instrument in instruments
        if instrument["kind"] in (COUNTER, GAUGE) and instrument["updates"]
    ]
    return _table(["instrument", "kind", "value", "unit"], rows, left=2) if rows else ""


def _value(value: float | None) -> str:
    """Return a counter in full (it may be checked against another), a gauge as people read it."""
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else f"{value:,.6g}"


def _histograms(instruments: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for instrument in instruments:
        if instrument["kind"] != HISTOGRAM or instrument["name"] == "gc.pause":
            continue
        total = ExponentialHistogram.from_state(instrument["total"])
        if total.count:
            in_seconds = instrument["unit"] == "s"
            row = _row(total, units.seconds if in_seconds else units.number)
            rows.append([_label(instrument), *row, "" if in_seconds else instrument["unit"]])
    return _table(["histogram", "count", "p50", "p95", "p99", "p99.9", "max", "unit"], rows) if rows else ""


def _pauses(instruments: Iterable[Mapping[str, Any]], lasted: float) -> str:
    for instrument in instruments:
        if instrument["kind"] == HISTOGRAM and instrument["name"] == "gc.pause":
            total = ExponentialHistogram.from_state(instrument["total"])
            if not total.count:
                break
            p50, p99 = total.quantiles((0.5, 0.99))
            share = f", {total.sum / lasted:.2%} of the time" if lasted else ""
            return (
                f"GC pauses: {total.count:,}, p50 {units.seconds(p50)}, p99 {units.seconds(p99)},"
                f" max {units.seconds(total.max)}, together {units.seconds(total.sum)}{share}"
            )
    return ""


def _accounts(accounts: Sequence[Mapping[str, int]]) -> str:
    rows = [
        [tier_name(tier), *(f"{account[name]:,}" for name in _OUTCOMES)]
        for tier, account in enumerate(accounts)
        if account["recorded"]
    ]
    if not rows:
        return ""
    if len(rows) > 1:
        rows.append(["all", *(f"{sum(account[name] for account in accounts):,}" for name in _OUTCOMES)])
    return _table(["spans", *(name.replace("_", " ") for name in _OUTCOMES)], rows)


def _machinery(snapshot: Mapping[str, Any]) -> str:
    rings, drain, segment = snapshot["rings"], snapshot["drain"], snapshot["segment"]
    return (
        f"backlog {sum(ring['backlog'] for ring in rings):,} records"
        f" (longest met {max((ring['backlog_max'] for ring in rings), default=0):,});"
        f" drain {units.seconds(drain['cpu_ns'] / 1e9)} of CPU in {drain['passes']:,} passes;"
        f" segment {units.size(segment['bytes'])}, {units.size(segment['resident_bytes'])} of it resident"
    )


def _losses(snapshot: Mapping[str, Any], accounts: Sequence[Mapping[str, int]]) -> str:
    found = [f"{segment:,} {words}" for name, words in _LOSSES.items() if (segment := snapshot["segment"][name])]
    for outcome, words in (
        ("overwritten", "spans overwritten before the drain read them"),
        ("refused", "spans that the exporters or their queue did not take"),
    ):
        lost = sum(account[outcome] for account in accounts)
        if lost:
            found.insert(0, f"{lost:,} {words}")
    return f"losses: {'; '.join(found) or 'none'}"
