"""Rules on what goes on, or no longer: CPU, the program's loops, its queue, market data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_trading.forensics import trends
from otel_trading.forensics.finding import Finding
from otel_trading.forensics.memory_rules import in_the_queue, leak, megabytes, rise_of

if TYPE_CHECKING:
    from otel_trading.forensics.signs import Series, Signs

_SIGXCPU = 24
_QUEUE = 10_000.0
_CPU = 0.95
_AGE = 5.0
_LATELY = 10.0  # seconds before the end
_LOOKS = 3  # that agree, of one a second
_MUCH, _DOUBLED = 0.5, 1.0  # growth as a share
_MOSTLY = 0.8  # share of the looks
_SOME_CPU = 0.1  # cores
_FOR_NOTHING = 0.75  # confidence
_IDLE = 0.6  # of a core: a program that waits for something
_WENT_ON = 3.0  # seconds in which a program that is not stuck does something
_STOOD = 2.0  # seconds in which one that is stuck may have done its last
_UPDATES = 5  # of market data, that tell how often it comes


def _busy_since(signs: Signs) -> tuple[float, int]:
    """Give (seconds before the end since when looks found a core in use, how many); one look may say otherwise."""
    load = signs.figure(signs.cpu_load)
    enough = 0.6 if load is not None and load >= _CPU else 0.85  # on a busy machine nobody gets a whole core
    since, looks, spared = 0.0, 0, 1
    for t, value in reversed(signs.process_cpu):
        if value < enough:
            if not spared or not looks:
                break
            spared -= 1
            continue
        since, looks = t, looks + 1
    return since, looks


def _standing_since(signs: Signs) -> float | None:
    """Give since when nothing was recorded, seconds before the end, by three looks or more; None where it is not so.

    A program that seldom records anything is not standing still.
    """
    rates = [rate for _, rate in signs.spans]
    usual = trends.median(rates)
    standing = [t for t, _ in _trailing(signs.spans, 0.1 * usual)] if usual > 0.0 else []
    early = rates[: len(rates) - len(standing)]
    if len(standing) < _LOOKS or sum(rate > 0.1 * usual for rate in early) < _MOSTLY * len(early):
        return None
    return standing[0]


def _trailing(series: Series, most: float) -> Series:
    """Take the newest points of a series as long as none is above ``most``."""
    taken: Series = []
    for point in reversed(series):
        if point[1] > most:
            break
        taken.append(point)
    return taken[::-1]


def _for_nothing(signs: Signs) -> tuple[float, float, float] | None:
    """Find that CPU is used and nothing comes of it: (since, cores then, cores before); None where it is not so.

    On a busy machine a loop without end does not get a core, but more than the program took for all its work before.
    """
    since = _standing_since(signs)
    if since is None:
        return None
    now = trends.median([value for t, value in signs.process_cpu if t > since] or [0.0])
    before = signs.usual_cpu(since - 1.0)
    if before is None or now < max(_SOME_CPU, 4.0 * before):
        return None
    return since, now, before


def _fallen(signs: Signs, since: float) -> str:
    """Say that less was done since; "" where it was not."""
    series = ("market data", signs.updates), ("spans", signs.spans)
    fallen = [what for what, rates in series if signs.fell(rates, since)]
    return f"{' and '.join(fallen)} came in less than half as often meanwhile" if fallen else ""


def cpu_exhaustion(signs: Signs) -> Finding | None:
    """It takes a whole core, or the machine has none left, and gets less done than before."""
    if signs.end.signal == _SIGXCPU:
        return Finding("cpu_exhaustion", 0.95, ["it used up the CPU time that it may have (SIGXCPU)"], certain=True)
    since, looks = _busy_since(signs)
    confidence, told = 0.0, []
    if looks >= _LOOKS:
        usual = signs.usual_cpu(since - 1.0)
        values = [value for t, value in signs.process_cpu if t >= since]
        told.append(f"it used {trends.median(values):.2f} cores in the last {-since:.0f} s")
        confidence = 0.2
        if usual is not None:
            told[0] += f", and {usual:.2f} before"
            confidence = 0.6 if usual < _IDLE else 0.2  # one that always polls is not exhausted
        fallen = _fallen(signs, since - 0.5)
        if fallen:
            told.append(fallen)
            confidence = max(confidence + 0.2, 0.55)
        names, _, late = signs.late_beats()
        if names:
            told.append(f"loop {', '.join(names)} was {late:.0f} s late while the CPU was busy")
            confidence += 0.1
    standing = _for_nothing(signs)
    if standing is not None and confidence < _FOR_NOTHING:
        since, now, before = standing
        told.append(
            f"nothing was recorded in the last {-since:.0f} s, and it used {now:.2f} cores, {before:.2f} before"
        )
        confidence = _FOR_NOTHING
    loads = [value for t, value in signs.cpu_load if t >= -_LATELY]
    if len(loads) >= _LOOKS and sum(value > _CPU for value in loads) >= 0.8 * len(loads):
        told.append(f"of all CPU that it may use {trends.median(loads):.0%} were in use in the last {len(loads)} looks")
        fallen = _fallen(signs, -_LATELY)
        if confidence or not fallen:  # a machine that is busy with others, and no harm done, says little
            confidence = max(confidence + 0.1, 0.25)
        else:
            told.append(fallen)
            confidence = 0.6
    return Finding("cpu_exhaustion", min(confidence, 0.95), told) if told else None


def hang(signs: Signs) -> Finding | None:
    """A loop's heartbeat was late while the process lived; or, without one, a span that should have ended long ago."""
    busy = _LOOKS if _for_nothing(signs) is not None else _busy_since(signs)[1]
    names, looks, late = signs.late_beats()
    if names:
        told = [f"the heartbeat of loop {', '.join(names)} was late for {late:.0f} s while the process lived"]
        cpu = signs.figure(signs.process_cpu)
        if cpu is not None:
            told.append(f"it used {cpu:.2f} cores then")
        confidence = 0.9 if looks > 1 or (signs.evidence.alive and late > 1.0) else 0.6
        return Finding("hang", 0.45 if busy >= _LOOKS else confidence, told)
    if signs.evidence.life.get("beats"):
        return None
    stuck = signs.stuck()
    if stuck is None:
        since = _standing_since(signs)
        return None if since is None else Finding("hang", 0.35, [f"nothing was recorded in the last {-since:.0f} s"])
    span, took, usual = stuck
    told = [f"span {span.name} was open for {took:.1f} s, where the longest before took {usual:.3g} s"]
    if signs.active_after(-took) > _STOOD:  # something else went on
        return Finding("hang", 0.3, told)
    told.append("nothing else was recorded since")
    return Finding("hang", 0.3 if busy >= _LOOKS else 0.65, told)


