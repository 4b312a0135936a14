"""How a process ended: by what the kernel says, and by what the process told itself.

The kernel is asked in three ways.  ``PIDFD_GET_INFO`` with ``PIDFD_INFO_EXIT`` (Linux 6.15) tells once the parent has
reaped the process; before that field 52 of the zombie's ``/proc/PID/stat`` does; a kill for want of memory is the
difference of counts that ``Before`` noted when the process was still alive.
"""

from __future__ import annotations

import os
import struct
import time

from otel_trading import _layout as at
from otel_trading.forensics import oom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# linux/pidfd.h: _IOWR(0xFF, 11, struct pidfd_info) with the struct's second size, 72 bytes
_INFO = struct.Struct("=QQ11IiII")
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
_INFO_EXIT, _INFO_COREDUMP = 1 << 3, 1 << 4
_COREDUMPED = 1
_EXIT_CODE, _CORE_MASK = 13, 14  # items of the struct
_STAT_START, _STAT_EXIT_CODE = 19, 49  # fields 22 and 52 of /proc/PID/stat, counted after the command's name

_CORE_BIT, _SIGNAL_BITS = 0x80, 0x7F  # of a wait status
_PATIENCE = 0.05  # seconds: between a death and the reaping neither source may answer
_SIGKILL = 9
_RECENT = 60.0  # seconds
_MOST_CODE = 255  # of an exit; a process that can not know its own tells -1

ALIVE, EXIT, SIGNAL, GONE = "alive", "exit", "signal", "gone"


def signal_name(number: int) -> str:
    """Give "SIGKILL" for 9, "signal 77" for one without a name."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Before:
    """What has to be known of a process while it lives, to judge its end; some 1 ms, never raises.

    ``kills``: the counts of processes killed for want of memory, of its control groups and of the system (key "");
    ``memory_limit`` and ``address_space_limit``: bytes, or None; ``process_start``: field 22 of its stat file, or 0.
    """

    __slots__ = ("address_space_limit", "kills", "memory_limit", "pid", "process_start")

    def __init__(self, pid: int) -> None:
        """Look at process ``pid``."""
        self.pid = pid
        self.process_start = _started(pid)
        groups = oom.memory_cgroups(pid)
        self.kills: dict[str, int] = {}
        for where in (*groups, ""):
            count = oom.cgroup_kills(where) if where else oom.system_kills()
            if count is not None:
                self.kills[where] = count
        limits = [limit for limit in map(oom.cgroup_limit, groups) if limit is not None]
        self.memory_limit: int | None = min(limits, default=None)
        self.address_space_limit: int | None = oom.address_space_limit(pid)

    def pack(self) -> dict[str, Any]:
        """Give it as plain values that JSON can hold."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Before:
        """Make it again from ``pack``'s values.  Raises KeyError where one is missing."""
        made = cls.__new__(cls)
        for name in cls.__slots__:
            setattr(made, name, packed[name])
        return made

    def refresh(self) -> None:
        """Take the counts of now, the process being alive: what was killed before was not this one.  Some 50 µs."""
        for where, count in self.kills.items():
            now = oom.cgroup_kills(where) if where else oom.system_kills()
            self.kills[where] = count if now is None else now

    def killed_for_memory(self) -> str | None:
        """Say, in a sentence, which count of kills for want of memory has risen since; None where none has."""
        for where, count in self.kills.items():
            now = oom.cgroup_kills(where) if where else oom.system_kills()
            if now is not None and now > count:
                what = f"of control group {where}" if where else "of the whole system"
                return f"the kernel's count of OOM kills {what} rose from {count} to {now}"
        return None


