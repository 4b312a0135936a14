"""The drain's second half: moves a ring's tail, and puts what is kept into the queue."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from time import monotonic_ns

from otel_trading import _layout as at
from otel_trading._pure.copies import SLOT, Copy, copied, is_moving
from otel_trading._pure.keep_rules import SPAN_BYTES
from otel_trading._pure.kept import blocks_of, share
from otel_trading._pure.progress import GONE, KIND, code_of
from otel_trading._pure.recorder import MASK
from otel_trading._pure.room import spare
from otel_trading._pure.traces import BEST_TIER, BY_TRIGGER, DECIDED, KEPT, THRESHOLD, TIERS, TRIGGERS
from otel_trading._pure.writer import ARENA, COUNT, EXTRA, FLAGS, HEAD, SPAN, STATE, TIER, TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.cursors import Cursor
    from otel_trading._pure.kept import Kept
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.passes import Drain
    from otel_trading._pure.spanstate import Block
    from otel_trading._pure.writer import Writer

BATCH = 1024  # records
_ATTRIBUTE_BYTES = 24
_ERROR_BYTES = 60
_TRIGGERED = at.TIERS  # where the bucket counts them
_THRESHOLD_MASK = (1 << at.THRESHOLD_BITS) - 1
_WEIGHT = 0.05  # of the newest in a mean
_NO_BLOCKS: list[Block] = []
_KINDS = TIERS | BY_TRIGGER | TRIGGERS
_place = itemgetter(0)


def decide(drain: Drain, file: SegmentFile, writer: Writer, everything: bool) -> None:  # noqa: FBT001
    """Decide on what has waited long enough in a ring, or on all that was aggregated."""
    ring, cursor = writer.ring, drain.cursor(writer)
    while True:
        mask, tail, seen = writer.mask, cursor.tail, cursor.seen
        if tail >= seen:
            return
        stop, patient = (seen, True) if everything else _bound(drain, cursor, writer, tail)
        if cursor.marks:
            stop = min(stop, cursor.marks[0].position)
        if stop <= tail or is_moving(writer):
            return
        first = max(tail, min(ring[HEAD] - writer.capacity, stop))  # what lies before is overwritten
        copy = copied(writer, first, min(BATCH, stop - first)) if first < stop else None
        with drain.lock:
            if cursor.tail != tail or writer.mask != mask or is_moving(writer):  # somebody else has moved it
                continue
            waits = False
            end = first
            codes, whole = sort(drain, cursor, copy) if copy is not None else (bytearray(), {})
            if copy is not None:
                count = len(copy.lows)
                end += count
                if drain.exporting(file) and drain.rules.active:
                    cut = settle(drain, copy, whole, patient=patient)
                    if cut < count:
                        end, waits = first + cut, True
                        codes = codes[:cut]
                        whole = {state: [p for p in places if p < cut] for state, places in whole.items()}
                if cursor.tail != tail:  # a signal's handler
                    continue
            cursor.decide(end)
            _let_go_on(drain, file, writer, copy, whole, codes, end)
            cursor.reached(end)
            drain.rules.traces.bound()
        if waits:
            return


def _bound(drain: Drain, cursor: Cursor, writer: Writer, tail: int) -> tuple[int, bool]:
    """Tell up to which record the verdict falls now, and whether nobody is waited for any longer."""
    forced = cursor.forced(writer)
    if forced > tail:
        return forced, True
    if not cursor.marks:  # of a pass that is going on
        return tail, False
    age = monotonic_ns() - cursor.marks[0].when_ns
    hold = drain.rules.hold_ns
    return (cursor.marks[0].position, age >= 2 * hold) if age >= hold else (tail, False)


def _let_go_on(
    drain: Drain,
    file: SegmentFile,
    writer: Writer,
    copy: Copy | None,
    kinds: dict[int, list[int]],
    codes: bytearray,
    end: int,
) -> None:
    """With the lock held: put what was decided where it belongs; without a copy all of it was overwritten."""
    if copy is None:
        drain.cursor(writer).progress.force(end)
    else:
        put(drain, file, writer, copy, kinds, codes, waited=True)


def sort(drain: Drain, cursor: Cursor, copy: Copy) -> tuple[bytearray, dict[int, list[int]]]:
    """Tell what is to be entered of a copy's records before anything is decided, and the kinds of those that are."""
    size = len(copy.lows)
    known = cursor.progress.known_codes(copy.first, size)
    codes = bytearray([GONE]) * size if known is None else known
    most, kinds = len(drain.tables.probes), {}
    for state, places in copy.kinds().items():
        if state & STATE != SPAN or state & 0xFFFF >= most:  # the latter: of a damaged file
            continue
        open_ = places
        if known is not None and copy.first < cursor.progress.known:
            past = cursor.progress.known - copy.first
            open_ = [p for p in places if p >= past or known[p] & KIND == at.MARK_NONE]
        is_out = state >> FLAGS & at.FLAG_UNSAMPLED
        fill(codes, open_, code_of(at.MARK_DROPPED if is_out else at.MARK_NONE, state >> TIER & at.TIERS - 1))
        if not is_out and open_:
            kinds[state] = open_
    return codes, kinds


