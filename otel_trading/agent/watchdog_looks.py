"""What there is to see in a directory of segments; the twin of ``_native/watchdog/look.c``.

All of it is hostile: links are not followed, files are regular and this user's, offsets are checked, nothing is mapped,
and a look has an end whatever the files say.
"""

from __future__ import annotations

import os
import stat
import struct
import time

from otel_trading import _layout as at
from otel_trading.agent import watchdog_rules as rules
from otel_trading.segment.process import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class AgentWords(NamedTuple):
        """What an agent says in its page."""

        pid: int
        start: int
        beat_ns: int
        state: int

else:
    from collections import namedtuple

    AgentWords = namedtuple("AgentWords", ("pid", "start", "beat_ns", "state"))  # noqa: PYI024  typing is not loaded

MOST_SEGMENTS = 256
MOST_ENTRIES = 4096
_LONGEST = 39  # characters of a label
_FARTHEST = 1 << 20
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_DEAD = ("Z", "X", "x")
_STOPPED = ("T", "t")
_MOST_PID = (1 << 31) - 1
_SIGNED = (1 << 63) - 1
_WORD = (1 << 64) - 1
_NS_PER_MS = 1_000_000
_STEERING = struct.Struct("<QQQ")  # host, host_now, drained_by


def state_of(pid: int) -> tuple[str, int]:
    """Give a process's state, a letter of its stat file, and when it started; ("", 0): there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(1024).rpartition(b")")[2].split()
        return fields[0].decode("ascii"), int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", 0


def open_own(directory: int, name: str, flags: int) -> int:
    """Open a regular file of this user's in a directory; -1 where it is not one."""
    try:
        fd = os.open(name, flags | _FLAGS, dir_fd=directory)
    except (OSError, ValueError):
        return -1
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        return fd
    os.close(fd)
    return -1


def _read(fd: int, size: int, offset: int) -> bytes | None:
    try:
        found = os.pread(fd, size, offset)
    except (OSError, OverflowError):
        return None
    return found if len(found) == size else None


def _word(data: bytes, offset: int, size: int = 8) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


# ---- the agent ----


def read_page(fd: int) -> AgentWords | None:
    """Read an agent's page; None where it is not one."""
    page = _read(fd, at.SIZE_AGENT, 0)
    if page is None or _word(page, at.OFF_AGENT_MAGIC) != at.AGENT_MAGIC:
        return None
    pid = _word(page, at.OFF_AGENT_PID)
    if _word(page, at.OFF_AGENT_VERSION) != at.AGENT_VERSION or not 1 < pid <= _MOST_PID:
        return None
    return AgentWords(
        pid, _word(page, at.OFF_AGENT_PROCESS_START), _word(page, at.OFF_AGENT_BEAT_NS), _word(page, at.OFF_AGENT_STATE)
    )


def write_page(fd: int, pid: int, beat_ns: int, restarts: int, gave_up: int) -> None:
    """Write the watchdog's own part of it."""
    if read_page(fd) is not None:  # never into what is something else
        try:
            os.pwrite(fd, struct.pack("<4Q", pid, beat_ns, restarts, gave_up), at.OFF_AGENT_WATCHDOG_PID)
        except OSError:
            return


# ---- segments ----


