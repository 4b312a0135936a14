"""Files in which the kernel tells figures; what can not be understood is NaN."""

from __future__ import annotations

import os
from math import inf, nan

_MOST_BYTES = 1 << 16


class SystemFile:
    """A file that is read again and again, and stays open for it; nothing where it is absent."""

    __slots__ = ("_fd",)

    def __init__(self, path: str) -> None:
        """Open it."""
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def __bool__(self) -> bool:
        """Tell whether it is there."""
        return self._fd >= 0

    def text(self, most: int = _MOST_BYTES) -> str:
        """Give its first bytes as they are now, "" where there are none."""
        if self._fd < 0:
            return ""
        try:
            return os.pread(self._fd, most, 0).decode("ascii", "replace")
        except OSError:
            return ""

    def number(self) -> float:
        """Give the number that it holds: infinity for "max", NaN for anything else."""
        return number_of(self.text(64).strip())


def read_text(path: str) -> str:
    """Give a file's text, once, "" where there is none."""
    return SystemFile(path).text()


def number_of(text: str) -> float:
    """Give a text's number: infinity for "max", NaN for no number."""
    if text == "max":
        return inf
    try:
        return float(int(text))
    except (ValueError, OverflowError):
        return nan


def field_of(text: str, name: str) -> float:
    """Give the number that follows a name at the beginning of a line; NaN without it."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return number_of(value.strip())
    return nan