def fill(codes: bytearray, places: list[int], code: int) -> None:
    """Set the codes of some places."""
    if len(places) == len(codes):
        codes[:] = bytes([code]) * len(codes)
    else:
        for place in places:
            codes[place] = code


def is_sampled(state: int) -> bool:
    """Tell by a record's last word whether it is a span on which a verdict falls."""
    return state & STATE == SPAN and not state >> FLAGS & at.FLAG_UNSAMPLED


def settle(drain: Drain, copy: Copy, kinds: dict[int, list[int]], *, patient: bool) -> int:
    """Have verdicts on all traces of a copy; gives the place of the first that has to wait, or the copy's length."""
    lows, get = copy.lows, drain.rules.traces.get
    undecided: dict[int, int] = {}
    for places in kinds.values():
        undecided.update({lows[p]: p for p in places if not get(lows[p], 0) & DECIDED})
    if not undecided:
        return len(lows)
    rules = drain.rules
    each = rules.bucket.charged(_estimate(next(iter(kinds))))
    waiting = rules.settle(undecided, copy, patient=patient, each=each, spare=spare(drain.queue))
    if not waiting:
        return len(lows)
    return min(p for places in kinds.values() for p in places if lows[p] in waiting)


def put(
    drain: Drain,
    file: SegmentFile,
    writer: Writer,
    copy: Copy,
    kinds: dict[int, list[int]],
    codes: bytearray,
    *,
    waited: bool,
) -> None:
    """With the lock held: put what is kept of decided spans into the queue, and account for all of them.

    ``codes`` are those of ``sort``.  What has ``waited`` was counted when it was seen.
    """
    cursor, exporting, rules = drain.cursor(writer), drain.exporting(file), drain.rules
    threshold = file.words[drain.THRESHOLD]
    lows, get = copy.lows, rules.traces.get
    chosen: list[tuple[int, Kept]] = []
    for state, places in kinds.items():
        tier = state >> TIER & at.TIERS - 1
        cursor.decided[tier] += len(places)
        taken = []
        words: list[int] = []
        if exporting and rules.active:
            words = [get(lows[p], 0) for p in places]
            count(drain, copy, state, places, words, _DECIDED if waited else _ALL)
            taken = [p for p, word in zip(places, words) if word & KEPT]  # noqa: B905  one each
            if len(taken) < len(places):
                words = [word for word in words if word & KEPT]
        elif exporting:
            taken = [p for p in places if lows[p] & MASK >= threshold] if threshold else places
        if len(taken) < len(places):
            drain.sampled_out[tier] += len(places) - len(taken)
            fill(codes, places, code_of(at.MARK_DROPPED, tier))
            if taken:
                fill(codes, taken, code_of(at.MARK_NONE, tier))
        if taken:
            chosen += _of_kind(drain, writer, copy, state, taken, words)
    cursor.progress.enter(copy.first, codes)
    if chosen:
        if len(kinds) > 1:
            chosen.sort(key=_place)
        _enqueue(drain, [kept for _, kept in chosen])


