"""Time statements in interleaved blocks, so that a ratio compares neighbours in time and not two moods of the machine.

One *group* is a few blocks of some 20 ms each, in random order: an empty loop, the floor (two bare
``time.perf_counter_ns()`` calls), the form, and what the form is compared with (the same function undecorated;
the empty loop by default).  The cost of the form in floors is::

    (form - baseline) / (floor - empty)

Only the standard library is needed here: benchmarks/peers.py loads this file by its path into environments where
otel-trading is not installed.
"""

from __future__ import annotations

import gc
import linecache
import random
import sys
import time
import tracemalloc
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

UNROLL = 10
"""Copies of the statement in the loop's body; what is left of the loop's own cost is subtracted."""

FLOOR = "now(); now()"
EMPTY = ""


@dataclass(frozen=True)
class Form:
    """A way to record, as source text.

    ``statement`` and ``baseline`` see ``names`` as local variables, the cheapest there are, so that what is timed
    is the call and not the look-up.  ``around`` is the header of a ``with`` in which the loop runs.  ``before`` and
    ``after`` run on both sides of this form's own block, outside the timing.  ``target`` is in floors.
    """

    key: str
    label: str
    statement: str
    names: Mapping[str, object]
    baseline: str = EMPTY
    around: str = ""
    target: float | None = None
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None


@dataclass
class Timing:
    """One form's blocks: nanoseconds for one execution of each statement, an entry a round."""

    form_ns: list[float] = field(default_factory=list)
    baseline_ns: list[float] = field(default_factory=list)
    floor_ns: list[float] = field(default_factory=list)
    empty_ns: list[float] = field(default_factory=list)

    def cost_ns(self) -> list[float]:
        """Nanoseconds that the form adds, a round."""
        return [form - base for form, base in zip(self.form_ns, self.baseline_ns, strict=True)]

    def ratios(self) -> list[float]:
        """The form's cost in floors, a round."""
        floors = [floor - empty for floor, empty in zip(self.floor_ns, self.empty_ns, strict=True)]
        return [cost / floor for cost, floor in zip(self.cost_ns(), floors, strict=True)]


def block(statement: str, names: Mapping[str, object], around: str = "") -> Callable[[int], int]:
    """Compile a function that runs ``statement`` ``UNROLL`` times a loop and gives the nanoseconds of all its loops."""
    locals_ = "".join(f", {name}=__names[{name!r}]" for name in names)
    indent = "    " * (2 if around else 1)
    body = [line for _ in range(UNROLL) for line in (statement or "pass").splitlines()] if statement else ["pass"]
    lines = [f"def block(loops, now=__now, repeat=__repeat{locals_}):"]
    if around:
        lines.append(f"    with {around}:")
    lines += [f"{indent}begin = now()", f"{indent}for _ in repeat(None, loops):"]
    lines += [f"{indent}    {line}" for line in body]
    lines += [f"{indent}end = now()", "    return end - begin"]
    space: dict[str, object] = {"__now": time.perf_counter_ns, "__repeat": repeat, "__names": dict(names)}
    # Some peers look their caller's source up; without one they would be slower here than in a program.
    source = "\n".join(lines) + "\n"
    file = f"<block {len(linecache.cache)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), space)  # noqa: S102  the text is this program's own
    made: Callable[[int], int] = space["block"]  # type: ignore[assignment]
    return made


def loops_for(run: Callable[[int], int], block_ns: int) -> int:
    """Find how many loops take about ``block_ns``, warming ``run`` up on the way."""
    loops = 1
    while True:
        taken = run(loops)
        if taken >= block_ns // 4 or loops >= 1 << 28:
            return max(1, round(loops * block_ns / max(taken, 1)))
        loops *= 4


class _Block:
    """A compiled statement and the number of loops that fill its block."""

    def __init__(self, statement: str, names: Mapping[str, object], around: str, block_ns: int) -> None:
        self.run = block(statement, names, around)
        self.loops = loops_for(self.run, block_ns)

    def ns(self) -> float:
        """Nanoseconds for one execution of the statement."""
        return self.run(self.loops) / (self.loops * UNROLL)


