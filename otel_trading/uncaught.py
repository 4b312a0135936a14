"""Exceptions that nobody caught: of the main thread, the process's end; of another one, a critical event.

Only their types are noted: messages may hold secrets.  Exceptions of asyncio's tasks come to neither hook, as they end
nothing.
"""

from __future__ import annotations

import sys
from math import nan

from otel_trading._backend import core
from otel_trading._layout import ENDING_EXCEPTION, ENDING_EXIT, ENDING_SIGNAL, VITAL_CRITICAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import ExceptHookArgs
    from types import TracebackType

    Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]

THREAD_EXCEPTION = "thread.exception"
"""Name of the critical event; its key is the exception's type."""
CODE_UNKNOWN = -1
_FAILED = 1  # Python's exit code after an exception
_SIGINT = 2
_MOST = 0xFF  # what is left of an exit code


def type_name(kind: type[BaseException]) -> str:
    """Give the name of an exception's type, with its module where that is not Python itself."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def note_ending(error: BaseException | None) -> None:
    """Note the process's end by what is on its way out, if that is known."""
    if isinstance(error, SystemExit):
        core.ending(ENDING_EXIT, exit_code(error.code), "")
    elif isinstance(error, KeyboardInterrupt):
        core.ending(ENDING_SIGNAL, _SIGINT, type_name(type(error)))  # Python then ends by the signal itself
    elif error is not None:
        core.ending(ENDING_EXCEPTION, _FAILED, type_name(type(error)))
    else:
        core.ending(ENDING_EXIT, CODE_UNKNOWN, "")


def exit_code(code: object) -> int:
    """Give the process's exit code for what ``sys.exit`` was given."""
    if code is None:
        return 0
    return code & _MOST if isinstance(code, int) else _FAILED  # a text is printed


class Uncaught:
    """The hooks, put in once before those that were there, which do what they did."""

    def __init__(self) -> None:
        """Put none in yet."""
        self._before: Hook | None = None
        self._thread_before: Callable[[ExceptHookArgs], object] | None = None

    def hook(self) -> None:
        """Put in what is missing."""
        import threading

        if self._before is None:
            self._before, sys.excepthook = sys.excepthook, self._on_exception
        if self._thread_before is None:
            self._thread_before, threading.excepthook = threading.excepthook, self._on_thread_exception

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            # The interpreter sets it before it calls the hook; whoever else calls the hook goes on afterwards.
            if getattr(sys, "last_value", None) is error and not hasattr(sys, "ps1"):
                note_ending(error)
        except Exception:  # noqa: BLE001, S110  the exception is to be shown, whatever happens here
            pass
        if self._before is not None:
            self._before(kind, error, trace)

    def _on_thread_exception(self, args: ExceptHookArgs, /) -> None:
        try:
            if not issubclass(args.exc_type, SystemExit):
                core.critical(THREAD_EXCEPTION, type_name(args.exc_type), VITAL_CRITICAL, 0, nan)
        except Exception:  # noqa: BLE001, S110  as above
            pass
        if self._thread_before is not None:
            self._thread_before(args)
