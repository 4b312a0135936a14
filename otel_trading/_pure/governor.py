"""The governor: what monitoring may cost, what it costs, and what is given up to keep to that.

One tick is pressure, market, meter, engine, enforcer, words, plan of the keep rules, readings.  It is made by the
thread ``otel-budget``, as often as the policy says, or by who calls ``govern``.
"""

from __future__ import annotations

import struct
import sys
import time
from _thread import RLock, get_ident
from math import nan

from otel_trading import _layout as at
from otel_trading._pure import buffers, keeping
from otel_trading._pure.decisions import Decision, count, note
from otel_trading._pure.enforcer import Enforcer
from otel_trading._pure.engine import Engine, Figures
from otel_trading._pure.instruments import number_of
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.market import watch
from otel_trading._pure.meter import meter
from otel_trading._pure.passes import drain
from otel_trading._pure.pressure import Pressure
from otel_trading._pure.recorder import recorder
from otel_trading._pure.rules import Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from threading import Event, Thread

    from otel_trading._pure.mapped import SegmentFile

_USAGE = ("cpu", "memory", "latency", "network", "disk")  # by BUDGET_*
_NAMES = frozenset(("now", "cpu_load", "memory_load", "cpu_stall", "memory_stall", "volatility", "volume", *_USAGE))
_IDLE = 0.05  # seconds between two looks at a policy that is not active
_LONGEST_PATH = 2048  # bytes
_LAST_WAIT = 5.0  # seconds for a tick that is going on
_MODE = (CONTROL + at.OFF_CONTROL_MODE) // 8
_READINGS = struct.Struct("<QQ6d5d6dQQQ5QQQdd4Q").pack_into
_TICKS = at.OFF_READINGS_TICKS
_PID = at.OFF_HEADER_PID // 4
_FAILED = at.OFF_READINGS_FAILED // 8
_WHOLE = (1 << 64) - 1


