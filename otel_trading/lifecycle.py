"""From ``configure`` to ``shutdown``, and what happens to the recorder at a fork, an exit, and a SIGTERM."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from _thread import RLock
from time import monotonic

from otel_trading._backend import core
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from otel_trading.config import Settings
    from otel_trading.drain.exports import Exports
    from otel_trading.segment import Control

_TIMEOUT = 5.0
_LONGEST = 86_400.0  # seconds; locks do not take infinity


class _Host:
    """This process's recorder: what was made for it, and must be taken down with it."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.settings: Settings | None = None  # as long as this process records, or will at its next record
        self.asked: tuple[object, ...] = ()
        self.path: str | None = None
        self.exports: Exports | None = None
        self.abandoned: list[object] = []
        self.enabled: bool | None = None  # what enable() was told
        self.handles_sigterm = False
        self.ending = False
        self.sigterm_waits = False
        self.hooked = False
        self.hooked_multiprocessing = False

    # ---- beginning ----

    def configure(
        self,
        service: str | None,
        directory: str | os.PathLike[str] | None,
        config: Mapping[str, object] | str | os.PathLike[str] | None,
    ) -> None:
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
        if not self.open_segment(settings):
            return False
        self.settings = settings
        _quietly("switches", self.apply_switches, settings)
        _quietly("drain", core.drain_start, max(1, round(settings.drain_period * 1000)))
        gc.callbacks.append(core.gc_callback)
        self.hook()
        if settings.logs_correlation:
            _quietly("logs", _correlate_logs)
        return True

    def open_segment(self, settings: Settings) -> bool:
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
        enabled = settings.enabled if self.enabled is None else self.enabled
        if enabled and settings.export_enabled and settings.sampling_rate == 1.0:
            return
        with self.control() as control:
            control.record = enabled
            control.export = settings.export_enabled
            control.sampling_rate = settings.sampling_rate

    def control(self) -> Control:
        from otel_trading.segment import Control

        if self.path is None:
            raise OtelTradingError("there is no segment to steer: call configure first")
        return Control(self.path)

    def start_exports(self, settings: Settings) -> None:
        if not settings.export_traces and not settings.export_metrics and settings.metrics_port is None:
            return
        from otel_trading import segment
        from otel_trading.drain import exports

        try:
            self.exports = exports.start(settings, segment.resource_json(settings.service, settings.resource))
        except OtelTradingError:
            raise
        except Exception as error:  # noqa: BLE001  an exporter of anyone's may fail in any way
            report("exports", f"nothing is exported: {error!r}. Recording goes on.")

    # ---- a forked child ----

    def forked(self) -> None:
        """Forget, in the child, what is the parent's; the segment is made before the child's first record."""
        self.lock = RLock()
        self.ending = self.sigterm_waits = False
        self.path = None  # the parent's, never to be removed here
        if self.exports is not None:
            # Its threads are gone and its connections are the parent's: no destructor of theirs may run here.
            self.abandoned.append(self.exports)
            self.exports = None
        _remove_gc_callback()  # else the child's first collection would be its first record
        core.forked(self.reopen)
        self.hook_multiprocessing()

    def reopen(self) -> None:
        with self.lock:
            settings = self.settings
            if settings is None or core.is_open():
                return
            if self.begin(settings):
                _quietly("exports", self.start_exports, settings)

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
            deadline = monotonic() + limit
            _remove_gc_callback()
            _quietly("end", core.interrupt_open, reason, error)
            _quietly("end", core.drain)
            if exports is not None:
                _quietly("end", exports.flush, deadline)
                _quietly("end", exports.stop, deadline)
            _quietly("end", core.drain_stop, max(0.0, deadline - monotonic()))
            orders = _quietly("end", core.orders_open)
            _quietly("end", core.close)
            if path is not None:
                _quietly("end", _put_away, path, bool(orders))
            self.ending = False
            self.default_sigterm()
        finally:
            self.lock.release()
        if self.sigterm_waits:
            _terminate()

    def limit(self, timeout: float | None) -> float:
        if timeout is None:
            return _TIMEOUT if self.settings is None else self.settings.shutdown_timeout
        return max(0.0, min(float(timeout), _LONGEST))

    def flush(self, timeout: float | None) -> bool:
        deadline = monotonic() + self.limit(timeout)
        if not core.is_open():
            return True
        core.drain()
        exports = self.exports
        return exports is None or bool(_quietly("flush", exports.flush, deadline))

    # ---- hooks: put in once, harmless without a recorder ----

    def hook(self) -> None:
        self.hook_sigterm()
        self.hook_multiprocessing()
        if self.hooked:
            return
        self.hooked = True
        atexit.register(self.at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.after_fork_in_child)

    def at_exit(self) -> None:
        self.end("interpreter exit", error=False, timeout=None)

    def after_fork_in_child(self) -> None:
        # A segment that is on its way in or out while another thread forks is to be forgotten too.
        if core.is_open() or self.settings is not None or self.ending:
            self.forked()

    def hook_multiprocessing(self) -> None:
        """Have a child of multiprocessing flush: it ends by ``os._exit`` after running its own finalizers.

        Such a child first clears the finalizers that it inherited and then runs the functions that were registered
        for after the fork, so it is one of those that puts ours in.  A child that is past that point gets it now.
        """
        util = sys.modules.get("multiprocessing.util")
        process = sys.modules.get("multiprocessing.process")
        if util is None or process is None:
            return
        if not self.hooked_multiprocessing:
            self.hooked_multiprocessing = True
            util.register_after_fork(self, _Host.finalize_child)
        if process.parent_process() is not None:
            self.finalize_child()

    def finalize_child(self) -> None:
        # The lowest priority: after the application's own finalizers, which may still record.
        sys.modules["multiprocessing.util"].Finalize(None, self.at_exit, exitpriority=-1_000_000)

    def hook_sigterm(self) -> None:
        import signal

        # Only Python's main thread can set a handler; elsewhere this is an error, which is the test for it.
        try:
            if not self.handles_sigterm and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _on_sigterm)
                self.handles_sigterm = True
        except ValueError:
            return

    def default_sigterm(self) -> None:
        import signal

        try:
            if self.handles_sigterm and signal.getsignal(signal.SIGTERM) is _on_sigterm:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.handles_sigterm = False
        except ValueError:  # not the main thread: the handler stays, and does no harm
            return


