"""This process's recorder: what is made for it, and taken down with it."""

from __future__ import annotations

import gc
import os
from _thread import RLock
from time import monotonic

from otel_trading._added_memory import package as added_memory
from otel_trading._backend import core
from otel_trading.draining import Draining, quietly, unlink
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report
from otel_trading.process_end import ProcessEnd, terminate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_trading.budget.governing import Governing
    from otel_trading.config import Settings
    from otel_trading.drain.exports import Exports
    from otel_trading.segment import Control

_TIMEOUT = 5.0
_LONGEST = 86_400.0  # seconds; locks do not take infinity


class Host:
    """This process's recorder: what was made for it, and must be taken down with it."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.settings: Settings | None = None  # as long as this process records, or will at its next record
        self.asked: tuple[object, ...] = ()
        self.path: str | None = None
        self.enabled: bool | None = None  # what enable() was told
        self.mode: tuple[int | None] | None = None  # what set_mode() was told, in a tuple
        self.draining = Draining()
        self.ending = False
        self.process_end = ProcessEnd(self)

    @property
    def exports(self) -> Exports | None:
        """This process's own ways out; None where it has none, or an agent has them."""
        return self.draining.exports

    @exports.setter
    def exports(self, exports: Exports | None) -> None:
        self.draining.exports = exports

    @property
    def governing(self) -> Governing | None:
        """What this process does for its budget; None without one."""
        return self.draining.governing

    # ---- beginning ----

    def configure(
        self,
        service: str | None,
        directory: str | os.PathLike[str] | None,
        config: Mapping[str, object] | str | os.PathLike[str] | None,
    ) -> None:
        """See ``lifecycle.configure``."""
        added_memory.begin()
        from otel_trading import config as configuration

        if configuration.sdk_disabled():
            return
        asked = (service, directory, config)
        with self.lock:
            if self.settings is not None:
                if core.is_open():
                    if asked not in ((None, None, None), self.asked):
                        report("configure", "configure() has run already: other settings are ignored until shutdown()")
                    return
                if asked in ((None, None, None), self.asked):  # a forked child that has not recorded yet
                    self.reopen()
                    return
            settings = configuration.resolve(service, directory, config)
            if self.begin(settings):
                self.asked = asked
                try:
                    self.draining.start_exports()
                except OtelTradingError:
                    self.end("configuration error", error=False, timeout=0.0)
                    raise
                quietly("dead", self.look_for_dead, settings)

    def begin(self, settings: Settings) -> bool:
        """Make the segment and start recording; False, reported, where the environment does not let us."""
        self.settings = None
        governing = quietly("budget", _governing, settings) if settings.values["budget.enabled"] else None
        added_memory.end("configure")  # without a budget nobody has done so yet
        if not self.open_segment(settings):
            return False
        self.settings = settings
        quietly("switches", self.apply_switches, settings)
        if governing is not None:
            quietly("budget", governing.prepare, self.path, added_memory.bytes)
        self.draining.begin(str(self.path), settings, governing)
        gc.callbacks.append(core.gc_callback)
        self.process_end.hook()
        if settings.logs_correlation:
            quietly("logs", _correlate_logs)
        return True

    def look_for_dead(self, settings: Settings) -> None:
        """Have those who died before looked into, where this process exports; with an agent, that does it."""
        if self.exports is None or self.path is None or not settings.values["forensics.enabled"]:
            return
        if len(os.listdir(os.path.dirname(self.path))) > 1:
            from otel_trading.agent import hosted

            hosted.look_for_dead(os.path.dirname(self.path))

    def open_segment(self, settings: Settings) -> bool:
        """Make the file and lay the segment out; False, reported, where that can not be."""
        from otel_trading import segment

        path = None
        try:
            resource = segment.resource_json(settings.service, settings.resource)
            fd, path = segment.create(settings.service, settings.directory)
            try:
                core.open(
                    fd,
                    resource,
                    settings.ring_slots,
                    settings.ring_thread_slots,
                    settings.ring_open_spans,
                    settings.ring_arena_bytes,
                    settings.names_max,
                    settings.orders_max,
                    settings.limits,
                )
            finally:
                os.close(fd)
        except OtelTradingError as error:  # tells the remedy itself
            report("segment", f"nothing is recorded: {error}")
            return False
        except (OSError, RuntimeError) as error:
            if path is not None:
                unlink(path)
            report(
                "segment",
                f"nothing is recorded: the segment {path} could not be laid out ({error}). Free some space there, name "
                "another directory with OTEL_TRADING_DIR, or make the rings smaller (ring.slots, ring.thread_slots).",
            )
            return False
        self.path = path
        return True

    def apply_switches(self, settings: Settings) -> None:
        """Put in force what the control page does not say by itself."""
        enabled = settings.enabled if self.enabled is None else self.enabled
        mode = self.asked_mode(settings)
        if mode is None and enabled and settings.export_enabled and settings.sampling_rate == 1.0:
            return
        with self.control() as control:
            control.record = enabled
            control.export = settings.export_enabled
            control.sampling_rate = settings.sampling_rate
            if mode is not None:
                control.force(mode)

    def asked_mode(self, settings: Settings) -> str | int | None:
        """Give the mode to stay in, None for what the engine chooses; set_mode() wins over the configuration."""
        if self.mode is not None:
            return self.mode[0]
        name = str(settings.values["mode"])
        return None if name == "auto" else name

    def control(self) -> Control:
        """Give our own segment's control page.  Raises OtelTradingError."""
        from otel_trading.segment import Control

        if self.path is None:
            raise OtelTradingError("there is no segment to steer: call configure first")
        return Control(self.path)

    # ---- a forked child ----

    def forked(self) -> None:
        """Forget, in the child, what is the parent's; the segment is made before the child's first record."""
        self.lock = RLock()
        self.ending = self.process_end.sigterm_waits = False
        self.draining.forget()
        self.path = None
        _remove_gc_callback()  # else the child's first collection would be its first record
        core.forked(self.reopen)
        self.process_end.hook_multiprocessing()

    def after_fork_in_child(self) -> None:
        """Forget what is the parent's: a segment on its way in or out while another thread forks, too."""
        if core.is_open() or self.settings is not None or self.ending:
            self.forked()

    def reopen(self) -> None:
        """Make a forked child its own recorder, unless it has one."""
        with self.lock:
            settings = self.settings
            if settings is None or core.is_open():
                return
            added_memory.begin()
            if self.begin(settings):
                quietly("exports", self.draining.start_exports)

    # ---- the end ----

    def end(self, reason: str, *, error: bool, timeout: float | None) -> None:
        """Write what is open and flush it, in bounded time; then the recorder and its file are gone."""
        limit = self.limit(timeout)
        if not self.lock.acquire(timeout=limit):
            return
        try:
            if self.settings is None or self.ending:
                return
            self.ending = True
            self.settings = None
            self.path = None
            _remove_gc_callback()
            self.draining.end(reason, error=error, deadline=monotonic() + limit, last=self.process_end.unhook)
            self.ending = False
            self.process_end.default_sigterm()
        finally:
            self.lock.release()
        if self.process_end.sigterm_waits:
            terminate()

    def limit(self, timeout: float | None) -> float:
        """Give the seconds that an end or a flush may take."""
        if timeout is None:
            return _TIMEOUT if self.settings is None else self.settings.shutdown_timeout
        return max(0.0, min(float(timeout), _LONGEST))

    def flush(self, timeout: float | None) -> bool:
        """See ``lifecycle.flush``."""
        deadline = monotonic() + self.limit(timeout)
        if not core.is_open():
            return True
        return self.draining.flush(deadline)


def _governing(settings: Settings) -> Governing:
    from otel_trading.budget.governing import Governing

    added_memory.end("configure")  # a first measurement's heap is the next segment's, and told with that
    return Governing(settings)


def _correlate_logs() -> None:
    from otel_trading.instrument import logs

    logs.enable()


def _remove_gc_callback() -> None:
    if core.gc_callback in gc.callbacks:
        gc.callbacks.remove(core.gc_callback)
