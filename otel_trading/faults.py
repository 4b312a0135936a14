"""Misuse and trouble that must not reach the application: said once, counted always."""

from __future__ import annotations

from otel_trading._backend import core

_MOST_KEYS = 256  # a program that makes keys without end must not fill its log, or the memory

_told: set[str] = set()


def report(key: str, message: str) -> None:
    """Count a fault in the segment's header, and log ``message`` as a warning the first time ``key`` is seen.

    The logger is ``otel_trading``.  Never raises.
    """
    core.fault()
    if key in _told or len(_told) >= _MOST_KEYS:
        return
    _told.add(key)
    import logging  # not loaded for a program without faults

    try:
        logging.getLogger("otel_trading").warning("%s", message)
    except Exception:  # noqa: BLE001, S110  a handler of the application's that raises is not ours to report
        pass


def forget() -> None:
    """Let every fault be logged again: a new ``configure`` is a new start."""
    _told.clear()