def _of_kind(
    drain: Drain, writer: Writer, copy: Copy, state: int, places: list[int], words: list[int]
) -> list[tuple[int, Kept]]:
    """Give spans of one kind as they go into the queue, with their places; ``words`` are their traces', if governed."""
    data, clock, rules = copy.data, drain.clock, drain.rules
    progress, epoch = drain.cursor(writer).progress, drain.clock.epoch
    raw = _estimate(state) if words else 0
    charge = rules.bucket.charged(raw)
    thresholds = [word >> THRESHOLD & _THRESHOLD_MASK for word in words] if words else [0] * len(places)
    each = at.SIZE_SLOT
    if not state & EXTRA and clock.is_plain:
        return [
            (p, (data[each * p : each * p + each], epoch, _NO_BLOCKS, 0, threshold, raw, charge, progress))
            for p, threshold in zip(places, thresholds)  # noqa: B905  one each
        ]
    chosen: list[tuple[int, Kept]] = []
    for p, threshold in zip(places, thresholds):  # noqa: B905  one each
        slot, epoch = clock.placed(copy.slot(p))
        blocks, size, gone = blocks_of(writer, slot) if state & EXTRA else (_NO_BLOCKS, 0, 0)
        drain.text_overwritten += gone
        if words:
            if size:
                rules.mean_blocks += _WEIGHT * (size - rules.mean_blocks)
            raw = _estimate(state) + size + (_ERROR_BYTES if copy.words[SLOT * p + TYPES] >> 32 else 0)
            charge = rules.bucket.charged(raw)
        chosen.append((p, (slot, epoch, blocks, size, threshold, raw, charge, progress)))
    return chosen


def _estimate(state: int) -> int:
    """Give about how many bytes a span without blocks takes of a request."""
    return SPAN_BYTES + (_ATTRIBUTE_BYTES * min(state >> COUNT & 0xFF, at.INLINE_ATTRIBUTES) if state & EXTRA else 0)


SEEN_ONLY, _DECIDED, _ALL = range(3)
"""What of the spans is counted: what nothing is known of but that it waits; what is known by then; or all."""


def count(drain: Drain, copy: Copy, state: int, places: list[int], words: list[int], what: int) -> None:
    """Count the bytes of a kind of spans for the plan: plain ones when they are seen, the others when it is known."""
    rules = drain.rules
    each = rules.bucket.charged(_estimate(state))
    counts = Counter([word & _KINDS for word in words])
    sums = {key: number * each for key, number in counts.items()}
    if state & EXTRA and rules.mean_blocks:
        blocks = rules.bucket.charged(rules.mean_blocks)
        for p, word in zip(places, words):  # noqa: B905  one each
            if copy.words[SLOT * p + ARENA]:
                sums[word & _KINDS] += blocks
    for key, size in sums.items():
        plain = not key & (BY_TRIGGER | TRIGGERS)
        tier = BEST_TIER[key & TIERS]
        if plain and what != _ALL:
            rules.waiting[tier] = max(rules.waiting[tier] + (size if what == SEEN_ONLY else -size), 0.0)
        if what == _ALL or plain == (what == SEEN_ONLY):
            kind = _TRIGGERED if key & BY_TRIGGER else tier
            rules.bucket.count(kind, size)
            rules.room.counts[kind] += counts[key]


def _enqueue(drain: Drain, spans: list[Kept]) -> None:
    queue = drain.queue
    refused = []
    if len(queue.spans) + len(spans) <= share(queue.limit, at.TIERS - 1) and not any(kept[3] for kept in spans):
        queue.spans.extend(spans)
        charge = sum(kept[6] for kept in spans)
    else:
        put = [queue.put(kept) for kept in spans]
        refused = [kept for kept, done in zip(spans, put) if not done]  # noqa: B905  one each
        charge = sum(kept[6] for kept, done in zip(spans, put) if done)  # noqa: B905
    drain.refuse(refused)
    if charge:
        drain.rules.bucket.take(charge)
    drain.rules.bucket.pending = 0.0
