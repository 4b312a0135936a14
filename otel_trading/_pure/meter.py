"""The meter: what monitoring uses, by the calibrated costs of records and by its threads' own clocks."""

from __future__ import annotations

import os
import time
from _thread import RLock, _local, get_native_id
from collections import deque
from math import inf, isnan

from otel_trading import _layout as at
from otel_trading._pure import keeping
from otel_trading._pure.market import watch
from otel_trading._pure.passes import drain
from otel_trading._pure.recorder import recorder
from otel_trading._pure.system_files import SystemFile, field_of, number_of
from otel_trading._real_threads import real_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.engine import Figures
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.rules import Policy

_UPDATES = at.OFF_INSTRUMENT_UPDATES // 8
_NETWORK_TOTAL = at.OFF_READINGS_NETWORK_TOTAL // 8
_DISK_TOTAL = at.OFF_READINGS_DISK_TOTAL // 8
_CPU_TOTAL = at.OFF_READINGS_CPU_TOTAL // 8
_OWN_OFTEN = 1.0  # seconds between looks at this process's memory
_NS = 1e-9
_OFTEN = 16  # looks a window, at most
_CLOSE = 1e-9
_THREADS = 16  # that can be counted at once
_RECORDS = slice(at.COST_FLAT, at.COST_BLOCK + 1)
"""Costs of what an operation's records are made of."""


class _Clock:
    """A thread whose CPU time is monitoring's."""

    __slots__ = ("_clock", "_from", "_io", "_wrote", "ended", "writes")

    def __init__(self) -> None:
        # The clock's id stays safe to ask for when the thread is gone, as its identifier would not.
        self._io = SystemFile(f"/proc/self/task/{get_native_id()}/io")
        self._clock = time.pthread_getcpuclockid(real_ident()) if hasattr(time, "pthread_getcpuclockid") else None
        self._from = time.thread_time_ns()
        self._wrote = self._writes()
        self.ended: int | None = None
        self.writes = 0  # so far

    def _writes(self) -> int:
        calls = field_of(self._io.text(512), "syscw:")
        return 0 if isnan(calls) else int(calls)

    def ns(self) -> int:
        """Give the CPU time so far, and look how often the thread has written."""
        if self.ended is not None:
            return self.ended
        self.writes = max(self.writes, self._writes() - self._wrote)
        if self._clock is None:
            return 0
        try:
            return time.clock_gettime_ns(self._clock) - self._from
        except OSError:
            return 0

    def end(self) -> None:
        """Stop, in the thread itself."""
        if self.ended is None:
            self.writes = max(self.writes, self._writes() - self._wrote)
            self.ended = time.thread_time_ns() - self._from


class _Keeper:
    """Ends the clock of a thread with the thread."""

    __slots__ = ("clock",)

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock

    def __del__(self) -> None:
        try:
            self.clock.end()
        except (AttributeError, TypeError):  # the interpreter is coming down
            return


class _Here:
    keeper: _Keeper | None


_here: _Here = _local()  # type: ignore[assignment]  # a class of our own would be slower


class _Own:
    """The memory of a process that is there for another one's segment alone."""

    __slots__ = ("_at", "_bytes", "_smaps", "_statm")

    def __init__(self) -> None:
        self._smaps = SystemFile("/proc/self/smaps_rollup")
        self._statm = SystemFile("/proc/self/statm")
        self._at, self._bytes = -inf, 0

    def bytes(self, now: float, exporters: float) -> int:
        """Give its own, the segment and the exporters' libraries left out; looked at once a second."""
        if not 0 <= now - self._at < _OWN_OFTEN:
            self._at = now
            text = self._smaps.text().replace(":", "").replace(" kB", "")
            taken = (field_of(text, "Pss_Anon") + field_of(text, "Pss_File")) * 1024
            if isnan(taken):
                _, resident, shared = map(number_of, [*self._statm.text(256).split()[:3], "", "", ""][:3])
                taken = (resident - shared) * os.sysconf("SC_PAGE_SIZE")
            self._bytes = 0 if isnan(taken) else max(0, int(taken - exporters))
        return self._bytes


