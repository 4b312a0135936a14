"""The emergency monitor: what is left of monitoring while the rest of it hangs (docs/watchdog.md).

It only reads what each program has written: orders, rejects, risk breaches, market data, once a second.  Programs whose
drain is not served record P0 alone meanwhile.  It holds itself under 1 % of a core, by looking less often.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from otel_trading import _layout as at
from otel_trading import alerts
from otel_trading.agent import files
from otel_trading.agent.emergency_figures import Figures
from otel_trading.errors import SegmentError
from otel_trading.segment import Control, attach, segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._native import Reader
    from otel_trading.config import Settings
    from otel_trading.segment import FoundSegment

LOCK = "emergency.lock"
MOST_CPU = 0.01  # of a core
_SHORTEST, _LONGEST = 1.0, 30.0  # seconds between two looks
_WELL = 3  # looks in a row without trouble, and it ends
_ALONE = 30  # looks without a program, and it ends where nobody waits for it
_TOLD_EVERY = 60.0  # seconds between two lines of the log
_MOST_SEGMENTS = 64
_SHED = at.OFF_CONTROL_SHED // 8
_PASSES = at.OFF_CONTROL_PASSES // 8
_EMERGENCY = (at.TIER_ON, 0, 0, 0)
"""What EMERGENCY leaves of the tiers."""
_ALL_ON = (at.TIER_ON,) * at.TIERS


class Pace:
    """How often to look: a second apart, further apart while the looks take more than 1 % of a core."""

    __slots__ = ("_cpu", "_since", "period", "share")

    def __init__(self, cpu: float, now: float) -> None:
        """Begin; ``cpu`` is the CPU time of the process so far, seconds."""
        self.period = _SHORTEST
        self.share = 0.0
        self._cpu = cpu
        self._since = now

    def looked(self, cpu: float, now: float) -> float:
        """Take the clocks after a look; gives the seconds until the next one."""
        elapsed = now - self._since
        if elapsed >= self.period:
            self.share = (cpu - self._cpu) / elapsed
            if self.share > MOST_CPU:
                self.period = min(self.period * 2.0, _LONGEST)
            elif self.share < MOST_CPU / 4.0:
                self.period = max(self.period / 2.0, _SHORTEST)
            self._cpu, self._since = cpu, now
        return self.period


class Served:
    """Whether the drain of a segment goes on; while it does not, the program records P0 alone."""

    def __init__(self, control: Control, late: float) -> None:
        """``late``: a last pass that is older, in seconds, is late."""
        self._control = control
        self._late_ns = late * 1e9
        self._passes = control.words[_PASSES]
        self._since_ns = time.monotonic_ns()
        self._before: tuple[int, ...] | None = None  # the shed words that ours took the place of
        if tuple(control.words[_SHED : _SHED + at.TIERS]) == _EMERGENCY and control.mode != at.MODE_EMERGENCY:
            self._before = _ALL_ON  # a monitor that was killed has left it; a governor corrects it at its next tick

    @property
    def shed(self) -> bool:
        """Whether P1 to P3 are off because of us."""
        return self._before is not None

    def look(self, reader: Reader) -> bool:
        """Look once; gives whether it is served."""
        passes = self._control.words[_PASSES]
        moved, self._passes = passes != self._passes, passes
        age = 0 if moved else reader.info()["heartbeat_age_ns"]
        if age < 0:  # it never passed: it may be about to begin
            age = time.monotonic_ns() - self._since_ns
        served = age <= self._late_ns
        if served:
            self.restore()
        elif self._before is None:
            self._before = tuple(self._control.words[_SHED : _SHED + at.TIERS])
            self._put(_EMERGENCY)
        return served

    def restore(self) -> None:
        """Take back what was done, where nobody has changed it since."""
        if self._before is None:
            return
        before, self._before = self._before, None
        now = self._control.words[_SHED : _SHED + at.TIERS]
        self._put(tuple(old if is_ == ours else is_ for old, is_, ours in zip(before, now, _EMERGENCY, strict=True)))

    def _put(self, words: tuple[int, ...]) -> None:
        for tier, word in enumerate(words):
            self._control.words[_SHED + tier] = word
        self._control.set_tier(0, on=True)  # as it is; it has the tiers' words worked out again

    def close(self) -> None:
        """Take back what was done, and let the page go."""
        self.restore()
        self._control.close()


class _Program:
    """A program that records: whether it is served, and its figures."""

    def __init__(self, found: FoundSegment, late: float) -> None:
        self.reader = attach(found.path)
        try:
            self.served = Served(Control(found.path), late)
        except BaseException:
            self.reader.close()
            raise
        self.figures = Figures(found.service, found.pid)

    def close(self) -> None:
        self.served.close()
        self.reader.close()


class Emergency:
    """The emergency monitor of a directory."""

    def __init__(self, directory: str, settings: Settings) -> None:
        """Prepare; nothing is changed yet."""
        self._directory = directory
        late = settings.values["watchdog.late"]
        self._late = float(late) if isinstance(late, (int, float)) else 5.0
        self._programs: dict[str, _Program] = {}
        self._unreadable: set[str] = set()
        self._parent = os.getppid()
        self._well = self._alone = 0
        self._told_at = 0.0
        self._ends = False

    def _gather(self) -> None:
        living = {found.path: found for found in segments(self._directory) if found.alive}
        for path in [path for path in self._programs if path not in living]:
            for alert in self._programs[path].figures.ended():
                alerts.raise_alert(alert)
            self._programs.pop(path).close()
        self._unreadable &= living.keys()
        for path, found in living.items():
            if path in self._programs or path in self._unreadable or len(self._programs) >= _MOST_SEGMENTS:
                continue
            try:
                self._programs[path] = _Program(found, self._late)
            except (SegmentError, OSError):
                self._unreadable.add(path)

    def _agent_is_well(self) -> bool:
        """Whether the agent beats, or there is none that should."""
        page = files.words(self._directory)
        if page.state in {0, at.AGENT_STOPPED}:
            return True
        return page.alive and 0 <= time.monotonic_ns() - page.beat_ns <= self._late * 1e9

    def look(self) -> bool:
        """Look once; gives whether it should go on."""
        try:
            self._gather()
        except SegmentError:  # the directory is gone, or no longer safe
            return False
        now_ns = time.time_ns()
        served = True
        for path, program in list(self._programs.items()):
            try:
                served = program.served.look(program.reader) and served
                for alert in program.figures.look(program.reader, now_ns):
                    alerts.raise_alert(alert)
            except (ValueError, OSError, KeyError) as error:  # it was changed under us
                self._unreadable.add(path)
                self._programs.pop(path).close()
                self._say(f"{path} can not be read any more ({type(error).__name__})")
        orphan = os.getppid() != self._parent
        self._well = self._well + 1 if served and self._agent_is_well() else 0
        self._alone = 0 if self._programs or not orphan else self._alone + 1
        return self._well < _WELL and self._alone < _ALONE

    def _say(self, text: str) -> None:
        try:
            sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} emergency monitor: {text}\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # nobody listens
            return

    def _tell(self, pace: Pace) -> None:
        if time.monotonic() - self._told_at < _TOLD_EVERY:
            return
        self._told_at = time.monotonic()
        for program in self._programs.values():
            shed = ", P0 only" if program.served.shed else ""
            self._say(f"{program.figures.text()}{shed}")
        self._say(f"takes {pace.share:.2%} of a core, looks each {pace.period:g} s")

    def _told_to_end(self, *_: object) -> None:
        self._ends = True

    def run(self) -> int:
        """Look until all is well again, or until told to end; gives the exit code."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, self._told_to_end)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        self._say(f"looks after {self._directory}")
        try:
            goes_on = self.look()  # the first one opens everything: it does not count
            pace = Pace(time.process_time(), time.monotonic())
            while goes_on and not self._ends:
                self._tell(pace)
                if select.select([reading], [], [], pace.period)[0]:
                    break
                goes_on = self.look()
                pace.looked(time.process_time(), time.monotonic())
        finally:
            for program in self._programs.values():
                program.close()
            self._say("ends")
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            os.close(reading)
            os.close(writing)
        return 0


def run(directory: str, settings: Settings) -> int:
    """Be the emergency monitor of a directory; gives the exit code, 0 also where it has one already.

    Raises SegmentDirectoryError and SegmentSpaceError.
    """
    lock = files.lock(directory, 0.0, LOCK)
    if lock is None:
        return 0
    try:
        alerts.configure(settings)
        return Emergency(directory, settings).run()
    finally:
        alerts.close(5.0)
        os.close(lock)
