"""Beats: loops of the program tell that they go on, and by when they will have done so again."""

from __future__ import annotations

import time
from _thread import RLock
from itertools import count

from otel_trading import _layout as at
from otel_trading._pure.names import names
from otel_trading._pure.recorder import recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile

_COUNT = at.OFF_LIFE_BEAT_COUNT // 8
_NAME = at.OFF_LIFE_BEAT_NAME // 4
_BEAT = at.OFF_LIFE_BEAT_NS // 8
_LATE = at.OFF_LIFE_BEAT_LATE_NS // 8
_LONGEST = (1 << 63) - 1  # ns
_monotonic = time.monotonic_ns


class _Beats:
    """Those of the present segment; made anew with it, lock and all, so that a forked child needs no hook."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.numbers = count()
        self.known: dict[str, int] = {}  # index of the loop's word among the beats

    def enter(self, file: SegmentFile, name: str) -> int | None:
        """Give a new loop its place; None where there is none left."""
        name_id = names.name(name)
        with self.lock:
            index = self.known.get(name)
            if index is not None:
                return index
            number = next(self.numbers)
            if number >= at.BEATS:
                return None
            life = file.life
            file.halves[life // 4 + _NAME + number] = name_id
            words = file.words
            words[life // 8 + _COUNT] = max(words[life // 8 + _COUNT], number + 1)
            # A signal's handler that came in between has entered it already: that place is taken.
            return self.known.setdefault(name, life // 8 + _BEAT + number)


_made: dict[SegmentFile, _Beats] = {}  # the present ones, by their segment


def _made_for(file: SegmentFile) -> _Beats:
    """Make those of a new segment, whoever else is about to."""
    beats = _made.setdefault(file, _Beats())
    for other in list(_made):
        if other is not file:
            _made.pop(other, None)
    return beats


def beat(name: str, late_ns: int, /) -> None:
    """A loop goes on; it is late when ``late_ns`` after this there was no other.  0: it rests, or has ended.

    Past BEATS loops: a fault.  Raises TypeError, and ValueError for less than 0.
    """
    if not isinstance(name, str) or not isinstance(late_ns, int):
        raise TypeError("beat() takes a str and an int")
    if late_ns < 0:
        raise ValueError("beat(): late_ns is not negative")
    file = recorder.file
    if file is None:
        recorder.claim()  # in a forked child the first record makes the segment
        file = recorder.file
        if file is None:
            return
    beats = _made.get(file) or _made_for(file)
    index = beats.known.get(name)
    if index is None:
        if not late_ns:
            return
        index = beats.enter(file, name)
        if index is None:
            recorder.fault()
            return
    words = file.words
    if late_ns:
        words[index + _LATE - _BEAT] = min(late_ns, _LONGEST)
        words[index] = _monotonic()
    else:
        words[index] = 0
