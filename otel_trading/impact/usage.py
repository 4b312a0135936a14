"""What a process uses, looked at from outside or by itself; Linux's /proc, and nothing of otel-trading.

The bare program loads this file by its path.
"""

from __future__ import annotations

import os
from typing import NamedTuple

_KILO = 1024
_BLOCK = 512


class Memory(NamedTuple):
    """Bytes of a process."""

    own: int
    """Proportional set size, without the mappings of the segments' directory."""
    segment: int
    """Space of those files, each counted in full and once: it is reserved when they are made."""


def memory(pid: int | None = None, directory: str | None = None) -> Memory | None:
    """Look at the memory of a process (default: this one); None where the system does not tell.

    ``directory``: where its segment is.  Takes milliseconds, in which the process's mappings are locked.
    """
    try:
        with open(f"/proc/{pid or 'self'}/smaps", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    own, files, inside = 0, {}, False
    prefix = None if directory is None else os.path.join(os.path.realpath(directory), "")
    for line in lines:
        words = line.split()
        if not words[0].endswith(":"):  # a mapping's own line: addresses, rights, offset, device, inode, path
            path = words[5] if len(words) > 5 else ""  # noqa: PLR2004
            inside = prefix is not None and path.startswith(prefix)
            if inside and path not in files:
                files[path] = _space(path)
        elif words[0] == "Pss:" and not inside:
            own += int(words[1]) * _KILO
    return Memory(own, sum(files.values()))


def _space(path: str) -> int:
    try:
        return os.stat(path).st_blocks * _BLOCK
    except OSError:
        return 0


def written(pid: int) -> int | None:
    """Bytes that a process has had written to disks so far; None where the system does not tell."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes:")), None)
