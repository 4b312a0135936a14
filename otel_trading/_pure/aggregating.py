"""The drain's first half: adds up what a ring has that was not seen yet, and notes what traces are worth keeping."""

from __future__ import annotations

import time

from otel_trading import _layout as at
from otel_trading._pure.aggregate import Aggregate
from otel_trading._pure.copies import SLOT, Copy, Found, copied, is_moving
from otel_trading._pure.deciding import BATCH, SEEN_ONLY, count, is_sampled, put, settle, sort
from otel_trading._pure.kept import depth_of
from otel_trading._pure.recorder import MASK
from otel_trading._pure.traces import REMOTE, TRIGGER
from otel_trading._pure.writer import ARENA, COUNT, EXTRA, FLAGS, HEAD, SPAN, STATE, VALUES_WRITTEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.passes import Drain
    from otel_trading._pure.writer import Writer

_LOOKS = 64
_BACKLOG_MAX = at.OFF_RING_BACKLOG_MAX // 8


def aggregate(drain: Drain, file: SegmentFile, writer: Writer) -> int:
    """Add up a ring's new records, and decide on them where that can be done at once; gives how many there were."""
    ring, cursor = writer.ring, drain.cursor(writer)
    written = written_of(writer) or _as_near_as(drain, writer)
    if written is None:
        return 0  # the next pass finds out
    head, recorded, values = written
    seen = cursor.seen
    backlog: int = head - seen
    if backlog <= 0:
        return 0
    handled = 0
    first = max(seen, head - writer.capacity)
    while first < head:
        mask = writer.mask
        copy = copied(writer, first, min(BATCH, head - first))  # one copy, with the GIL held
        number = len(copy.lows)
        copy.time()
        found = _sort(drain, file, copy)
        with drain.lock:
            if is_moving(writer):
                return handled
            if cursor.seen != seen or writer.mask != mask:  # somebody else has drained it
                seen = cursor.seen
                first = max(seen, head - writer.capacity)
                continue
            handled += first + number - seen
            at_once = drain.at_once and cursor.tail == seen
            seen = first + number
            cursor.see(seen)
            if at_once:
                cursor.decide(seen)
            ring[_BACKLOG_MAX] = max(ring[_BACKLOG_MAX], backlog)
            _add(drain, writer, copy, found)
            if drain.rules.active and drain.exporting(file):
                _note(drain, copy, found)
                if not at_once:
                    _wait(drain, copy, found)
            if at_once:
                codes, kinds = sort(drain, cursor, copy)
                if drain.rules.active and drain.exporting(file):
                    settle(drain, copy, kinds, patient=True)
                put(drain, file, writer, copy, kinds, codes, waited=False)
            drain.rules.traces.bound()
            if seen == head:  # what was written and not read is gone
                drained = cursor.drained
                # Never below nothing: a tracer (coverage, a debugger) runs code between any two statements, a
                # collection in it records its pause there, and two records may be counted as each other.
                lost = [max(0, a - b) for a, b in zip(recorded, drained)]  # noqa: B905  the last is values
                writer.overwritten = lost
                writer.values_overwritten = max(0, values - drained[at.TIERS])
        first += number
    return handled


def written_of(writer: Writer) -> tuple[int, list[int], int] | None:
    """Give a ring's head, its spans a tier, and its values, as they were at one moment; None where it never rests."""
    for _ in range(_LOOKS):
        head, *recorded, values = writer.ring[HEAD : VALUES_WRITTEN + 1].tolist()
        if sum(recorded) + values == head:
            return head, recorded, values
        time.sleep(0)
    return None


def _as_near_as(drain: Drain, writer: Writer) -> tuple[int, list[int], int] | None:
    """Give what stands there, where the writer is another process, which may have been killed in between."""
    if drain.adopted is None:
        return None
    head, *recorded, values = writer.ring[HEAD : VALUES_WRITTEN + 1].tolist()
    return head, recorded, values


def _sort(drain: Drain, file: SegmentFile, copy: Copy) -> list[Found]:
    """Tell what is in a copy."""
    exports = file.words[drain.SWITCHES] & at.SWITCH_EXPORT
    threshold = file.words[drain.THRESHOLD]
    rules = drain.rules
    thresholds = rules.thresholds if rules.active else [threshold] * at.TIERS
    found = []
    most = len(drain.tables.probes)
    for state, places in copy.kinds().items():
        if state & STATE == SPAN and state & 0xFFFF >= most:  # of a damaged file: none of its spans goes anywhere
            continue
        taken = places
        tier = state >> 56 & at.TIERS - 1
        if not exports or state >> FLAGS & at.FLAG_UNSAMPLED:
            taken = []
        elif thresholds[tier]:
            lows, least = copy.lows, thresholds[tier]
            taken = [place for place in places if lows[place] & MASK >= least]
        found.append(Found(copy, state, places, taken, drain.clock, drain.tables))
    return found


