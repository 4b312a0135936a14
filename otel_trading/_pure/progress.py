"""What has been settled of a ring's spans, in the segment: so that another drain can go on where this one was killed.

Of each record that was decided on there is a mark in the file, and its code in the drain's memory, which has the tier
too: the slot of a span that was exported may be another one's by then.  ``done`` moves over what is settled, and takes
the counts along into the side that is not in force; then the sides are changed.  So each span counts in exactly one
place at any moment: by its mark from ``done`` on, by the side before it.

All of it is used with the drain's lock held.
"""

from __future__ import annotations

from otel_trading import _layout as at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.writer import Writer

GONE = 5
"""Of a record that is no span, or of which nothing is left: there is nothing to settle."""
KIND = (1 << at.MARK_BITS) - 1
"""The part of a code that is OT_MARK_*, or GONE; the tier is above it."""
_LAPS = 256 >> at.MARK_BITS
_PENDING = bytes(code & KIND in {at.MARK_NONE, at.MARK_SENT} for code in range(256))
_MARKS = [
    bytes((code & KIND if code & KIND < GONE else at.MARK_DROPPED) | lap << at.MARK_BITS for code in range(256))
    for lap in range(_LAPS)
]
_LOOK = 4096  # codes that are looked at together
_DONE = at.OFF_PROGRESS_DONE // 8
_EXPORTED = at.OFF_PROGRESS_EXPORTED // 8
_SAMPLED_OUT = at.OFF_PROGRESS_SAMPLED_OUT // 8
_REFUSED = at.OFF_PROGRESS_REFUSED // 8
_WORD = (1 << 64) - 1


def code_of(kind: int, tier: int) -> int:
    """Give a span's code."""
    return tier << at.MARK_BITS | kind