def queue_overflow(signs: Signs) -> Finding | None:
    """More than 10,000 items wait, and ever more."""
    last = [value for _, value in signs.queue[-10:]]
    if not last:
        return None
    now = trends.median(last[-3:])
    rise = rise_of(signs.queue, 4)
    full = (signs.end.exception or "").rpartition(".")[2] in {"Full", "QueueFull", "WouldBlock"}
    told = [f"{now:,.0f} items were in the queue" + (f" {signs.evidence.life['queue']}" if _named(signs) else "")]
    if rise is not None:
        told.append(
            f"it rose from {max(rise.begin, 0.0):,.0f} in the last {rise.seconds:.0f} s, {rise.slope:,.0f} a second"
        )
    if full and rise is not None:
        return Finding("queue_overflow", 0.9, [*told, f"it ended by an uncaught {signs.end.exception}"], certain=True)
    if now > _QUEUE:
        if rise is None or rise.relative < _MUCH:
            return Finding("queue_overflow", 0.3, told)
        memory = leak(signs)
        held = in_the_queue(signs, memory[0]) if memory[0] is not None else None
        if held is not None:
            told.append(f"{held}, of a rise in memory of {megabytes(memory[0].change) if memory[0] else ''}")
        return Finding("queue_overflow", 0.9 if held and memory[2] else 0.8, told, certain=bool(held and memory[2]))
    if rise is not None and now > 0.1 * _QUEUE:
        return Finding("queue_overflow", 0.3, told)
    return None


def _named(signs: Signs) -> bool:
    return bool(signs.evidence.life.get("queue"))


def market_data_disconnect(signs: Signs) -> Finding | None:
    """Market data stopped, while the program went on."""
    age = signs.data_age()
    total = sum(int(one.get("updates") or 0) for one in signs.evidence.markets)
    if age is None or age <= _AGE or total < _UPDATES:
        return None
    symbols = len(signs.evidence.markets)
    told = [f"the newest market data was {age:.1f} s old ({total:,} updates of {symbols} symbols before)"]
    gap = signs.usual_gap(-age)
    usual = gap if gap is not None else max(signs.lived - age, 0.0) / total * 3.0
    if age < 3.0 * usual:
        return Finding("market_data_disconnect", 0.2, [*told, f"gaps of {usual:.1f} s had been there before"])
    told.append(
        f"it had never been later than {usual:.2g} s" if gap is not None else f"it used to come each {usual / 3:.2g} s"
    )
    went_on = signs.active_after(-age)
    beats = [one for one in signs.evidence.life.get("beats") or [] if one.get("late_ns")]
    if beats and not signs.late_beats()[0] and signs.pulses:
        told.append("the program's loop went on: its heartbeat was in time")
        return Finding("market_data_disconnect", 0.85, told)
    if went_on >= _WENT_ON:
        told.append(f"the program went on for {went_on:.0f} s after it: spans or events were recorded")
        return Finding("market_data_disconnect", 0.85, told)
    told.append("nothing else was recorded since, so the whole program may have stood still")
    return Finding("market_data_disconnect", 0.45, told)
