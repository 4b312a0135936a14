"""Tables of what was measured, and the verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from otel_trading.bench.paced import POINTS
from otel_trading.impact.blocks import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from otel_trading.impact.verdicts import Verdict


_WIDEST = 118


def table(title: str, *columns: str) -> Table:
    """An empty table; the first column is text."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, min_width=min(len(title), _WIDEST))
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", no_wrap=True)
    return made


def number(value: float) -> str:
    """Three digits that matter."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"  # noqa: PLR2004


def interval(found: Mapping[str, float]) -> str:
    """An estimate and its 95 % interval."""
    return f"{number(found['estimate'])} ({number(found['low'])} … {number(found['high'])})"


def impact_tables(results: Mapping[str, Any], boiled: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What each variant adds, its latencies, and what our own meter said of it."""
    plan = results["plan"]
    head = f"{plan['rate']:,} updates/s, {plan['orders']:,} orders/s, {plan['rounds']} rounds"
    head += f", {results['backend']} backend, mode {plan['mode']}"
    if plan.get("host") == "agent":
        head += ", drained by an agent"
    shown = table(f"Added to the plain program, {head}; 95 % intervals", "", *(VARIANTS[name] for name in boiled))
    for label, key in _ROWS:
        cells = [interval(row[key]) if key in row else "" for row in boiled.values()]
        if any(cells):
            shown.add_row(label, *cells)
    yield shown
    for label, key in (("Tick to order", "latency_us"), ("All updates", "update_us")):
        yield _latencies(label, key, boiled)
    if "meter" in boiled.get("ours", {}):
        yield _meter(boiled["ours"])
    else:
        yield "The budget's meter did not run: there is nothing to compare its figures with."
    if results["cpu"] is None:
        yield "Not pinned: there is no second processor here, and the tails say so."


def _latencies(label: str, key: str, boiled: Mapping[str, Any]) -> Table:
    shown = table(
        f"{label}: latency added, µs, from the time that each update was due; 95 % intervals",
        "", *(VARIANTS[name] for name in boiled), f"{VARIANTS['bare']} itself",
    )  # fmt: skip
    plain = next(iter(boiled.values()))[f"bare_{key}"]
    for point in POINTS:
        shown.add_row(point, *(interval(row[key][point]) for row in boiled.values()), number(plain[point]))
    return shown


_ROWS = (
    ("CPU, % of one core", "cpu_percent"),
    ("  of it the agent's processes", "beside_percent"),
    ("CPU, % of the machine", "machine_percent"),
    ("  the plain program itself, % of one core", "bare_cpu_percent"),
    ("memory, MB", "memory_mb"),
    ("  of it the segment", "segment_mb"),
    ("  of all, the agent's processes", "beside_mb"),
    ("  besides, the exporters' libraries", "exporter_mb"),
    ("throughput lost, %, where it fills a core", "throughput_percent"),
    ("sent, kbit/s", "network_kbps"),
    ("written to disks, kbit/s", "disk_kbps"),
)


def _meter(row: Mapping[str, Any]) -> Table:
    meter = row["meter"]
    shown = table("The program's own meter, beside this comparison", "", "meter", "comparison", "off by")
    agreement = meter.get("agreement_percent")
    off = "" if agreement is None else f"{interval(agreement)} %"
    shown.add_row("CPU, % of one core", interval(meter["cpu_percent"]), interval(row["cpu_percent"]), off)
    for part, percent in meter["parts_percent"].items():
        shown.add_row(f"  {_PARTS[part]}", number(percent), "", "")
    if "memory_mb" in row:
        shown.add_row("memory, MB", number(meter["memory_mb"]), interval(row["memory_mb"]), "")
    if "network_kbps" in row:
        shown.add_row("sent, kbit/s", number(meter["network_kbps"]), interval(row["network_kbps"]), "")
    return shown


_PARTS = {"hot": "recording threads", "drain": "drain", "export": "exporters", "governor": "governor"}


def verdict_table(found: Sequence[Verdict]) -> Table:
    """Limit by limit; the project's own targets after the limits."""
    shown = table("Verdict", "", "measured", "95 %", "limit", "")
    for verdict in found:
        mark = "[green]kept[/]" if verdict.met else "[red]exceeded[/]"
        unsure = verdict.met != (verdict.high <= verdict.limit) and not verdict.what.startswith("meter")
        shown.add_row(
            f"{verdict.what}{' (own target)' if verdict.own else ''}",
            f"{number(verdict.measured)} {verdict.unit}",
            f"{number(verdict.low)} … {number(verdict.high)}",
            f"≤ {verdict.limit:g}",
            mark + (" [dim](the interval holds the limit)[/]" if unsure and verdict.low <= verdict.limit else ""),
        )
    return shown