class _Sample:
    """Totals at one moment."""

    __slots__ = ("disk", "drain_ns", "export_ns", "governor_ns", "hot", "network", "now", "operations", "spans")

    def __init__(self, now: float) -> None:
        self.now = now
        self.hot = self.spans = 0.0  # seconds of the recording threads; of those, what spans took
        self.operations = 0
        self.drain_ns = self.export_ns = self.governor_ns = 0
        self.network = self.disk = 0


class Meter:
    """One a process."""

    def __init__(self) -> None:
        self.lock = RLock()
        self._clocks: list[_Clock] = []
        self.reset()

    def reset(self, file: SegmentFile | None = None, *, whole_process: bool = False) -> None:
        """Begin with a new segment; ``whole_process``: it is another's, and all that this one uses is monitoring's."""
        self._own = _Own() if whole_process else None
        self._carried = (0, 0, 0)  # network, disk, CPU in ns: totals of those that governed before
        self._origin_ns: int | None = 0  # of the CPU total; None: the next look's
        self.network = self.disk = 0
        self.governor_ns = 0
        self.cpu_total_ns = 0
        self.segment_bytes = self.heap_bytes = 0
        self.shares = (0.0, 0.0, 0.0, 0.0)  # of the CPU: recording threads, drain, exporters, governor
        self._counted = self._operations = 0  # disk operations that were told, now and at the last look
        self._writes = 0  # of the threads, as the kernel saw them
        self._usage = [0.0] * at.BUDGETS
        self._samples: deque[_Sample] = deque()
        self._gone_ns, self._gone_writes = 0, 0  # of threads that have ended or left
        self._clocks = [clock for clock in self._clocks if clock.ended is None]
        self._export_base = self._export_ns()
        self._writes = self._thread_writes()
        if file is not None and whole_process:
            self.resume(file)

    def resume(self, file: SegmentFile) -> None:
        """Go on with the totals of who governed before."""
        words, first = file.words, file.readings // 8
        self._samples.clear()
        self._origin_ns = None
        network, disk, cpu = (words[first + place] for place in (_NETWORK_TOTAL, _DISK_TOTAL, _CPU_TOTAL))
        self._carried = (network - self.network, disk - self.disk, cpu)

    def forked(self) -> None:
        """Forget, in a child, the parent's threads."""
        self.lock = RLock()
        self._clocks = []
        _here.__dict__.clear()
        self.reset()

    @property
    def network_total(self) -> int:
        """Bytes so far, those included that were sent by who governed before."""
        return max(0, self.network + self._carried[0])

    @property
    def disk_total(self) -> int:
        """Operations so far, likewise."""
        return max(0, self.disk + self._carried[1])

    def look(self, file: SegmentFile, figures: Figures, policy: Policy) -> None:
        """Fill in what was used over the policy's window."""
        now, samples = figures.now, self._samples
        if samples and now < samples[-1].now:  # another clock
            samples.clear()
        if not samples or now - samples[-1].now >= policy.window / _OFTEN:
            samples.append(self._sample(file, now, policy))
            while len(samples) > 1 and now - samples[1].now >= policy.window - _CLOSE:
                samples.popleft()
            self._use(samples[0], samples[-1], policy.window)
            self.segment_bytes = file.resident_bytes()
            self.heap_bytes = keeping.heap_bytes()
            taken = self.heap_bytes if self._own is None else self._own.bytes(now, policy.exporter_memory)
            self._usage[at.BUDGET_MEMORY] = self.segment_bytes + taken + policy.base_memory
        figures.usage = self._usage.copy()

    def _use(self, past: _Sample, sample: _Sample, window: float) -> None:
        elapsed = max(sample.now - past.now, window)
        self.shares = (
            (sample.hot - past.hot) / elapsed,
            (sample.drain_ns - past.drain_ns) * _NS / elapsed,
            (sample.export_ns - past.export_ns) * _NS / elapsed,
            (sample.governor_ns - past.governor_ns) * _NS / elapsed,
        )
        total = int(sample.hot / _NS) + sample.drain_ns + sample.export_ns + sample.governor_ns
        if self._origin_ns is None:
            self._origin_ns = total
        self.cpu_total_ns = max(0, total - self._origin_ns + self._carried[2])
        operations = sample.operations - past.operations
        usage = self._usage
        usage[at.BUDGET_CPU] = sum(self.shares)
        usage[at.BUDGET_LATENCY] = (sample.spans - past.spans) / operations if operations > 0 else 0.0
        usage[at.BUDGET_NETWORK] = (sample.network - past.network) / elapsed
        usage[at.BUDGET_DISK] = (sample.disk - past.disk) / elapsed

    def _sample(self, file: SegmentFile, now: float, policy: Policy) -> _Sample:
        sample = _Sample(now)
        words = file.words
        counts = drain.classes.copy()
        counts[at.COST_UPDATE] = sum(
            words[(file.instruments + at.SIZE_INSTRUMENT * number) // 8 + _UPDATES]
            for number, instrument in enumerate(drain.tables.instruments)
            if instrument.kind != at.INSTRUMENT_HISTOGRAM
        )
        counts[at.COST_MARKET] = watch.updates(file)
        costs = [count * cost for count, cost in zip(counts, policy.cost)]  # noqa: B905  eight each
        sample.hot = sum(costs)
        sample.spans = sum(costs[_RECORDS])
        sample.operations = drain.operations
        sample.drain_ns = drain.cpu_ns
        sample.governor_ns = self.governor_ns
        if self._own is None:
            sample.export_ns = self._export_ns() - self._export_base
        else:  # what is not drain or governor is there for the exports
            sample.export_ns = max(0, time.process_time_ns() - sample.drain_ns - sample.governor_ns)
        sample.network = self.network
        sample.disk = self._disk_operations()
        return sample

    def _disk_operations(self) -> int:
        """Add what was counted and what the kernel saw the threads do, which may be the same writes: the larger."""
        with self.lock:
            wrote, self._writes = self._writes, self._thread_writes()
            counted, self._operations = self._operations, self._counted
            self.disk += max(self._operations - counted, self._writes - wrote)
            return self.disk

    def _export_ns(self) -> int:
        return self._gone_ns + sum(clock.ns() for clock in list(self._clocks))

    def _thread_writes(self) -> int:
        return self._gone_writes + sum(clock.writes for clock in list(self._clocks))

    def count_thread(self, *, on: bool) -> None:
        """Count the calling thread from now on, or no longer."""
        keeper = getattr(_here, "keeper", None)
        if on == (keeper is not None):
            return
        if keeper is not None:
            keeper.clock.end()
            _here.keeper = None
            return
        with self.lock:
            # Ended ones are added up, so that the list is as long as there are threads.
            for one in [one for one in self._clocks if one.ended is not None]:
                self._gone_ns += one.ns()
                self._gone_writes += one.writes
                self._clocks.remove(one)
            if len(self._clocks) >= _THREADS:
                recorder.fault()
                return
            clock = _Clock()
            self._clocks.append(clock)
        _here.keeper = _Keeper(clock)

    def count_io(self, network_bytes: int, disk_operations: int) -> None:
        """Count what an exporter sent and wrote."""
        with self.lock:
            self.network += network_bytes
            self._counted += disk_operations


meter = Meter()


def count_thread(on: bool, /) -> None:  # noqa: FBT001  the interface
    """Whether the calling thread's CPU time, from now on, is monitoring's."""
    meter.count_thread(on=bool(on))


def count_io(network_bytes: int, disk_operations: int, estimated_bytes: int = 0, /) -> None:
    """Count what an exporter sent and wrote.  ``estimated_bytes``: what the bucket had been charged for it."""
    if min(network_bytes, disk_operations, estimated_bytes) < 0:
        raise ValueError("count_io() counts what was sent and written, which is never less than nothing")
    meter.count_io(network_bytes, disk_operations)
    keeping.learn(network_bytes, estimated_bytes)


def hardware_cycles() -> int | None:
    """Give the processor's own count of the calling thread's cycles; None: this backend has no way to it."""
    return None
