"""Tables of what a program did under pressure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_trading.impact.report import number, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType


def tables(results: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Kind by kind, then the trials."""
    shown = table("Under pressure", "", "expected", "reached", "after, s", "limit", "back after, s", "score")
    for one in results["pressures"]:
        mark = "[green]" if one["as_expected"] and one["recovered"] else "[red]"
        modes = [mode for _, mode in one["changes"]]
        shown.add_row(
            one["label"],
            " or ".join(one["expected"]),
            f"{mark}{one['mode'] if one['applied'] else 'not applied'}[/]",
            _seconds(one["adapt_s"]),
            f"≤ {one['adapt_limit_s']:g}" if one["adapt_limit_s"] else "",
            _seconds(one["recovery_s"]) if one["recovered"] else "[red]not[/]" if modes else "",
            number(one["score"]),
        )
    yield shown
    yield _meanwhile(results)
    for one in results["pressures"]:
        yield from _notes(one)
    if results["score"] is not None:
        yield f"Score: {number(results['score'])} of 100"
    if results["trials"]:
        yield _trials(results["trials"])


def _meanwhile(results: Mapping[str, Any]) -> RenderableType:
    shown = table(
        "Meanwhile: tick to order, µs, from when it was due; monitoring by its own meter; spans lost",
        "", "p50 before", "p50", "p99 before", "p99", "CPU, %", "sent, kbit/s", "steps", "lost",
    )  # fmt: skip
    for one in results["pressures"]:
        readings = one["readings"]
        shown.add_row(
            one["label"],
            *(_micros(one[when], point) for point in ("p50", "p99") for when in ("before", "during")),
            number(100.0 * readings["usage"]["cpu"]),
            number(8e-3 * readings["usage"]["network"]),
            str(readings["steps"]),
            str(one["lost_spans"]),
        )
    return shown


def _notes(one: Mapping[str, Any]) -> Iterator[str]:
    if not one["calm"]:
        yield f"{one['label']}: the mode was not NORMAL before, the machine is busy with other things."
    if not one["applied"]:
        told = one["pressure"]
        yield (
            f"{one['label']}: not reached, {told.get('bytes', 0) / 1e6:,.0f} MB were taken and the load was "
            f"{told.get('load', 0.0):.2f}. Allow more with --memory-limit."
        )
    if one["name"] == "high_memory" and not one["pressure"].get("in_a_group"):
        yield "Memory was short for the whole machine: a control group could not be made."


def _trials(trials: Mapping[str, Any]) -> str:
    mark = "[green]kept[/]" if trials["met"] else "[red]exceeded[/]"
    times = ", ".join(f"{name} {1000.0 * trials[f'{name}_s']:.0f} ms" for name in ("p50", "p99", "max"))
    late = sum(value is None for value in trials["emergency_s"])
    missed = f"; EMERGENCY was not reached in {late}" if late else ""
    return (
        f"From pressure to a new mode, {trials['count']} trials: {times}; target for p99 "
        f"{1000.0 * trials['target_s']:.0f} ms: {mark}{missed}"
    )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _micros(report: Mapping[str, Any], point: str) -> str:
    found = report["order_ns"]
    return "" if found is None else number(found[point] / 1000.0)