def _add(drain: Drain, writer: Writer, copy: Copy, found: list[Found]) -> None:
    """With the lock held: count."""
    classes, cursor, tables = drain.classes, drain.cursor(writer), drain.tables
    counts = cursor.aggregated
    parents = copy.parents()
    for group in found:
        size = group.count
        if not group.is_span:
            cursor.drain(at.TIERS, size)
            classes[at.COST_VALUE] += size
            if group.probe < len(tables.instruments):
                _feed(drain.instruments, group)
            continue
        cursor.drain(group.tier, size)
        _feed(drain.probes, group)
        flags = group.state >> FLAGS
        if flags & at.FLAG_UNSAMPLED:
            drain.sampled_out[group.tier] += size
        else:
            counts[group.tier] += size
        kind = at.COST_SPAN
        if flags & at.FLAG_LEAF:
            kind = at.COST_FLAT
        elif tables.probes[group.probe].scope:
            kind = at.COST_API
        classes[kind] += size
        if group.state & EXTRA:
            classes[at.COST_ATTRIBUTE] += size * (group.state >> COUNT & 0xFF)
            if drain.rules.active:
                words = copy.words
                links = [words[SLOT * place + ARENA] for place in group.places]
                classes[at.COST_BLOCK] += sum(depth_of(writer, link) for link in links if link)
        if flags & at.FLAG_REMOTE_PARENT:
            drain.operations += size
        elif size == len(parents):
            drain.operations += parents.count(0)
        else:
            drain.operations += [parents[place] for place in group.places].count(0)


def _feed(aggregates: dict[int, Aggregate], group: Found) -> None:
    aggregate = aggregates.get(group.probe)
    if aggregate is None:
        aggregate = aggregates[group.probe] = Aggregate()
    aggregate.second.add(group.batch)
    aggregate.sla_breaches += group.sla_breaches
    aggregate.errors += group.count * (group.state >> 24 & 0xFF == at.STATUS_ERROR)
    for exemplar in group.exemplars:
        aggregate.remember(exemplar)


def note(drain: Drain, copy: Copy) -> None:
    """With the lock held: remember the traces of spans that another drain has aggregated, and that wait for verdicts.

    Of what was decided on there is nothing to be remembered: the copy is to show none of it.
    """
    copy.time()
    found = [
        Found(copy, state, places, places, drain.clock, drain.tables)
        for state, places in copy.kinds().items()
        if is_sampled(state) and state & 0xFFFF < len(drain.tables.probes)
    ]
    _note(drain, copy, found)
    _wait(drain, copy, found)


def _note(drain: Drain, copy: Copy, found: list[Found]) -> None:
    """With the lock held: remember the spans' traces, and which of them have a reason to be kept."""
    rules, lows = drain.rules, copy.lows
    parents = copy.parents()
    for group in found:
        flags = group.state >> FLAGS
        if not group.is_span or flags & at.FLAG_UNSAMPLED:
            continue
        whole = group.count == len(lows)
        own = lows if whole else [lows[place] for place in group.places]
        remote = flags & at.FLAG_REMOTE_PARENT
        bits = 1 << group.tier | (REMOTE if remote else 0)
        rules.note(own, parents if whole else [parents[place] for place in group.places], bits)
        if remote and not rules.at_once:
            rules.ask(own, [copy.words[SLOT * place + 1] for place in group.places])
        always = rules.by_record(group.probe, group.state >> 24 & 0xFF, flags & 0xFF)
        if always:
            _trigger(drain, copy, group.places, always)
        if group.sla_breaches:
            late = group.longer(drain.tables.probes[group.probe].sla_ns)
            _trigger(drain, copy, late, 1 << TRIGGER + at.TRIGGER_SLA)
        slow = rules.slow.get(group.probe)
        if slow is not None:
            _trigger(drain, copy, group.longer(slow), 1 << TRIGGER + at.TRIGGER_SLOW)


def _wait(drain: Drain, copy: Copy, found: list[Found]) -> None:
    """With the lock held: count what waits for a verdict."""
    lows, get = copy.lows, drain.rules.traces.get
    for group in found:
        if is_sampled(group.state):
            words = [get(lows[place], 0) for place in group.places]
            count(drain, copy, group.state, group.places, words, SEEN_ONLY)


def _trigger(drain: Drain, copy: Copy, places: list[int], triggers: int) -> None:
    for place in places:
        drain.rules.trigger(copy.lows[place], copy.words[SLOT * place + 1], triggers)