class End:
    """How a process ended.

    ``kind``: "alive", "exit" (``code``), "signal" (``signal``), or "gone": without a word.  ``exception``: type of an
    exception that nobody caught; ``oom``: a sentence where the kernel killed it for want of memory.  ``source``: who
    says so; ``certainty``: 0 to 1; ``unix_ns``: when, 0 where nobody knows.
    """

    __slots__ = ("certainty", "code", "core_dumped", "exception", "kind", "oom", "pid", "signal", "source", "unix_ns")

    def __init__(
        self,
        kind: str,
        *,
        pid: int = 0,
        code: int | None = None,
        signal: int | None = None,
        core_dumped: bool = False,
        exception: str | None = None,
        oom: str | None = None,
        source: str = "",
        certainty: float = 0.0,
        unix_ns: int = 0,
    ) -> None:
        """Describe it."""
        self.kind = kind
        self.pid = pid
        self.code = code
        self.signal = signal
        self.core_dumped = core_dumped
        self.exception = exception
        self.oom = oom
        self.source = source
        self.certainty = certainty
        self.unix_ns = unix_ns

    def __repr__(self) -> str:
        return f"<End {self.text!r} by {self.source or 'nobody'}>"

    def pack(self) -> dict[str, Any]:
        """Give it as plain values that JSON can hold."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> End:
        """Make it again from ``pack``'s values.  Raises KeyError where one is missing."""
        return cls(**{name: packed[name] for name in cls.__slots__})

    @property
    def text(self) -> str:
        """In a few words: "killed by SIGKILL, for want of memory"."""
        if self.kind == ALIVE:
            return "it is alive"
        if self.kind == SIGNAL and self.signal is not None:
            text = f"killed by {signal_name(self.signal)}"
            text += ", for want of memory" if self.oom else ""
        elif self.kind == EXIT and self.exception:
            text = f"uncaught {self.exception}"
            text += "" if self.code is None else f", exit code {self.code}"
        elif self.kind == EXIT:
            text = "orderly end" if self.code is None else f"exit code {self.code}"
        else:
            text = "gone without a word"
        return text + (", core dumped" if self.core_dumped else "")

    @property
    def orderly(self) -> bool:
        """Whether it ended as programs should: exit code 0, or none known after an orderly end."""
        return self.kind == EXIT and not self.code and not self.exception

    @property
    def requested(self) -> bool:
        """Whether somebody asked it to end, with SIGTERM, SIGINT or SIGHUP."""
        return self.kind == SIGNAL and self.signal in {1, 2, 15}


def _of_status(status: int, source: str, **known: Any) -> End:
    """Read a wait status: what ``waitpid`` gives."""
    number = status & _SIGNAL_BITS
    if number:
        return End(SIGNAL, signal=number, core_dumped=bool(status & _CORE_BIT), source=source, certainty=1.0, **known)
    return End(EXIT, code=status >> 8 & 0xFF, source=source, certainty=1.0, **known)


def _ask_pidfd(pidfd: int) -> tuple[int, bool] | None:
    """Give (wait status, whether a core was dumped) of a process that has been reaped; None where it does not say."""
    import fcntl

    answer = bytearray(_INFO.size)
    struct.pack_into("=Q", answer, 0, _INFO_EXIT | _INFO_COREDUMP)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, answer, True)
    except (OSError, ValueError):  # an older kernel
        return None
    items = _INFO.unpack(answer)
    if not items[0] & _INFO_EXIT:
        return None
    return items[_EXIT_CODE], bool(items[0] & _INFO_COREDUMP and items[_CORE_MASK] & _COREDUMPED)


def _stat(pid: int) -> list[str]:
    """Give the fields of /proc/PID/stat from the third on, the state; empty where there is no such process."""
    return oom.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _started(pid: int) -> int:
    """Give field 22 of a process's stat file, ticks since the system's start; 0 where it can not be read."""
    fields = _stat(pid)
    return int(fields[_STAT_START]) if len(fields) > _STAT_START and fields[_STAT_START].isdigit() else 0


def _zombie_status(pid: int, process_start: int) -> int | None:
    fields = _stat(pid)
    if len(fields) <= _STAT_EXIT_CODE or fields[0] not in {"Z", "X", "x"}:
        return None
    if process_start and fields[_STAT_START] != str(process_start):
        return None
    code = fields[_STAT_EXIT_CODE]
    return int(code) if code.isdigit() else None  # 0 also where we may not know: told by nobody then


def _may_know(pid: int) -> bool:
    """Tell whether the kernel shows us a zombie's exit code: to root, and to its own user."""
    try:
        return os.geteuid() in {0, os.stat(f"/proc/{pid}").st_uid}
    except OSError:
        return False


