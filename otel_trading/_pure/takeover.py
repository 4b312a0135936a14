"""Taking a ring over from the drain before: what it settled stays so, what it left undone is decided anew."""

from __future__ import annotations

from otel_trading import _layout as at
from otel_trading._pure.aggregating import note, written_of
from otel_trading._pure.copies import SLOT, copied
from otel_trading._pure.cursors import DRAINED, SEEN
from otel_trading._pure.deciding import BATCH, fill
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.progress import GONE, KIND, code_of
from otel_trading._pure.traces import DROPPED, KEPT
from otel_trading._pure.writer import FLAGS, HEAD, SPAN, STATE, TIER, VALUES_WRITTEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.copies import Copy
    from otel_trading._pure.cursors import Cursor
    from otel_trading._pure.passes import Drain
    from otel_trading._pure.writer import Writer

_RESIZED = at.OFF_RING_RESIZED // 8
_HANDED = (CONTROL + at.OFF_CONTROL_HANDED) // 8
_MARKED_KEPT = {at.MARK_SENT, at.MARK_EXPORTED, at.MARK_REFUSED}


class _Counts:
    """What a look at the ring has found."""

    def __init__(self) -> None:
        self.exported = [0] * at.TIERS
        self.sampled_out = [0] * at.TIERS
        self.refused = [0] * at.TIERS
        self.waiting = [0] * at.TIERS  # seen, and to be decided anew
        self.unseen = [0] * at.TIERS


def take_over(drain: Drain, writer: Writer, cursor: Cursor) -> None:  # noqa: PLR0912  one look at a ring
    """With the lock held, and rules that are in force: go on where the ring's header, marks and progress say."""
    ring, progress = writer.ring, cursor.progress
    written = written_of(writer)
    if written is None:  # as near as it can be told
        head, *recorded, values = ring[HEAD : VALUES_WRITTEN + 1].tolist()
    else:
        head, recorded, values = written
    done, *stored = progress.stored()
    seen = min(ring[SEEN], head)
    oldest = max(head - writer.capacity, min(ring[_RESIZED], head), 0)
    start = min(max(done, oldest), seen)
    # Marks are of records less than a ring's length away; they are of no use where the counts are older than its size.
    marked = done + writer.capacity if done >= min(ring[_RESIZED], head) else 0
    found = _Counts()
    waiting: list[Copy] = []
    progress.take_over(start, seen)
    at_ = oldest
    while at_ < head:
        copy = copied(writer, at_, min(BATCH, (seen if at_ < seen else head) - at_))
        if at_ < seen:
            _look(drain, cursor, copy, start, marked, found)
            if any(copy.kinds().values()):
                waiting.append(copy)
        else:
            for state, places in copy.kinds().items():
                if state & STATE == SPAN:
                    found.unseen[state >> TIER & at.TIERS - 1] += len(places)
        at_ += len(copy.lows)
    cursor.see(seen)
    cursor.decide(start)
    for counts, own, all_, before in zip(
        (found.exported, found.sampled_out, found.refused),
        (progress.exported, progress.sampled_out, progress.refused),
        (drain.exported, drain.sampled_out, drain.refused),
        stored,
        strict=True,
    ):
        for tier in range(at.TIERS):
            own[tier] = before[tier]
            all_[tier] += before[tier] + counts[tier]
    for tier in range(at.TIERS):
        settled = sum(before[tier] for before in stored)
        settled += found.exported[tier] + found.sampled_out[tier] + found.refused[tier]
        _count(cursor, tier, settled + found.waiting[tier])
        writer.overwritten[tier] = max(0, recorded[tier] - cursor.drained[tier] - found.unseen[tier])
        cursor.aggregated[tier] = found.waiting[tier]
    _count(cursor, at.TIERS, min(ring[DRAINED + at.TIERS], values))
    if drain.selecting:
        for copy in waiting:  # after all that is known of their traces
            note(drain, copy)
    # The same counts as before, with what has changed hands: a kill from here on leaves this side.
    progress.publish()


def _count(cursor: Cursor, number: int, count: int) -> None:
    cursor.drained[number] = 0
    cursor.drain(number, min(count, (1 << 64) - 1))


def _look(drain: Drain, cursor: Cursor, copy: Copy, start: int, marked_to: int, found: _Counts) -> None:
    """Take in what is marked of some records; leaves the others in the copy, of those from ``start`` on."""
    progress = cursor.progress
    size = len(copy.lows)
    marks = progress.stored_marks(copy.first, size, handed=bool(drain.file and drain.file.words[_HANDED]))
    past = max(0, marked_to - copy.first)
    marks[past:] = [at.MARK_NONE] * max(0, size - past)
    skipped = max(0, start - copy.first)
    codes = bytearray([GONE]) * size
    left: dict[int, list[int]] = {}
    most = len(drain.tables.probes)
    for state, places in copy.kinds().items():
        if state & STATE != SPAN or state & 0xFFFF >= most:
            continue
        tier = state >> TIER & at.TIERS - 1
        is_out = state >> FLAGS & at.FLAG_UNSAMPLED
        by_mark: dict[int, list[int]] = {}
        for place in places:
            by_mark.setdefault(marks[place], []).append(place)
        for mark, marked in by_mark.items():
            if mark == at.MARK_NONE and is_out:
                kind = at.MARK_DROPPED
            else:
                kind = at.MARK_EXPORTED if mark == at.MARK_SENT else mark
                if mark != at.MARK_NONE and not is_out:
                    _remember(drain, copy, marked, mark, tier)
            here = [place for place in marked if place >= skipped] if skipped else marked
            fill(codes, here, code_of(kind & KIND, tier))
            if kind == at.MARK_EXPORTED:
                found.exported[tier] += len(here)
            elif kind == at.MARK_DROPPED:
                found.sampled_out[tier] += len(here)
            elif kind == at.MARK_REFUSED:
                found.refused[tier] += len(here)
            elif here:
                found.waiting[tier] += len(here)
                left[state] = here
    if skipped < size:
        progress.know(copy.first + skipped, codes[skipped:])
    copy.only(left)


def _remember(drain: Drain, copy: Copy, places: list[int], mark: int, tier: int) -> None:
    """Put the verdict on traces back of which a part has left already, or was left out."""
    traces = drain.rules.traces
    for place in places:
        low = copy.words[SLOT * place + 2]
        word = traces.get(low, 0)
        if mark in _MARKED_KEPT:
            traces[low] = word & ~DROPPED | KEPT | 1 << tier
        elif not word & KEPT:
            traces[low] = word | DROPPED | 1 << tier
    traces.bound()
