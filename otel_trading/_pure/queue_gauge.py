"""Which gauge is the length of the program's queue."""

from __future__ import annotations

from otel_trading import _layout as at
from otel_trading._pure.names import instruments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile

_NAMES = frozenset(("queue.size", "queue.depth", "trading.queue.size", "trading.queue.depth"))
_QUEUE = at.OFF_LIFE_QUEUE // 8


class _Queue:
    """The program's word for it, or the first gauge of a name that says so; a forked child has it too."""

    def __init__(self) -> None:
        self._asked: int | None = None  # the gauge's id, as the program said
        self._told = 0  # when the segment was made that was told; not the file, which must be let go
        self._looked = 0  # at so many instruments
        self._default: int | None = None

    def ask(self, number: int | None) -> None:
        """Take a gauge by its id; None: the one that is called so again."""
        self._asked = number if number is None or number >= 0 else None  # one that found no room records nothing
        self._told = 0

    def present(self, file: SegmentFile) -> None:
        """See to it that the segment that is recorded into tells it."""
        if self._looked == len(instruments) and self._told == file.created_ns:
            return
        if self._default is None:
            for number in range(self._looked, len(instruments)):
                one = instruments[number]
                if one.kind == at.INSTRUMENT_GAUGE and one.name in _NAMES:
                    self._default = number
                    break
        self._looked = len(instruments)
        chosen = self._default if self._asked is None else self._asked
        file.words[file.life // 8 + _QUEUE] = 0 if chosen is None else chosen + 1
        self._told = file.created_ns


queue = _Queue()