def _hash(name: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in name:
        found = (found ^ byte) * 0x100000001B3 & _WORD
    return found


def plain(text: bytes) -> str:
    """Give text as a label may have it: printable ASCII without quotes and backslashes, 39 characters."""
    return "".join(chr(c) if 0x20 <= c <= 0x7E and c not in b'"\\' else "_" for c in text[:_LONGEST])  # noqa: PLR2004


def _service(name: bytes) -> str:
    """A segment's file is called SERVICE-PID-TIME.seg."""
    parts = name.rsplit(b"-", 2)
    return plain(parts[0] if len(parts) == 3 and parts[0] else name)  # noqa: PLR2004


def _name(fd: int, header: bytes, number: int) -> str:
    if number < _word(header, at.OFF_HEADER_MAX_NAMES, 4):
        entry = _read(fd, at.SIZE_NAME, _word(header, at.OFF_HEADER_NAMES_OFFSET) + number * at.SIZE_NAME)
        if entry is not None:
            offset, size = _word(entry, 0, 4), min(_word(entry, 4, 4), _LONGEST + 1)
            if size and offset + size <= _word(header, at.OFF_HEADER_TEXT_BYTES):
                text = _read(fd, size, _word(header, at.OFF_HEADER_TEXT_OFFSET) + offset)
                if text is not None:
                    return plain(text)
    return "?"


def _page(fd: int, header: bytes, field: int, size: int, file_bytes: int) -> bytes | None:
    offset = _word(header, field)
    if offset % at.PAGE or not at.PAGE <= offset <= _FARTHEST or offset + size > file_bytes:
        return None
    return _read(fd, size, offset)


def _same_boot(header: bytes, boot: tuple[int, int]) -> bool:
    theirs = _word(header, at.OFF_HEADER_BOOT_ID), _word(header, at.OFF_HEADER_BOOT_ID + 8)
    return theirs == boot or not any(theirs) or not any(boot)


class Segments:
    """Tells the rules of each drain and each loop in a directory."""

    def __init__(self, told: rules.Rules) -> None:
        """Tell these rules."""
        self._rules = told
        self._boot = boot_id()

    def look(self, directory: int) -> int:
        """Look at all of them; gives how many there were."""
        found = 0
        try:
            with os.scandir(directory) as entries:
                for seen, entry in enumerate(entries):
                    if seen >= MOST_ENTRIES or found >= MOST_SEGMENTS:
                        break
                    name = entry.name
                    fd = open_own(directory, name, os.O_RDONLY) if name.endswith(".seg") and len(name) > 4 else -1  # noqa: PLR2004
                    if fd >= 0:
                        try:
                            found += self.look_at(fd, os.fsencode(name))
                        finally:
                            os.close(fd)
        except OSError:
            return found
        return found

    def look_at(self, fd: int, name: bytes) -> bool:
        """Look at one; False where it is no segment that is written now."""
        file_bytes = os.fstat(fd).st_size
        header = _read(fd, at.SIZE_HEADER, 0)
        if header is None or _word(header, 0) != at.MAGIC or _word(header, at.OFF_HEADER_VERSION, 4) != at.VERSION:
            return False
        pid = _word(header, at.OFF_HEADER_PID, 4)
        if _word(header, at.OFF_HEADER_CLOSED, 4) or not 1 < pid <= _MOST_PID or not _same_boot(header, self._boot):
            return False
        control = _page(fd, header, at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL, file_bytes)
        life = _page(fd, header, at.OFF_HEADER_LIFE_OFFSET, at.SIZE_LIFE, file_bytes)
        if control is None or life is None:
            return False
        key = _hash(name)
        passes = _word(control, at.OFF_CONTROL_PASSES) & _SIGNED
        beats = _beats(life)
        state = ""
        if self._rules.passed(key, passes) is not True or any(age > limit for _, _, age, limit in beats):
            state, start = state_of(pid)  # else it is alive, as something goes on
            if not state or state in _DEAD or _word(header, at.OFF_HEADER_PROCESS_START) not in {0, start}:
                return True
        label = rules.Label(pid, _service(name))
        self._tell_drain(control, key, passes, state, label)
        for number, called, age, limit in beats:
            own = key ^ (0x9E3779B97F4A7C15 * (number + 1) & _WORD)
            if self._rules.passed(own, 0) is None:
                label = label._replace(name=_name(fd, header, called))
            self._rules.subject(rules.LOOP, own, age, limit, stopped=state in _STOPPED, label=label)
        return True

    def _tell_drain(self, control: bytes, key: int, passes: int, state: str, label: rules.Label) -> None:
        host, host_now, drained_by = _STEERING.unpack_from(control, at.OFF_CONTROL_HOST)
        kind = rules.MISSING
        if drained_by:
            kind = rules.DRAIN if host_now == at.HOST_AGENT else rules.EMBEDDED
            if kind == rules.DRAIN and state:
                state = state_of(drained_by)[0] if drained_by <= _MOST_PID else ""
        elif host != at.HOST_AGENT:
            return  # it is just beginning, or ending
        self._rules.subject(kind, key, passes, 0, stopped=state in _STOPPED, label=label)


def _beats(life: bytes) -> list[tuple[int, int, int, int]]:
    """Give the loops that do not rest: number, name's id, age of the beat and what is late, ms."""
    now = time.monotonic_ns()
    found = []
    for number in range(min(_word(life, at.OFF_LIFE_BEAT_COUNT), at.BEATS)):
        beat = _word(life, at.OFF_LIFE_BEAT_NS + 8 * number)
        if beat:
            limit = min(_word(life, at.OFF_LIFE_BEAT_LATE_NS + 8 * number), _SIGNED) // _NS_PER_MS
            age = (now - beat) // _NS_PER_MS if beat < now else 0
            found.append((number, _word(life, at.OFF_LIFE_BEAT_NAME + 4 * number, 4), age, limit))
    return found
