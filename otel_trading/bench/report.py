"""Tables of what was measured."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from otel_trading.bench import export, paced, suite
from otel_trading.bench.api_forms import SDK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from otel_trading.bench.suite import Check

MEGA = 1e6


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def suite_tables(results: dict[str, Any]) -> Iterator[RenderableType]:
    """What ``suite.run`` gave: forms by backend, the drain, memory and import time."""
    for backend, forms in results["forms"].items():
        table = _table(
            f"One record, {backend} backend (floor: two bare perf_counter_ns calls)",
            "form", "ns", "floors", "95 %", "target", "blocks left", "peak bytes",
        )  # fmt: skip
        for form in forms.values():
            cost, target = suite.ratio(form), form["target"]
            heap = form.get("allocations")
            table.add_row(
                form["label"],
                f"{suite.cost_ns(form).estimate:,.0f}",
                f"{cost.estimate:.2f}",
                f"{cost.low:.2f}–{cost.high:.2f}",
                "" if target is None else _target(f"≤ {target:g}", met=cost.estimate <= target),
                f"{heap['left_blocks']:,}" if heap else "",
                f"{heap['peak_bytes']:,}" if heap else "",
            )
        yield table
    if results["api"]:
        yield _api_table(results["api"])
    if results["forms"]:
        yield _footprints(results)
    for backend in results["missing"]:
        yield f"The {backend} backend was not measured: its C extension is not built."


def _api_table(api: dict[str, dict[str, dict[str, Any]]]) -> Table:
    table = _table(
        "OpenTelemetry's API, one span, in floors", "form", "", "floors", "95 %", "target", "SDK to it", "95 %"
    )
    for backend, forms in api.items():
        for key, form in forms.items():
            cost, target = suite.ratio(form), form["target"]
            times = suite.to_stock(form, api[SDK][key])
            table.add_row(
                form["label"],
                backend,
                f"{cost.estimate:.2f}",
                f"{cost.low:.2f}–{cost.high:.2f}",
                "" if target is None else _target(f"≤ {target:g}", met=cost.estimate <= target),
                "" if backend == SDK else f"{times.estimate:.1f}",
                "" if backend == SDK else f"{times.low:.1f}–{times.high:.1f}",
            )
    return table


def _footprints(results: dict[str, Any]) -> Table:
    backends = list(results["forms"])
    table = _table("Around it", "", *backends)

    def rates(kind: str) -> list[str]:
        return [f"{statistics.median(results['drain'][name]['spans_per_second'][kind]):,.0f}" for name in backends]

    table.add_row("drain, spans/s on one core", *rates("plain"))
    table.add_row("drain, spans with two attributes/s", *rates("attributes"))
    starts = [results["footprint"][name] for name in backends]
    for label, key in (("import, ms", "import_ns"), ("configure, ms", "configure_ns")):
        table.add_row(label, *(f"{statistics.median(start[key] for start in runs) / MEGA:.1f}" for runs in starts))
    rows = (
        ("memory added, MB", "added"),
        ("  of it the process", "process_added"),
        ("  of it the segment's file", "segment_allocated"),
        ("    of it the ring", "ring_bytes"),
    )
    for label, key in rows:
        sizes = [suite.memory(runs) for runs in starts]
        table.add_row(label, *("" if size is None else f"{size[key] / MEGA:.1f}" for size in sizes))
    return table


def _target(text: str, *, met: bool) -> str:
    return f"{text} [green]✓[/]" if met else f"{text} [red]✗[/]"


def _micros(nanoseconds: float) -> str:
    micros = nanoseconds / 1000
    return f"{micros:,.2f}" if micros < 100 else f"{micros:,.0f}"  # noqa: PLR2004  two digits are noise there


def missed_table(checks: Sequence[Check]) -> RenderableType:
    """The targets that were missed, or a line that there are none."""
    missed = [check for check in checks if not check.met]
    if not missed:
        return f"All {len(checks)} targets are met."
    table = _table(f"{len(missed)} of {len(checks)} targets missed", "what", "backend", "measured", "target")
    for check in missed:
        table.add_row(check.what, check.backend, f"{check.measured:,.2f}", f"{check.target:,.2f}")
    return table


def paced_tables(results: dict[str, Any]) -> Iterator[RenderableType]:
    """What ``paced.run`` gave: latencies, and their ratios to the plain code."""
    rows = paced.summary(results)
    head = (
        f"{results['rate']:,} updates/s, {results['orders']:,} orders/s, {results['rounds']} × {results['seconds']:g} s"
    )
    table = _table(f"Latency, µs, {head}: least disturbed round", "", *paced.POINTS, "+ a tick, unpaced")
    for variant, row in rows.items():
        cells = [_micros(row["least"][point]) for point in paced.POINTS]
        added = "" if variant == "bare" else _micros(row["unpaced_added_ns"]["estimate"])
        table.add_row(paced.VARIANTS[variant], *cells, added)
    yield table
    table = _table("Median of rounds, µs", "", *paced.POINTS)
    for variant, row in rows.items():
        cells = [_micros(row["median"][point]["estimate"]) for point in paced.POINTS]
        table.add_row(paced.VARIANTS[variant], *cells)
    yield table
    if "bare" in rows:
        table = _table("To the plain code", "", "p50", "p99", "p99.9", "p99.9, median [95 %]", "target")
        for variant, row in rows.items():
            if variant == "bare":
                continue
            spread = row["ratio_median"]["p99.9"]
            lowest = row["ratio_least"]
            table.add_row(
                paced.VARIANTS[variant],
                *(f"{lowest[point]:,.2f}" for point in ("p50", "p99", "p99.9")),
                f"{spread['estimate']:,.2f} [{spread['low']:,.2f}–{spread['high']:,.2f}]".replace("[", r"\["),
                _target(f"≤ {paced.TARGET}", met=lowest["p99.9"] <= paced.TARGET) if variant == "native" else "",
            )
        yield table
    if results["cpu"] is None:
        yield "Not pinned: there is no second processor here, and the tails say so."


def paced_check(results: dict[str, Any]) -> list[Check]:
    """Hold the native backend's tail, and its completeness, against the targets."""
    rows = paced.summary(results)
    found: list[Check] = []
    if "native" in rows and "bare" in rows:
        tail = rows["native"]["ratio_least"]["p99.9"]
        found.append(suite.Check("native", "paced p99.9 to plain", tail, paced.TARGET, tail <= paced.TARGET))
        for number, run in enumerate(results["runs"]["native"], 1):
            lost = run["spans"] - run["accounts"]["sampled_out"] - run["accounts"]["exported"]
            found.append(suite.Check("native", f"paced, spans not drained, round {number}", lost, 0, lost == 0))
    return found


def export_tables(results: dict[str, Any]) -> Iterator[RenderableType]:
    """What ``export.run`` gave: CPU time a span, and how many times that the SDK takes."""
    table = _table(
        f"CPU time a span, drained, encoded, sent to a live receiver, {results['rounds']} × {results['seconds']:g} s; "
        "spans a request, bytes a span",
        "", "µs", "95 %", "target", "SDK to it", "95 %", "batch", "bytes",
    )  # fmt: skip
    for name, row in export.summary(results).items():
        cost, times, target = row["span_ns"], row["sdk_to_it"], row["target_ns"]
        table.add_row(
            export.VARIANTS[name].label,
            _micros(cost["estimate"]),
            f"{_micros(cost['low'])}–{_micros(cost['high'])}",
            "" if target is None else _target(f"≤ {target / 1000:g}", met=cost["estimate"] <= target),
            "" if times is None else f"{times['estimate']:.1f}",
            "" if times is None else f"{times['low']:.1f}–{times['high']:.1f}",
            f"{row['spans_a_request']:,.0f}",
            f"{row['bytes_a_span']:,.0f}",
        )
    yield table