class Governor:
    """One a process."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.root = ""
        self._thread: Thread | None = None
        self._ending: Event | None = None
        self._file: SegmentFile | None = None
        self._ticks = 0
        self._governs = False
        self._broken = False  # the last tick failed
        self._page = bytes(at.SIZE_POLICY)
        self._rules = Policy(self._page)  # what the page says
        self._pressure: Pressure | None = None
        self._engine = Engine()

    # ---- life ----

    def start(self) -> None:
        """Start the thread, unless it runs."""
        from threading import Event, Thread  # only who governs needs it

        self._pressure = None  # its files are looked for anew
        if self._thread is None:
            self._ending = ending = Event()
            self._thread = Thread(target=self._run, args=(ending,), name="otel-budget", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread, after the tick that is going on."""
        thread, ending = self._thread, self._ending
        self._thread = self._ending = None
        if thread is not None and ending is not None:
            ending.set()
            if thread.ident != get_ident():
                thread.join(_LAST_WAIT)

    def forked(self) -> None:
        """Forget, in a child, the parent's thread, and who held the lock there."""
        self.lock = RLock()
        self._thread = self._ending = None
        self._file = self._pressure = None
        buffers.forked()
        meter.forked()
        watch.forked()

    def _run(self, ending: Event) -> None:
        while True:
            try:
                self.tick({})
            except Exception:  # noqa: BLE001  one that fails must not be the last
                sys.excepthook(*sys.exc_info())
            if ending.wait(self._period()):
                return

    def _period(self) -> float:
        file = drain.file
        policy = None if file is None else self._policy(file)
        return _IDLE if policy is None or not policy.active else policy.period

    def open(self, file: SegmentFile) -> None:
        """Begin with a segment that is laid out."""
        self._file = file
        self._ticks = 0
        self._governs = self._broken = False
        self._pressure = None
        self._engine = Engine()
        self._enforcer = Enforcer(file, self._engine)
        buffers.small.taken()
        watch.reset()
        meter.reset(file, whole_process=drain.adopted is not None)

    # ---- a tick ----

    def tick(self, given: Mapping[str, float]) -> int:
        """Make one tick; gives how many decisions there have been."""
        with self.lock:
            file = drain.file  # own, or another process's
            if file is None or file is not self._file:
                return 0
            policy = self._policy(file)
            if policy.active:
                self._governs = True
                began = time.thread_time_ns()
                self._try(file, policy, given)
                meter.governor_ns += time.thread_time_ns() - began
            elif self._governs:
                self._rest(file)
            return count()

    def _policy(self, file: SegmentFile) -> Policy:
        """Give the policy as it is now, which is seldom another one."""
        page = file.map[file.policy : file.policy + at.SIZE_POLICY]
        if page != self._page:
            self._page, self._rules = page, Policy(page)
        return self._rules

    def _try(self, file: SegmentFile, policy: Policy, given: Mapping[str, float]) -> None:
        """Make a tick; one that fails leaves recording as it was, and says so once."""
        try:
            self._tick(file, policy, given)
        except Exception:  # noqa: BLE001  whatever it is
            file.words[file.readings // 8 + _FAILED] = 1
            if not self._broken:
                self._broken = True
                note(file, [Decision(at.DECISION_FAILED, at.REASON_NONE, nan, 0.0, 0.0, 1.0)], self._engine.in_force)
                sys.excepthook(*sys.exc_info())
        else:
            if self._broken:
                self._broken = False
                note(file, [Decision(at.DECISION_WORKS, at.REASON_NONE, 0.0, 0.0, 1.0, 0.0)], self._engine.in_force)

    def _tick(self, file: SegmentFile, policy: Policy, given: Mapping[str, float]) -> None:
        if file.words[(file.readings + _TICKS) // 8] != self._ticks:
            self._resume(file)
        engine, enforcer = self._engine, self._enforcer
        figures = self._look(file, policy, given)
        mode = engine.in_force
        decisions = engine.tick(file, figures, policy)
        decisions += enforcer.tick(figures, policy)
        enforcer.put_words()
        enforcer.switch_instruments(figures.cpu_load)
        note(file, decisions, mode)
        keeping.keep_plan(figures.now, policy.limits(engine.in_force)[at.BUDGET_NETWORK])
        self._write(file, figures)

    def _resume(self, file: SegmentFile) -> None:
        """Go on where another process has governed this segment, before or meanwhile: what it left in force stays."""
        self._ticks = file.words[(file.readings + _TICKS) // 8]
        self._engine = Engine()
        self._engine.resume(file)
        self._enforcer = Enforcer(file, self._engine)
        self._enforcer.resume()
        meter.resume(file)

    def _look(self, file: SegmentFile, policy: Policy, given: Mapping[str, float]) -> Figures:
        """Measure what is not given."""
        figures = Figures(given["now"] if "now" in given else time.monotonic())
        if self._pressure is None:
            self._pressure = Pressure(self.root, file.halves[_PID] if drain.adopted is not None else 0)
        self._pressure.look(figures)
        watch.look(file, figures, policy)
        meter.look(file, figures, policy)
        for name, value in given.items():
            if name in _USAGE:
                figures.usage[_USAGE.index(name)] = value
            else:
                setattr(figures, name, value)
        return figures

    def _rest(self, file: SegmentFile) -> None:
        """Give back what was given up: nothing is governed any longer."""
        self._governs = False
        self._enforcer.rest()
        self._engine = Engine()
        self._engine.rest(file)
        self._enforcer = Enforcer(file, self._engine)
        self._enforcer.put_words()

    def _write(self, file: SegmentFile, figures: Figures) -> None:
        """Write the page of readings, under its sequence lock."""
        words, seq = file.words, file.readings // 8
        kept = keeping.keep_readings()
        enforcer = self._enforcer
        self._ticks = self._ticks + 1 & _WHOLE
        words[seq] = before = words[seq] + 1 | 1
        _READINGS(
            file.map,
            file.readings + _TICKS,
            self._ticks,
            time.time_ns(),
            figures.cpu_load,
            figures.memory_load,
            figures.cpu_stall,
            figures.memory_stall,
            figures.volatility,
            figures.volume,
            *figures.usage,
            *meter.shares,
            meter.segment_bytes,
            meter.heap_bytes,
            meter.network_total & _WHOLE,
            meter.disk_total & _WHOLE,
            meter.cpu_total_ns,
            *enforcer.violations,
            enforcer.steps,
            enforcer.in_a_row,
            kept["horizon"],
            kept["tokens"],
            *kept["threshold"],
        )
        words[seq + _FAILED] = int(self._engine.failing)
        words[seq] = before + 1 & _WHOLE


governor = Governor()


def govern_start() -> None:
    """Start the governor's thread, which ticks as the policy says."""
    governor.start()


def govern_stop() -> None:
    """Stop it, after the tick that is going on."""
    governor.stop()


def govern(readings: Mapping[str, float] | None = None, /) -> int:
    """Make one tick, now; returns how many decisions there have been.

    ``readings`` stand in for what would be measured, see ``_native.pyi``.  Raises KeyError for other names.
    """
    given = {name: number_of(value) for name, value in (readings or {}).items()}
    for name in given:
        if name not in _NAMES:
            raise KeyError(name)
    return governor.tick(given)


def mode() -> int:
    """Give the mode in force, MODE_*; NORMAL without a segment."""
    file = recorder.file or drain.file
    return at.MODE_NORMAL if file is None else file.words[_MODE]


def system_root(path: str, /) -> None:
    """Have the pressure of the next segment that is governed read below ``path``, which stands for "/"; "" is that."""
    if not isinstance(path, str) or len(path.encode(errors="replace")) >= _LONGEST_PATH:
        raise TypeError("system_root() takes the path of a directory, a str")
    governor.root = path