class Progress:
    """Of one ring, while this process drains it."""

    __slots__ = (
        "_base",
        "_changed",
        "_codes",
        "_map",
        "_marks",
        "_words",
        "bits",
        "capacity",
        "done",
        "end",
        "exported",
        "known",
        "refused",
        "sampled_out",
        "stated",
    )

    def __init__(self, file: SegmentFile, writer: Writer) -> None:
        """Begin with nothing settled."""
        self._words = file.words
        self._base = (file.progress + at.SIZE_PROGRESS * writer.index) // 8
        self._map = writer.piece.map
        self._marks = writer.marks_at
        self._fit(writer.capacity)
        self.done = self.end = 0  # records before it are settled, or late; before the other, they were decided on
        self.stated = 0  # `done` as it is in the file
        self.known = 0  # before it some were settled by another drain
        self.exported = [0] * at.TIERS
        self.sampled_out = [0] * at.TIERS
        self.refused = [0] * at.TIERS
        self._changed = False

    def _fit(self, capacity: int) -> None:
        self.capacity = capacity
        self.bits = capacity.bit_length() - 1
        self._codes = bytearray([GONE]) * capacity

    # ---- what other drains left ----

    def stored(self) -> tuple[int, list[int], list[int], list[int]]:
        """Give ``done`` and the counts of exported, sampled out and refused spans of the side in force."""
        words, base = self._words, self._base
        side = words[base] & 1
        first = side * at.TIERS
        exported, sampled_out, refused = (
            words[base + field + first : base + field + first + at.TIERS].tolist()
            for field in (_EXPORTED, _SAMPLED_OUT, _REFUSED)
        )
        return words[base + _DONE + side], exported, sampled_out, refused

    def offer(self, number: int, *, offered: bool) -> None:
        """Mark a span as in a request whose last byte is sent next, or as not in it after all."""
        if number >= self.done:
            place = self._marks + (number & self.capacity - 1)
            kind = at.MARK_OFFERED if offered else at.MARK_NONE
            self._map[place] = (number >> self.bits) % _LAPS << at.MARK_BITS | kind

    def stored_marks(self, first: int, count: int, *, handed: bool) -> list[int]:
        """Give OT_MARK_* of records that lie one after another, as they are in the file.

        What the drain before had offered is told for good: it was sent where the kernel has the request (``handed``).
        """
        place = first & self.capacity - 1
        lap = (first >> self.bits) % _LAPS
        start = self._marks + place
        offered = lap << at.MARK_BITS | at.MARK_OFFERED
        marks = self._map[start : start + count]
        if offered in marks:
            marks = marks.replace(bytes((offered,)), bytes((offered ^ at.MARK_OFFERED ^ at.MARK_SENT * handed,)))
            self._map[start : start + count] = marks
        return [mark & KIND if mark >> at.MARK_BITS == lap and mark & KIND < GONE else at.MARK_NONE for mark in marks]

    def take_over(self, done: int, end: int) -> None:
        """Go on from ``done``; what is known of records from there to ``end`` is told by ``know``."""
        self.done = self.end = done
        self.known = end
        self._changed = True

    def know(self, first: int, codes: bytes | bytearray) -> None:
        """Take in what another drain made of records."""
        place = first & self.capacity - 1
        self._codes[place : place + len(codes)] = codes

    def known_codes(self, first: int, count: int) -> bytearray | None:
        """Give what is known of records from other drains; None of those that none has seen."""
        if first >= self.known:
            return None
        place = first & self.capacity - 1
        codes = self._codes[place : place + count]
        past = first + count - self.known
        if past > 0:
            codes[-past:] = bytes([GONE]) * past
        return codes

    # ---- what becomes of records ----

    def enter(self, first: int, codes: bytes | bytearray) -> None:
        """Note records on which it was decided; they lie one after another, and follow those before."""
        if first > self.end:  # overwritten before anybody could decide; and so is all that lies before
            self.force(first)
        end = first + len(codes)
        if end - self.capacity > self.stated:  # their marks are written over
            self.force(end - self.capacity)
            self.publish()
        place = first & self.capacity - 1
        self._codes[place : place + len(codes)] = codes
        lap = (first >> self.bits) % _LAPS
        self._map[self._marks + place : self._marks + place + len(codes)] = codes.translate(_MARKS[lap])
        self.end = end

    def settle(self, number: int, tier: int, kind: int, sent: bool) -> None:  # noqa: FBT001
        """Say what became of a record that was entered as not settled; ``sent``: it was marked so before.

        OT_MARK_NONE takes that mark back.
        """
        if number >= self.done:
            place = number & self.capacity - 1
            self._codes[place] = code_of(kind, tier)
            self._map[self._marks + place] = (number >> self.bits) % _LAPS << at.MARK_BITS | kind
            return
        # Late: its slot is another's.  What is sent counts as exported, as by its mark.
        self._changed = True
        if sent:
            self.exported[tier] -= 1
        if kind == at.MARK_REFUSED:
            self.refused[tier] += 1
        elif kind == at.MARK_DROPPED:
            self.sampled_out[tier] += 1
        elif kind != at.MARK_NONE:
            self.exported[tier] += 1

    # ---- how far it is ----

    def force(self, to: int) -> None:
        """Have ``done`` be there at least, whatever is not settled yet, and say so in the file."""
        if to > self.done:
            self._count(self.done, min(to, self.end))
            self.done = to
            self.end = max(self.end, to)
            self._changed = True
            self.publish()

    def advance(self, oldest: int) -> None:
        """Move ``done`` over what is settled; and over what lies before ``oldest``, of which there are no slots."""
        self.force(min(oldest, self.end))
        while self.done < self.end:
            place = self.done & self.capacity - 1
            count = min(self.end - self.done, self.capacity - place, _LOOK)
            found = self._codes[place : place + count].translate(_PENDING).find(1)
            stop = self.done + (count if found < 0 else found)
            if stop > self.done:
                self._count(self.done, stop)
                self.done = stop
                self._changed = True
            if found >= 0:
                break

    def _count(self, first: int, end: int) -> None:
        """Take what is settled of some records into the counts; what is sent counts as exported."""
        codes = self._codes
        while first < end:
            place = first & self.capacity - 1
            stop = place + min(end - first, self.capacity - place)
            first += stop - place
            for tier in range(at.TIERS):
                base = code_of(0, tier)
                self.exported[tier] += codes.count(base | at.MARK_EXPORTED, place, stop)
                self.exported[tier] += codes.count(base | at.MARK_SENT, place, stop)
                self.sampled_out[tier] += codes.count(base | at.MARK_DROPPED, place, stop)
                self.refused[tier] += codes.count(base | at.MARK_REFUSED, place, stop)

    def publish(self) -> None:
        """Write ``done`` and the counts into the side that is not in force, then change the sides."""
        if not self._changed:
            return
        self._changed = False
        words, base = self._words, self._base
        side = ~words[base] & 1
        words[base + _DONE + side] = self.done
        first = base + side * at.TIERS
        for tier in range(at.TIERS):
            words[first + _EXPORTED + tier] = self.exported[tier] & _WORD
            words[first + _SAMPLED_OUT + tier] = self.sampled_out[tier] & _WORD
            words[first + _REFUSED + tier] = self.refused[tier] & _WORD
        words[base] = side
        self.stated = self.done

    def resized(self, capacity: int, first: int) -> None:
        """Lay the marks out for another number of slots; what lies before ``first`` is not in the ring any more."""
        self.force(min(first, self.end))
        before, old = self._codes, self.capacity
        self._fit(capacity)
        self._map[self._marks : self._marks + capacity] = bytes(capacity)
        done, end = self.done, self.end
        last = max(end, min(self.known, done + capacity))
        while done < last:
            place = done & old - 1
            count = min(last - done, old - place, capacity - (done & capacity - 1))
            self.enter(done, before[place : place + count])
            done += count
        self.end = end
