"""The file in which the processes of a directory agree on traces: the bucket's page, then a table of verdicts.

Any of them may die at any moment, and a native one may write at the same time.  An entry is taken by marking it, then
written, then named; who reads looks at the name before and after.  Python has no compare-and-exchange, so of two that
take the same entry at once the last one wins, and the other's note is lost: that trace is then decided by its
threshold, which is the same for all.  What is believed of the file is masked, so that no content does harm.
"""

from __future__ import annotations

import mmap
import os
import stat
import time

from otel_trading import _layout as at
from otel_trading._pure.mapped import reserve

_FIRST = at.PAGE // 8
_EACH = at.SIZE_VERDICT // 8
_HIGH = at.OFF_VERDICT_TRACE_HI // 8
_VERDICT = at.OFF_VERDICT_WORD // 8
_CHANGED = at.OFF_VERDICT_CHANGED_NS // 8
_BYTES = at.PAGE + at.SIZE_VERDICT * at.VERDICTS
_WORD = (1 << 64) - 1
_TAKING = _WORD
_HASH = 0x9E3779B97F4A7C15
_SHIFT = 64 - (at.VERDICTS - 1).bit_length()
_STATE = 3
_TRIES = 200
_PAUSE = 0.005  # seconds
_LIFE = 30_000_000_000  # ns, in which an entry that somebody takes is left to them
_TRIGGERS = 0xFF << 24


def _lay_out(fd: int, size: int) -> None:
    """Make the file's content where there is none yet.  Raises OSError, and ValueError for something else."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise ValueError("foreign: not a regular file")
    header = os.pread(fd, at.SIZE_SHARED, 0).ljust(at.SIZE_SHARED, b"\0")
    magic, version, expected = (int.from_bytes(header[i : i + 8], "little") for i in (0, 8, 16))
    if size and magic != at.SHARED_MAGIC:
        raise ValueError("foreign: the file is none of otel-trading's, in which processes agree on traces")
    if version == 0:  # new, or of a process that ended in the middle of this
        os.ftruncate(fd, 0)
        _write(fd, at.OFF_SHARED_MAGIC, at.SHARED_MAGIC)
        reserve(fd, 0, _BYTES)
        _write(fd, at.OFF_SHARED_MAGIC, at.SHARED_MAGIC)  # where it could only be reserved by writing
        _write(fd, at.OFF_SHARED_FILE_BYTES, _BYTES)
        _write(fd, at.OFF_SHARED_VERSION, at.VERSION)
    elif version != at.VERSION:
        raise ValueError(f"version: the file has format {version}, this release has format {at.VERSION}")
    elif expected != _BYTES or size != _BYTES:
        raise ValueError(f"damaged: the file has {size} bytes, and not {_BYTES}")


def _write(fd: int, offset: int, word: int) -> None:
    os.pwrite(fd, word.to_bytes(8, "little"), offset)


class SharedFile:
    """The file, mapped.  The descriptor is duplicated only to lay it out."""

    def __init__(self, fd: int) -> None:
        """Map it, laid out where it is empty.  Raises OSError, and ValueError for a file that is something else."""
        import fcntl  # only who shares needs it

        own = os.dup(fd)
        try:
            for tries in range(_TRIES, -1, -1):
                try:
                    fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not tries:
                        raise
                    time.sleep(_PAUSE)  # who lays it out is done in a moment
                else:
                    break
            try:
                _lay_out(own, os.fstat(own).st_size)
            finally:
                fcntl.flock(own, fcntl.LOCK_UN)
            self.map = mmap.mmap(own, _BYTES)
        finally:
            os.close(own)
        self.words = memoryview(self.map).cast("Q")
        self.present: dict[int, int] = {}  # places by the id's low half, as of the last look
        self._seen = b""

    def look(self) -> bool:
        """Take in who is in the table; False where nothing has changed since the last time."""
        data = self.map[at.PAGE : _BYTES]
        if data == self._seen:
            return False
        self._seen = data
        lows = memoryview(data).cast("Q")[::_EACH].tolist()
        self.present = {low: place for place, low in enumerate(lows) if low and low != _TAKING}
        return True

    def _find(self, low: int, high: int) -> int:
        """Give the index of a trace's entry, -1 where it has none."""
        words = self.words
        place = (low * _HASH & _WORD) >> _SHIFT
        for i in range(at.VERDICT_PROBES):
            index = _FIRST + _EACH * (place + i & at.VERDICTS - 1)
            if words[index] == low and words[index + _HIGH] == high:
                return index
        return -1

    def word(self, low: int, high: int) -> int | None:
        """Give what is said of a trace; None where it has no entry."""
        index = self._find(low, high)
        if index < 0:
            return None
        word: int = self.words[index + _VERDICT]
        return word if self.words[index] == low else None

    def recent(self, low: int) -> tuple[int, int]:
        """Give the high half of a trace that was there at the last look, and what is said of it; 0 where it is gone."""
        words, index = self.words, _FIRST + _EACH * self.present[low]
        high, word = words[index + _HIGH], words[index + _VERDICT]
        return (high, word) if words[index] == low else (0, 0)

    def _take(self, low: int, high: int, word: int, now_ns: int) -> None:
        """Make an entry: in a free place, or in the one that has been left alone longest."""
        words = self.words
        place = (low * _HASH & _WORD) >> _SHIFT
        chosen, oldest = -1, _WORD
        for i in range(at.VERDICT_PROBES):
            index = _FIRST + _EACH * (place + i & at.VERDICTS - 1)
            if not words[index]:
                chosen = index
                break
            changed = words[index + _CHANGED]
            changed *= changed <= now_ns  # from before the machine was started again
            if words[index] == _TAKING and now_ns - changed < _LIFE:
                continue
            if changed < oldest:
                chosen, oldest = index, changed
        if chosen < 0:
            return
        words[chosen] = _TAKING
        words[chosen + _HIGH] = high
        words[chosen + _VERDICT] = word
        words[chosen + _CHANGED] = now_ns
        words[chosen] = low

    def note(self, low: int, high: int, triggers: int, now_ns: int) -> None:
        """Ask for a trace's verdict, and note triggers, shifted as in the word.

        A new one makes a trace undecided again that had been left out.
        """
        if not low or low == _TAKING:
            return
        index = self._find(low, high)
        if index < 0:
            self._take(low, high, at.VERDICT_ASKED | triggers, now_ns)
            return
        before = self.words[index + _VERDICT]
        if triggers & ~before:
            if before & _STATE == at.VERDICT_DROPPED:
                before = before & _TRIGGERS | at.VERDICT_ASKED
            self.words[index + _VERDICT] = before | triggers
            self.words[index + _CHANGED] = now_ns

    def answer(self, low: int, high: int, word: int, now_ns: int) -> None:
        """Give a trace's verdict."""
        if not low or low == _TAKING:
            return
        index = self._find(low, high)
        if index < 0:
            self._take(low, high, word, now_ns)
        else:
            before = self.words[index + _VERDICT]
            if before & _STATE != at.VERDICT_KEPT:  # which holds
                self.words[index + _VERDICT] = before & _TRIGGERS | word
                self.words[index + _CHANGED] = now_ns