def look(
    pid: int,
    *,
    pidfd: int | None = None,
    before: Before | None = None,
    told: Mapping[str, Any] | None = None,
    process_start: int = 0,
    created_ns: int = 0,
    closed: bool = False,
    patience: float = _PATIENCE,
) -> End:
    """Say how process ``pid`` ended; takes up to ``patience`` s where the kernel has no answer yet.  Never raises.

    ``pidfd``: opened while it lived; ``before``: made then; ``told``: ``ending`` of Reader.life();
    ``process_start``: field 22 of its stat file, which tells a reused pid; ``created_ns``: when its segment was made;
    ``closed``: whether that was closed.
    """
    now = time.time_ns()
    process_start = process_start or (before.process_start if before is not None else 0)
    deadline = time.monotonic() + patience
    while True:
        end = _asked(pid, pidfd, process_start, now)
        if end is not None or (pidfd is None and not _stat(pid)) or time.monotonic() >= deadline:
            break
        time.sleep(0.002)
    if end is None:
        end = End(GONE, pid=pid, unix_ns=now if pidfd is not None else 0)
    if end.kind in {GONE, SIGNAL} and end.signal in {None, _SIGKILL}:
        end = _for_memory(end, before, process_start)
    end = with_told(end, told, closed=closed)
    end.unix_ns = max(end.unix_ns, created_ns) if end.unix_ns else 0
    return end


def _asked(pid: int, pidfd: int | None, process_start: int, now: int) -> End | None:
    # Reaping may happen between two questions: so the pidfd is asked again after the zombie.
    for source in ("pidfd", "stat", "pidfd"):
        if source == "pidfd" and pidfd is not None:
            answer = _ask_pidfd(pidfd)
            if answer is not None:
                end = _of_status(answer[0], "the kernel (pidfd)", pid=pid, unix_ns=now)
                end.core_dumped = end.core_dumped or answer[1]
                return end
        elif source == "stat":
            known = _may_know(pid)
            status = _zombie_status(pid, process_start) if known else None
            if status is not None:
                return _of_status(status, "the kernel (zombie)", pid=pid, unix_ns=now)
    return None


def _for_memory(end: End, before: Before | None, process_start: int) -> End:
    """Note that the kernel killed it for want of memory, where it says so."""
    line = oom.told_by_kernel(end.pid, _since_boot_us(end.pid, process_start))
    if line:
        end.oom = f'the kernel\'s log says: "{line}"'
    elif line is None and before is not None and end.kind == SIGNAL:  # else it was another one that was killed so
        end.oom = before.killed_for_memory()
    if end.oom and end.kind == GONE:
        end.kind, end.signal, end.source, end.certainty = SIGNAL, _SIGKILL, "the kernel's log", 0.95
    return end


def _since_boot_us(pid: int, process_start: int) -> int:
    """Give when the process started, by the clock of the kernel's log; pids come again.

    Of one of which nobody knows that, only what the log says of the last minute is taken.
    """
    start = process_start or _started(pid)
    if start:
        # The log's clock stands still while the machine sleeps, the one of process starts does not.
        slept = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic() if hasattr(time, "CLOCK_BOOTTIME") else 0.0
        return max(0, start * 1_000_000 // os.sysconf("SC_CLK_TCK") - round(max(0.0, slept - 1.0) * 1e6))
    return max(0, round((time.monotonic() - _RECENT) * 1e6))


def with_told(end: End, told: Mapping[str, Any] | None, *, closed: bool = False) -> End:
    """Complete ``end`` by what the process told of itself; the kernel's words stand against it."""
    told = told or {}
    kind, name, when = told.get("kind") or 0, told.get("name"), told.get("unix_ns") or 0
    code = told.get("code")
    if kind == at.ENDING_EXCEPTION and end.kind in {EXIT, GONE}:
        end.exception = str(name or "exception")
    if end.kind != GONE:
        return end
    if kind == at.ENDING_SIGNAL and isinstance(code, int):
        end.kind, end.signal = SIGNAL, code
    elif kind == at.ENDING_EXCEPTION:
        end.kind, end.code = EXIT, 1
    elif kind == at.ENDING_EXIT:
        end.kind, end.code = EXIT, code if isinstance(code, int) and 0 <= code <= _MOST_CODE else None
    elif closed:
        end.kind = EXIT
    else:
        return end
    end.source, end.certainty = ("the process itself", 0.9) if kind else ("its closed segment", 0.8)
    end.unix_ns = end.unix_ns or when
    return end
