"""How the process ends, as far as it can tell itself."""

from __future__ import annotations

import time

from otel_trading import _layout as at
from otel_trading._pure.names import names
from otel_trading._pure.recorder import recorder

_ENDING = at.OFF_LIFE_ENDING // 8
_CODE = at.OFF_LIFE_ENDING_CODE // 8
_NS = at.OFF_LIFE_ENDING_NS // 8
_NAME = at.OFF_LIFE_ENDING_NAME // 8
_WORD = (1 << 64) - 1
_STAY = (at.ENDING_EXCEPTION, at.ENDING_SIGNAL)


def ending(kind: int, code: int, name: str, /) -> None:
    """Tell of the end; the first that is told of an exception or a signal stays.  NONE takes back what was told.

    Raises TypeError, and ValueError for a kind that there is not.
    """
    if not isinstance(kind, int) or not isinstance(code, int) or not isinstance(name, str):
        raise TypeError("ending() takes two int and a str")
    if not at.ENDING_NONE <= kind <= at.ENDING_SIGNAL:
        raise ValueError("an ending's kind is 0 to 3")
    file = recorder.file
    if file is None:
        return
    words, life = file.words, file.life // 8
    if words[life + _ENDING] in _STAY and kind != at.ENDING_NONE:
        return
    words[life + _ENDING] = at.ENDING_NONE  # while the others change
    told = kind != at.ENDING_NONE
    words[life + _CODE] = code & _WORD if told else 0
    words[life + _NS] = time.time_ns() if told else 0
    words[life + _NAME] = names.name(name) if told else 0
    words[life + _ENDING] = kind


def note_signals(on: bool, /) -> None:  # noqa: FBT001  the interface
    """Do nothing: Python can not act in a signal like SIGSEGV."""
    del on
