"""From ``configure`` to ``shutdown``."""

from __future__ import annotations

import os

from otel_trading._backend import core
from otel_trading.draining import quietly
from otel_trading.hosting import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_trading.config import Settings

_host = Host()


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
    Takes some 60 ms, part of it to measure what a record costs here, and some 20 MB of memory, most of it the ring.
    """
    _host.configure(service, directory, config)


def settings() -> Settings | None:
    """Give what ``configure`` was told, put together; None without a recorder."""
    return _host.settings


def own_segment() -> str | None:
    """Give the path of this process's segment; None without one, as in a forked child that has not recorded yet."""
    return _host.path


def adopted(path: str) -> None:
    """Take the segment that ``core.adopt`` took, another process's, for what ``own_segment`` tells; in a drain host."""
    _host.path = path


def enable(on: bool) -> None:  # noqa: FBT001  one obvious argument
    """Switch recording on or off, now and in a later ``configure``.  Other processes can do the same to this one."""
    _host.enabled = bool(on)
    if core.is_open() and _host.path is not None:
        quietly("enable", _switch, bool(on))


def _switch(on: bool) -> None:  # noqa: FBT001
    with _host.control() as control:
        control.record = on


def force_mode(number: int | None) -> None:
    """Put a mode of the budget in force, OT_MODE_*, now and in a later ``configure``; None lets the engine choose."""
    _host.mode = (number,)
    if core.is_open() and _host.path is not None:
        quietly("set_mode", _force, number)


def _force(number: int | None) -> None:
    with _host.control() as control:
        control.force(number)


def attend_to_budget() -> None:
    """Have the budget's herald look at what there is to do: a user's market function was given, or taken away."""
    governing = _host.governing
    if governing is not None:
        quietly("budget", governing.attend)


def flush(timeout: float | None = None) -> bool:
    """Drain and export what was recorded before the call; False where that took more than ``timeout`` seconds.

    The default is the configuration's ``shutdown.timeout``, 5 s.  Where an agent drains, it is asked to.
    """
    return _host.flush(timeout)


def stats() -> dict[str, dict[str, int]]:
    """Give the figures of all spans so far, of this process's own drain or the agent's; see ``totals.stats``."""
    return _host.draining.stats()


def shutdown(timeout: float | None = None) -> None:
    """Stop recording: open spans are written as interrupted, all is flushed, the segment's file is removed.

    Where orders are open the file stays, with little more in it than them, so that their acks and fills find their
    trace after a restart.
    Takes at most ``timeout`` seconds (default: the configuration's ``shutdown.timeout``, 5 s).  Safe to call twice;
    ``configure`` may be called again after it.
    """
    _host.end("shutdown", error=False, timeout=timeout)