def measure(
    forms: Sequence[Form],
    *,
    rounds: int,
    block_ns: int,
    seed: int = 0,
    between: Callable[[], object] | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Timing]:
    """Run ``rounds`` rounds of one group a form, forms and blocks in random order; give the timings by form's key.

    ``between`` runs after each group, untimed.  The garbage collector stays on, as in a program; what was there
    before is frozen out of its sight.
    """
    shuffle = random.Random(seed).shuffle  # noqa: S311  an order, not a secret
    empty = _Block(EMPTY, {}, "", block_ns)
    floor = _Block(FLOOR, {}, "", block_ns)
    compiled: dict[str, tuple[_Block, _Block]] = {}
    for form in forms:
        _call(form.before)
        timed = _Block(form.statement, form.names, form.around, block_ns)
        _call(form.after)
        base = _Block(form.baseline, form.names, form.around, block_ns) if form.baseline else empty
        compiled[form.key] = (timed, base)
    timings = {form.key: Timing() for form in forms}
    gc.collect()
    gc.freeze()
    order = list(forms)
    for done in range(rounds):
        shuffle(order)
        for form in order:
            timed, base = compiled[form.key]
            timing = timings[form.key]
            parts: list[tuple[_Block, list[float]]] = [(timed, timing.form_ns), (floor, timing.floor_ns)]
            parts += [(empty, timing.empty_ns)]
            if base is not empty:
                parts += [(base, timing.baseline_ns)]
            shuffle(parts)
            for part, results in parts:
                if part is timed:
                    _call(form.before)
                results.append(part.ns())
                if part is timed:
                    _call(form.after)
            if base is empty:
                timing.baseline_ns.append(timing.empty_ns[-1])
            _call(between)
        if progress is not None:
            progress(done + 1)
    gc.unfreeze()
    return timings


def _call(function: Callable[[], object] | None) -> None:
    if function is not None:
        function()


@dataclass(frozen=True)
class Allocations:
    """What ``records`` executions of a form did to the heap, the same loop without the form subtracted.

    ``left_blocks``: blocks of Python's allocator that are still there.  ``peak_bytes``: most bytes that tracemalloc
    saw at one moment; 0 means that nothing was allocated at all (a float or a context taken from Python's own free
    lists is not an allocation).  ``collections``: runs of the garbage collector that it brought about.
    """

    records: int
    left_blocks: int
    left_bytes: int
    peak_bytes: int
    collections: int


def allocations(form: Form, records: int) -> Allocations:
    """Count what ``form`` allocates.  The traced part runs a hundredth of ``records``, as tracing is slow."""
    _call(form.before)
    run = block(form.statement, form.names, form.around)
    idle = block(EMPTY, form.names, form.around)
    loops = max(1, records // UNROLL)
    run(100)  # what a first call makes once is not a record's cost
    idle(100)
    blocks, collections = _heap(run, loops)
    idle_blocks, idle_collections = _heap(idle, loops)
    few = max(10, loops // 100)
    left, peak = _traced(run, few)
    idle_left, idle_peak = _traced(idle, few)
    _call(form.after)
    return Allocations(
        records=loops * UNROLL,
        left_blocks=blocks - idle_blocks,
        left_bytes=left - idle_left,
        peak_bytes=max(0, peak - idle_peak),
        collections=collections - idle_collections,
    )


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def _heap(run: Callable[[int], int], loops: int) -> tuple[int, int]:
    gc.collect()
    collections = _collections()
    blocks = sys.getallocatedblocks()
    run(loops)
    after = sys.getallocatedblocks()
    return after - blocks, _collections() - collections


def _traced(run: Callable[[int], int], loops: int) -> tuple[int, int]:
    gc.collect()
    tracemalloc.start()
    try:
        run(10)  # tracemalloc's own first entries
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        run(loops)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before
