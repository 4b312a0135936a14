"""What a record costs the thread that makes it, measured in this very process before it records.

A record between other work runs slower than one in a tight loop: its code and data are no longer in the nearest caches.
So some thousand Python objects are touched before each timed record, which makes the figures those of a program whose
ticks are some microseconds apart.  How near that comes to the truth is what ``otel-trading impact`` tells.
"""

from __future__ import annotations

import gc
import os
import sys
from time import perf_counter_ns, sleep

from otel_trading._backend import core
from otel_trading.budget.modes import COSTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading._backend import Counter, Probe

_LOOKS = 5  # the least of them counts: whoever shares the core may be busy for some milliseconds
_PAUSE = 0.004  # seconds between them
_LIMIT_NS = 1_800_000  # of a look
_ROUNDS = 16
_FEWEST = 4
_OBJECTS = 12_000  # some 400 kB with the lists that hold them
_TOUCHED = 600  # of them, before each record
_LIMITS = (128, 128, 128, 128, 128, 0xFFFFFFFF, 0xFFFFFFFF)
_LONG_TEXT = "x" * 200  # goes to the arena, as an event or a link does

_known: dict[str, float] = {}


def costs(probe: Probe, counter: Counter) -> dict[str, float]:
    """Give the seconds that each of ``modes.COSTS`` takes here; measured at the first call, and remembered.

    The records go to an anonymous segment that is gone afterwards, so no segment may be open; ``probe`` and
    ``counter`` are any of the package's own, and what they record here is nowhere to be seen later.  An event, a
    link and a long attribute are "block"; "attribute" is one of up to four short ones; "value" an observation of a
    histogram; "update" of a counter or a gauge.  Takes some 25 ms, most of them asleep, once a process.

    Raises OSError where there is no room for the segment, and RuntimeError where one is open.
    """
    if not _known:
        _known.update(_measure(probe, counter))
    return dict(_known)


def _measure(probe: Probe, counter: Counter) -> dict[str, float]:
    fd = _anonymous()
    try:
        core.open(fd, b"{}", 1024, 16, 64, 1 << 17, 64, 16, _LIMITS)
    finally:
        os.close(fd)
    collecting = gc.isenabled()
    gc.disable()
    try:
        looks = _look(_forms(probe, counter))
    finally:
        if collecting:
            gc.enable()
        core.close()
    nanoseconds = {name: min(_lower_quartile(look[name]) for look in looks) for name in looks[0]}
    empty = nanoseconds["empty"]
    span = nanoseconds["span"] - empty
    found = {
        "flat": nanoseconds["flat"] - empty,
        "span": span,
        "api": nanoseconds["api"] - empty,
        "attribute": (nanoseconds["attributes"] - empty - span) / 4,
        "block": nanoseconds["block"] - empty - span,
        # An observation is what the end of a collection records; its beginning only reads the clock.
        "value": nanoseconds["pause"] - nanoseconds["pauses"] / 2 - empty / 2,
        "update": nanoseconds["update"] - empty,
        "market": nanoseconds["market"] - empty,
    }
    return {kind: max(0.0, found[kind]) * 1e-9 for kind in COSTS}


def _anonymous() -> int:
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        return os.memfd_create("otel-trading-calibration", os.MFD_CLOEXEC)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _forms(probe: Probe, counter: Counter) -> dict[str, Callable[[], int]]:
    """One of each kind between two looks at the clock; as functions, as it is functions that have probes in them."""
    now = perf_counter_ns
    from otel_trading.market import market_data

    start, stop, add, pause = probe.start, probe.stop, counter.add, core.gc_callback
    # No tracer of the program's: its spans count for our own probe, and need nothing of OpenTelemetry's API.
    scope = core.Tracer("", lambda _name, _kind, _tier: probe).start_as_current_span
    name = probe.name
    info: dict[str, int] = {}

    def empty() -> int:
        begin = now()
        return now() - begin

    def flat() -> int:
        begin = now()
        token = start()
        stop(token)
        return now() - begin

    def span() -> int:
        begin = now()
        with probe:
            pass
        return now() - begin

    def api() -> int:
        begin = now()
        with scope(name):
            pass
        return now() - begin

    def attributes() -> int:
        begin = now()
        with probe.span(symbol="BTCUSDT", side="buy", price=1.5, quantity=2.0):
            pass
        return now() - begin

    def block() -> int:
        begin = now()
        with probe.span(text=_LONG_TEXT):
            pass
        return now() - begin

    def update() -> int:
        begin = now()
        add(1)
        return now() - begin

    def pause_() -> int:
        begin = now()
        pause("start", info)
        pause("stop", info)
        return now() - begin

    def pauses() -> int:
        begin = now()
        pause("start", info)
        pause("start", info)
        return now() - begin

    def market_() -> int:
        begin = now()
        market_data("BTCUSDT", 1_700_000_000_000, 1.5, 2.0)
        return now() - begin

    functions = (empty, flat, span, api, attributes, block, update, pauses, pause_, market_)
    return {function.__name__.rstrip("_"): function for function in functions}


def _look(forms: dict[str, Callable[[], int]]) -> list[dict[str, list[int]]]:
    """Time the forms several times, asleep in between."""
    objects = [float(number) for number in range(_OBJECTS)]
    portions = [objects[at : at + _TOUCHED] for at in range(0, _OBJECTS, _TOUCHED)]
    found = []
    for number in range(_LOOKS):
        if number:
            sleep(_PAUSE)
        found.append(_time(forms, portions, perf_counter_ns() + _LIMIT_NS))
    return found


def _time(forms: dict[str, Callable[[], int]], portions: list[list[float]], deadline: int) -> dict[str, list[int]]:
    """Run each form once a round, with other work before it, for as many rounds as there is time for."""
    taken: dict[str, list[int]] = {name: [] for name in forms}
    pairs = [(form, taken[name].append) for name, form in forms.items()]
    for form in forms.values():
        form()  # what a first call makes once
    turn = 0
    for done in range(_ROUNDS):
        for form, note in pairs:
            sum(portions[turn % len(portions)])
            turn += 1
            note(form())
        core.drain()  # as the drain does in a program, so that the ring is never full
        if perf_counter_ns() > deadline and done + 1 >= _FEWEST:
            break
    return taken


def _lower_quartile(values: list[int]) -> float:
    """Not the mean: on a machine with neighbours half of the values, and more, may have been held up."""
    return float(sorted(values)[len(values) // 4])
