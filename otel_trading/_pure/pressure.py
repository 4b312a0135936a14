"""Pressure: how loaded what this process may use is, processors and memory.

The kernel counts CPU time in units of 10 ms: a load is taken over some of them, and a shorter look has to be sure of
what it says by a unit.
"""

from __future__ import annotations

import os
from math import inf, isnan, nan

from otel_trading._pure.cgroups import Groups
from otel_trading._pure.system_files import SystemFile, field_of, number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.cgroups import Group
    from otel_trading._pure.engine import Figures

_LONG = 0.095  # seconds
_SHORT = 0.045
_BETWEEN = 0.009  # samples
_SAMPLES = 16
_SLOWLY = 0.09  # seconds between looks at memory
_STALLS = 0.45  # between looks at stalls, which nothing is decided by
_LIMITS = 1.0  # seconds between looks at limits and affinity
_FIELDS = 8  # user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in the first two
_IDLE, _IOWAIT = 3, 4
_LINE, _LINES = 256, 1 << 16  # bytes of a line of stat, and of all lines of processors


class _Sample:
    """The processors' time so far, in units."""

    __slots__ = ("idle", "now", "total", "used")

    def __init__(self, now: float, idle: int, total: int) -> None:
        self.now = now
        self.idle = idle
        self.total = total
        self.used: dict[str, float] = {}  # CPU seconds of each control group with a limit

    def load_since(self, before: _Sample, doubt: int) -> float:
        """Give the load, less ``doubt`` units; NaN where the time stands still."""
        total = self.total - before.total
        idle = max(0, self.idle - before.idle)  # the kernel's count of iowait can go back
        return min(max(1.0 - (idle + doubt) / total, 0.0), 1.0) if total > 0 else nan


class Pressure:
    """One a segment."""

    def __init__(self, root: str = "", pid: int = 0) -> None:
        """Look at what a process may use, 0: this one, below ``root``, which stands for "/"."""
        self._pid = pid
        self._groups = Groups(root, pid)
        self._limited: list[Group] = []  # in the CPU time that they may use
        self._stat = SystemFile(f"{root}/proc/stat")
        self._meminfo = SystemFile(f"{root}/proc/meminfo")
        self._affinity: set[str] | None = None  # processors that the process may run on, all where that is not told
        self._all = False  # those are all that there are: the first line of stat counts
        self._memory_load = nan
        self._stalls = [_Stall(self._stall_file(root, what)) for what in ("cpu", "memory")]
        self._forget()

    def _forget(self) -> None:
        self._samples: list[_Sample] = []
        self._looked_at = self._stalls_at = self._limits_at = -inf  # memory; stalls; limits and affinity

    def _stall_file(self, root: str, what: str) -> SystemFile:
        own = SystemFile(f"{self._groups.unified}/{what}.pressure" if self._groups.unified is not None else "")
        return own or SystemFile(f"{root}/proc/pressure/{what}")

    def look(self, figures: Figures) -> None:
        """Fill in what the system tells."""
        now = figures.now
        if now < self._looked_at or (self._samples and now < self._samples[-1].now):  # another clock
            self._forget()
        if now - self._limits_at >= _LIMITS:
            self._limits_at = now
            for group in (*self._groups.cpu, *self._groups.memory):
                group.look_at_limits()
            self._limited = [group for group in self._groups.cpu if group.cpus < inf]
            self._affinity = _affinity(self._pid)
            self._all = False
        figures.cpu_load = self._cpu_load(now)
        if now - self._looked_at >= _SLOWLY:
            self._looked_at = now
            self._memory_load = self._look_at_memory()
        if now - self._stalls_at >= _STALLS:
            elapsed, self._stalls_at = now - self._stalls_at, now
            for stall in self._stalls:
                stall.look(elapsed)
        figures.memory_load = self._memory_load
        figures.cpu_stall, figures.memory_stall = (stall.share for stall in self._stalls)

    # ---- processors ----

    def _cpu_load(self, now: float) -> float:
        """Give the load: 0 until there are two samples, NaN where it can not be told."""
        sample = self._sample(now)
        if sample is None:
            return nan
        for group in self._limited:
            sample.used[group.path] = group.cpu_seconds()
        near = _newest(self._samples, now - _SHORT)
        far = _newest(self._samples, now - _LONG) or near
        load = 0.0
        if far is not None and near is not None:
            load = sample.load_since(far, 0)
            if near is not far and sample.load_since(near, 1) > load:
                load = sample.load_since(near, 1)
            for group in self._limited:
                used = (sample.used[group.path] - far.used.get(group.path, nan)) / (now - far.now) / group.cpus
                if used > load:
                    load = min(used, 1.0)
        if not self._samples or now - self._samples[-1].now >= _BETWEEN:
            self._samples.append(sample)
            del self._samples[:-_SAMPLES]
        return load

    def _sample(self, now: float) -> _Sample | None:
        """Add up the times of the processors that this process may run on."""
        rows: dict[str, list[int]] = {}
        for line in self._stat.text(_LINE if self._all else _LINES).splitlines():
            name, *fields = line.split()[: _FIELDS + 1] or [""]
            if not name.startswith("cpu"):
                break
            numbers = [int(field) for field in fields if field.isdigit()]
            if len(numbers) > _IDLE:
                rows[name] = numbers
            if self._all:
                break
        total = rows.pop("cpu", None)
        own = [row for name, row in rows.items() if self._affinity is None or name[3:] in self._affinity]
        if total is not None and len(own) == len(rows):
            own = [total]
            self._all = True
        if not own:
            return None
        return _Sample(now, sum(sum(row[_IDLE : _IOWAIT + 1]) for row in own), sum(map(sum, own)))

    # ---- memory ----

    def _look_at_memory(self) -> float:
        text = self._meminfo.text(4096).replace(":", "").replace(" kB", "")
        total, available = field_of(text, "MemTotal") * 1024, field_of(text, "MemAvailable") * 1024
        load = 1.0 - available / total if total > 0 and available <= total else nan
        for group in self._groups.memory:
            used = group.memory_load(total)
            if used > load:
                load = min(used, 1.0)
        return load


class _Stall:
    """Pressure stall information of one kind: how long somebody waited."""

    def __init__(self, file: SystemFile) -> None:
        self.share = nan  # of the time between the last two looks; NaN = not known
        self._file = file
        self._seconds = nan  # so far

    def look(self, elapsed: float) -> None:
        text = self._file.text(512)
        total = text.partition("total=")[2].split("\n")[0] if text.startswith("some ") else ""
        seconds = number_of(total) * 1e-6
        share = (seconds - self._seconds) / elapsed
        self.share = share if isnan(share) else min(max(share, 0.0), 1.0)
        self._seconds = seconds


def _newest(samples: list[_Sample], latest: float) -> _Sample | None:
    """Give the newest sample that is not younger."""
    for sample in reversed(samples):
        if sample.now <= latest:
            return sample
    return None


def _affinity(pid: int) -> set[str] | None:
    try:
        return set(map(str, os.sched_getaffinity(pid)))
    except (AttributeError, OSError, OverflowError):  # none of Linux; a process that is gone, or can not be
        return None
