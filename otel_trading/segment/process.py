"""Whether a process is the one that a segment's header names, and whether it lives."""

from __future__ import annotations

import os

_STATE, _START = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted after the command's name


def boot_id() -> tuple[int, int]:
    """Give this boot's id as the header has it, two words; zeros where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            digits = file.read().strip().replace("-", "")
        return int(digits[:16], 16), int(digits[16:32], 16)
    except (OSError, ValueError):
        return 0, 0


def is_alive(pid: int, start: int) -> bool:
    """Tell whether process ``pid``, started at ``start`` (field 22 of its stat file, 0 = unknown), is running.

    A zombie is not: it will never write again.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
        return fields[_STATE] not in {b"Z", b"X", b"x"} and start in {0, int(fields[_START])}
    except ProcessLookupError:
        return False  # it ended while it was being looked at
    except FileNotFoundError:
        return False if os.path.exists("/proc/self/stat") else _answers(pid)
    except (OSError, IndexError, ValueError):
        return True  # nobody can tell; a file that may be in use stays


def start_of(pid: int) -> int:
    """Give when a process was started (field 22 of its stat file), which tells a reused pid; 0 where nobody can say."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[_START])
    except (OSError, IndexError, ValueError):
        return 0


def _answers(pid: int) -> bool:
    """Tell whether there is such a process, where no /proc is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
