"""The control page: steer a recording process from any process, without touching anything else of it."""

from __future__ import annotations

import mmap
import os

from otel_trading import _layout as at
from otel_trading.errors import (
    ControlError,
    SegmentDamagedError,
    SegmentForeignError,
    SegmentTruncatedError,
    SegmentVersionError,
)
from otel_trading.segment.files import open_segment

_SCALE = 1 << at.SAMPLE_BITS
_FARTHEST = 1 << 20  # where a control page may be: it follows the header


def _page(fd: int, path: str) -> int:
    """Check a file's header as far as steering needs it; gives the control page's offset."""
    header = os.pread(fd, at.SIZE_HEADER, 0)
    size = os.fstat(fd).st_size

    def word(offset: int, length: int) -> int:
        return int.from_bytes(header[offset : offset + length], "little")

    if word(at.OFF_HEADER_MAGIC, 8) != at.MAGIC:
        raise SegmentForeignError(path, "not a segment of otel-trading")
    if len(header) < at.SIZE_HEADER:
        raise SegmentTruncatedError(path, "the file ends within the header")
    version = word(at.OFF_HEADER_VERSION, 4)
    if version == 0:
        raise SegmentDamagedError(path, "the segment was never published; its process ended while it made it")
    if version != at.VERSION:
        raise SegmentVersionError(path, f"the segment has format {version}, this release steers format {at.VERSION}")
    offset = word(at.OFF_HEADER_CONTROL_OFFSET, 8)
    if offset % at.PAGE or not at.PAGE <= offset <= _FARTHEST:
        raise SegmentDamagedError(path, "the control page is nowhere that it can be")
    if offset + at.PAGE > size:
        raise SegmentTruncatedError(path, "the file ends before its control page does")
    return offset


class Control:
    """The switches of a recording process; what is set is in force at its next record.

    Two processes that steer at once may undo each other's change of the same word (``record`` and ``export`` share
    one); the last one wins.  Usable as ``with``, which closes it at the end.

    Raises SegmentNotFoundError, SegmentForeignError, SegmentVersionError, SegmentTruncatedError or SegmentDamagedError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map the header and the control page, and nothing else."""
        fd = open_segment(path, os.O_RDWR)
        try:
            offset = _page(fd, os.fsdecode(path))
            self._map = mmap.mmap(fd, offset + at.PAGE)
        finally:
            os.close(fd)
        # As "Q", an item is read and written by one 8 byte access, and the page is aligned.
        self._words = memoryview(self._map)[offset:].cast("Q")

    def __enter__(self) -> Control:  # noqa: PYI034  Self is younger than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go.  Idempotent."""
        self._words.release()
        self._map.close()

    def _get(self, offset: int) -> int:
        return self._words[offset // 8]

    def _set(self, offset: int, value: int) -> None:
        self._words[offset // 8] = value
        generation = self._words[at.OFF_CONTROL_GENERATION // 8]
        self._words[at.OFF_CONTROL_GENERATION // 8] = (generation + 1) % (1 << 64)

    def _switch(self, bit: int, on: bool) -> None:  # noqa: FBT001  private, and always by position
        switches = self._get(at.OFF_CONTROL_SWITCHES)
        self._set(at.OFF_CONTROL_SWITCHES, switches | bit if on else switches & ~bit)

    @property
    def generation(self) -> int:
        """How many changes there have been."""
        return self._get(at.OFF_CONTROL_GENERATION)

    @property
    def record(self) -> bool:
        """The master switch: off, nothing at all is recorded."""
        return bool(self._get(at.OFF_CONTROL_SWITCHES) & at.SWITCH_RECORD)

    @record.setter
    def record(self, on: bool) -> None:
        self._switch(at.SWITCH_RECORD, on)

    @property
    def export(self) -> bool:
        """Whether spans go to the exporters; off, they still count in the metrics."""
        return bool(self._get(at.OFF_CONTROL_SWITCHES) & at.SWITCH_EXPORT)

    @export.setter
    def export(self, on: bool) -> None:
        self._switch(at.SWITCH_EXPORT, on)

    @property
    def sampling_rate(self) -> float:
        """The share of traces that is exported, 0 to 1; a trace is taken or left as a whole.  ControlError beyond."""
        return 1.0 - min(self._get(at.OFF_CONTROL_THRESHOLD), _SCALE) / _SCALE

    @sampling_rate.setter
    def sampling_rate(self, rate: float) -> None:
        if not 0.0 <= rate <= 1.0:  # refuses NaN too
            raise ControlError(f"sampling rate {rate!r}: give a number from 0 to 1")
        # Traces whose random bits are below it are sampled out.
        self._set(at.OFF_CONTROL_THRESHOLD, round((1.0 - rate) * _SCALE))

    def tier(self, number: int) -> bool:
        """Tell whether a tier, 0 to 3, records.  ControlError for any other number."""
        return bool(self._get(_tier_offset(number)) & at.TIER_ON)

    def set_tier(self, number: int, on: bool) -> None:  # noqa: FBT001  as enable(): one obvious argument
        """Switch a tier on or off.  ControlError for one that there is not, and for switching P0 off."""
        if number == 0 and not on:
            raise ControlError("tier P0 can not be switched off; to record nothing at all, switch `record` off")
        offset = _tier_offset(number)
        word = self._get(offset)  # the sampling threshold is in it too, and stays
        self._set(offset, word | at.TIER_ON if on else word & ~at.TIER_ON)


def _tier_offset(number: int) -> int:
    if not 0 <= number < at.TIERS:
        raise ControlError(f"there is no tier {number!r}: the tiers are 0 (P0) to {at.TIERS - 1}")
    return at.OFF_CONTROL_TIER_WORD + 8 * number
