"""This process's recorder: what is made for it, and taken down with it."""

from __future__ import annotations

import gc
import os
from _thread import RLock
from time import monotonic

from otel_trading._added_memory import package as added_memory
from otel_trading._added_memory import private_bytes
from otel_trading._backend import core
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report
from otel_trading.process_end import ProcessEnd, terminate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

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
        self.exports: Exports | None = None
        self.abandoned: list[object] = []
        self.enabled: bool | None = None  # what enable() was told
        self.mode: tuple[int | None] | None = None  # what set_mode() was told, in a tuple
        self.governing: Governing | None = None
        self.ending = False
        self.process_end = ProcessEnd(self)

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
                    self.start_exports(settings)
                except OtelTradingError:
                    self.end("configuration error", error=False, timeout=0.0)
                    raise

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
        quietly("drain", core.drain_start, max(1, round(settings.drain_period * 1000)))
        if governing is not None:
            quietly("budget", governing.start, self.path)
        self.governing = governing
        gc.callbacks.append(core.gc_callback)
        self.process_end.hook()
        if settings.logs_correlation:
            quietly("logs", _correlate_logs)
        return True

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
                _unlink(path)
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

    def start_exports(self, settings: Settings) -> None:
        """Start the ways out that are configured.  Raises ConfigurationError."""
        if not settings.export_traces and not settings.export_metrics and settings.metrics_port is None:
            return
        from otel_trading import segment
        from otel_trading.drain import exports

        before = private_bytes()
        try:
            self.exports = exports.start(settings, segment.resource_json(settings.service, settings.resource))
            if self.governing is not None and self.path is not None:
                quietly("budget", self.governing.note_exporters, self.path, private_bytes() - before)
        except OtelTradingError:
            raise
        except Exception as error:  # noqa: BLE001  an exporter of anyone's may fail in any way
            report("exports", f"nothing is exported: {error!r}. Recording goes on.")

    # ---- a forked child ----

    def forked(self) -> None:
        """Forget, in the child, what is the parent's; the segment is made before the child's first record."""
        self.lock = RLock()
        self.ending = self.process_end.sigterm_waits = False
        if self.governing is not None:
            self.governing.forget()
            self.governing = None  # its threads are the parent's
        self.path = None  # the parent's, never to be removed here
        if self.exports is not None:
            # Its threads are gone and its connections are the parent's: no destructor of theirs may run here.
            self.abandoned.append(self.exports)
            self.exports = None
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
                quietly("exports", self.start_exports, settings)

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
            path, self.path = self.path, None
            exports, self.exports = self.exports, None
            governing, self.governing = self.governing, None
            deadline = monotonic() + limit
            _remove_gc_callback()
            if governing is not None:  # first: what it still has to tell is to be exported too
                quietly("end", governing.stop, deadline)
            quietly("end", core.interrupt_open, reason, error)
            quietly("end", core.drain, True)
            if exports is not None:
                quietly("end", exports.flush, deadline)
                quietly("end", exports.stop, deadline)
            quietly("end", core.drain_stop, max(0.0, deadline - monotonic()))
            orders = quietly("end", core.orders_open)
            quietly("end", core.close)
            if path is not None:
                quietly("end", _put_away, path, bool(orders))
            if governing is not None and path is not None:
                quietly("end", governing.put_away, path)
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
        core.drain(True)
        exports = self.exports
        return exports is None or bool(quietly("flush", exports.flush, deadline))


def _governing(settings: Settings) -> Governing:
    from otel_trading.budget.governing import Governing

    added_memory.end("configure")  # a first measurement's heap is the next segment's, and told with that
    return Governing(settings)


def quietly(what: str, step: Callable[..., Any], *arguments: object) -> Any:
    """Do a step of the life cycle that may fail without taking the others with it."""
    try:
        return step(*arguments)
    except Exception as error:  # noqa: BLE001  nothing of ours may reach the application
        report(f"lifecycle:{what}", f"{what}: {error!r}")
        return None


def _correlate_logs() -> None:
    from otel_trading.instrument import logs

    logs.enable()


def _remove_gc_callback() -> None:
    if core.gc_callback in gc.callbacks:
        gc.callbacks.remove(core.gc_callback)


def _put_away(path: str, keep: bool) -> None:  # noqa: FBT001
    """Remove our segment; or ``keep`` its order table, for the acks and fills that come after a restart."""
    from otel_trading import segment

    if keep:
        segment.release(path)
    else:
        _unlink(path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # somebody has tidied up before us
        return
