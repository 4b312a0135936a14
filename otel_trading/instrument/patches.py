"""Replacing functions of a library's classes, and putting them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Replacement = tuple[Any, str, Callable[[Callable[..., Any]], Callable[..., Any]]]
"""A class, the name of a function of it, and what makes the replacement of the original."""

_ABSENT = object()
_ORIGINAL = "_otel_trading_original"


class Patches:
    """What one instrumentor has replaced."""

    def __init__(self) -> None:
        """Begin with nothing replaced."""
        self._made: list[tuple[Any, str, object, object]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any], alias: str | None = None) -> bool:
        """Put ``make(original)`` in the place of ``owner.name``; False where there is no such name.

        The replacement has the original's name, docstring and signature (``__wrapped__``).  A class that only inherits
        the name gets one of its own.  A second call for the same place does nothing.  ``alias`` is a second name of the
        function; where the class has it, it leads to the replacement too.
        """
        if any(made[0] is owner and made[1] == name for made in self._made):
            return True
        original = getattr(owner, name, None)
        if original is None:
            return False
        original = getattr(original, _ORIGINAL, original)  # inherited from a class where it is replaced
        replacement = make(original)
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
            if hasattr(original, attribute):
                setattr(replacement, attribute, getattr(original, attribute))
        replacement.__wrapped__ = original
        setattr(replacement, _ORIGINAL, original)
        for place in (name, alias) if alias is not None and hasattr(owner, alias) else (name,):
            own = vars(owner).get(place, _ABSENT)
            setattr(owner, place, replacement)
            self._made.append((owner, place, getattr(own, _ORIGINAL, own), replacement))
        return True

    def restore(self) -> None:
        """Put everything back, newest first.

        What someone else has replaced meanwhile keeps that replacement, and ours below it; so a replacement asks for
        itself whether it is still wanted.
        """
        while self._made:
            owner, name, own, replacement = self._made.pop()
            if vars(owner).get(name) is not replacement:
                continue
            if own is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


def restore_copies(owner: type) -> None:
    """Put the originals in the place of replacements that someone else has stored in a class."""
    for name, value in list(vars(owner).items()):
        original = getattr(value, _ORIGINAL, None)
        if original is not None:
            setattr(owner, name, original)