_host = _Host()


def _on_sigterm(_number: int, _frame: object) -> None:
    if _host.ending and not _host.sigterm_waits:
        _host.sigterm_waits = True  # an orderly end is under way, and bounded; a second SIGTERM does not wait for it
        return
    _host.end("SIGTERM", error=True, timeout=None)
    _terminate()


def _terminate() -> None:
    """Do what SIGTERM would have done without us."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _quietly(what: str, step: Callable[..., Any], *arguments: object) -> Any:
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


def configure(
    service: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    config: Mapping[str, object] | str | os.PathLike[str] | None = None,
) -> None:
    """Start recording in this process.  A second call does nothing, until ``shutdown``.

    ``service`` names the program (default: ``OTEL_SERVICE_NAME``), ``directory`` is where the segment file is made
    (default: ``OTEL_TRADING_DIR``, else under /dev/shm), ``config`` has the keys that ``otel_trading.config.keys``
    lists, or is the path of a YAML file that has them (default: ``OTEL_TRADING_CONFIG``).
    With ``OTEL_SDK_DISABLED=true`` nothing happens.

    Raises ConfigurationError for what is wrong in the arguments or the environment, all of it at once.  What the
    machine does not grant (space, rights) is logged with its remedy, and the program runs unrecorded.
    Takes some 10 ms and some 30 MB of memory, most of it the ring.
    """
    _host.configure(service, directory, config)


def settings() -> Settings | None:
    """Give what ``configure`` was told, put together; None without a recorder."""
    return _host.settings


def own_segment() -> str | None:
    """Give the path of this process's segment; None without one, as in a forked child that has not recorded yet."""
    return _host.path


def enable(on: bool) -> None:  # noqa: FBT001  one obvious argument
    """Switch recording on or off, now and in a later ``configure``.  Other processes can do the same to this one."""
    _host.enabled = bool(on)
    if core.is_open() and _host.path is not None:
        _quietly("enable", _switch, bool(on))


def _switch(on: bool) -> None:  # noqa: FBT001
    with _host.control() as control:
        control.record = on


def flush(timeout: float | None = None) -> bool:
    """Drain and export what was recorded before the call; False where that took more than ``timeout`` seconds.

    The default is the configuration's ``shutdown.timeout``, 5 s.
    """
    return _host.flush(timeout)


def shutdown(timeout: float | None = None) -> None:
    """Stop recording: open spans are written as interrupted, all is flushed, the segment's file is removed.

    Where orders are open the file stays, with little more in it than them, so that their acks and fills find their
    trace after a restart.
    Takes at most ``timeout`` seconds (default: the configuration's ``shutdown.timeout``, 5 s).  Safe to call twice;
    ``configure`` may be called again after it.
    """
    _host.end("shutdown", error=False, timeout=timeout)
