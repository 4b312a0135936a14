"""Everything that is measured without a load: forms, the drain's rate, memory, import time; and the targets."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_trading.bench import children, machine
from otel_trading.bench.api_forms import SDK
from otel_trading.bench.forms import ALLOCATE_NOTHING
from otel_trading.bench.intervals import Interval, median, ratio_of_medians
from otel_trading.bench.measure import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BACKENDS = ("native", "pure")
DRAIN_TARGET = 2_000_000
"""Spans a second that the native drain handles on one core."""
MEMORY_TARGET = 30e6
"""Bytes that recording adds to an idle process, ring included."""
STARTS = 5
"""Fresh processes whose memory and import time are looked at."""


class Effort(NamedTuple):
    """How long to measure.  ``records``: of the allocation counts, by backend.  ``slots``: of the drained ring."""

    rounds: int
    block_ns: int
    records: dict[str, int]
    drain_rounds: int
    slots: int


FULL = Effort(25, 20_000_000, {"native": 1_000_000, "pure": 1_000_000}, 9, 131_072)
QUICK = Effort(3, 1_000_000, {"native": 20_000, "pure": 1_000}, 2, 1_024)


class Check(NamedTuple):
    """A target and what was measured: ``met`` tells whether it is kept."""

    backend: str
    what: str
    measured: float
    target: float
    met: bool


def run(
    effort: Effort,
    backends: Sequence[str] = BACKENDS,
    progress: Callable[[str, int], object] | None = None,
) -> dict[str, Any]:
    """Measure the backends one after the other; a native one that is not built is named in ``missing``.

    Raises BenchmarkError where a child fails.
    """
    missing = ["native"] if "native" in backends and not children.has_native() else []
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "effort": effort._asdict(),
        "missing": missing,
        "forms": {},
        "api": {},
        "drain": {},
        "footprint": {},
    }
    for backend in backends:
        if backend in missing:
            continue

        def step(done: int, backend: str = backend) -> None:
            if progress is not None:
                progress(backend, done)

        options: dict[str, Any] = {
            "rounds": effort.rounds,
            "block_ns": effort.block_ns,
            "allocation_records": effort.records[backend],
        }
        results["forms"][backend] = children.task("forms", options, backend=backend, progress=step)["forms"]
        results["api"][backend] = _api(backend, effort, backend, step)
        options = {"rounds": effort.drain_rounds, "slots": effort.slots}
        results["drain"][backend] = children.task("drain", options, backend=backend)
        results["footprint"][backend] = [children.footprint(backend) for _ in range(min(STARTS, effort.drain_rounds))]
    if results["api"]:
        results["api"][SDK] = _api(SDK, effort, None, lambda done: progress and progress(SDK, done))
    return results


def _api(
    name: str, effort: Effort, backend: str | None, progress: Callable[[int], object]
) -> dict[str, dict[str, Any]]:
    options = {"backend": name, "rounds": effort.rounds, "block_ns": effort.block_ns}
    found: dict[str, dict[str, Any]] = children.task("api", options, backend=backend, progress=progress)["forms"]
    return found


def ratio(form: dict[str, Any]) -> Interval:
    """A form's cost in floors."""
    return median(Timing(**form["timing"]).ratios())


def to_stock(form: dict[str, Any], stock: dict[str, Any]) -> Interval:
    """How many times our cost the stock SDK's same form has; in floors, as they ran in different processes."""
    return ratio_of_medians(Timing(**stock["timing"]).ratios(), Timing(**form["timing"]).ratios())


def cost_ns(form: dict[str, Any]) -> Interval:
    """A form's cost in nanoseconds."""
    return median(Timing(**form["timing"]).cost_ns())


def memory(footprints: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Medians of what was added, in bytes; None where the system does not tell."""
    found = [footprint["memory"] for footprint in footprints if "memory" in footprint]
    keys = ("added", "process_added", "segment_allocated", "ring_bytes")
    return {key: statistics.median(one[key] for one in found) for key in keys} if found else None


def checks(results: dict[str, Any]) -> list[Check]:
    """Hold what was measured against the targets."""
    found: list[Check] = []
    for backend, forms in results["forms"].items():
        for key, form in forms.items():
            if form["target"] is not None:
                cost = ratio(form).estimate
                found.append(Check(backend, f"{form['label']}, floors", cost, form["target"], cost <= form["target"]))
            if "allocations" not in form:
                continue
            left = form["allocations"]["left_blocks"]
            # A handful is noise of the interpreter's own (caches that grow once); a leak is one a record.
            few = form["allocations"]["records"] // 1000
            found.append(Check(backend, f"{form['label']}, blocks left behind", left, few, left <= few))
            if backend == "native" and key in ALLOCATE_NOTHING:
                peak = form["allocations"]["peak_bytes"]
                found.append(Check(backend, f"{form['label']}, bytes allocated", peak, 0, peak == 0))
    for backend, forms in results["api"].items():
        for form in forms.values():
            if form["target"] is not None:
                cost = ratio(form).estimate
                label = f"API: {form['label']}, floors"
                found.append(Check(backend, label, cost, form["target"], cost <= form["target"]))
    for backend, footprints in results["footprint"].items():
        added = memory(footprints)
        if added is not None:
            total = added["added"]
            found.append(Check(backend, "memory added, bytes", total, MEMORY_TARGET, total <= MEMORY_TARGET))
    if "native" in results["drain"]:
        rate = statistics.median(results["drain"]["native"]["spans_per_second"]["plain"])
        found.append(Check("native", "drain, spans/s (at least)", rate, DRAIN_TARGET, rate >= DRAIN_TARGET))
    return found
