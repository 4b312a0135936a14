"""Which recorder runs, and why: the C extension, or the same interface in Python.

``OTEL_TRADING_BACKEND=native`` or ``=pure`` forces one.  Without it the extension is taken where it is, and
doing without it is said once, with a ``PureBackendWarning``: the pure backend records the same, at several
times the cost.
"""

from __future__ import annotations

import os

from otel_trading.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "Counter",
    "Gauge",
    "Histogram",
    "Probe",
    "PureBackendWarning",
    "Span",
    "SubinterpreterError",
    "Token",
    "backend",
    "core",
    "reason",
]

_VARIABLE = "OTEL_TRADING_BACKEND"
_REMEDY = "install a C compiler and reinstall with OTEL_TRADING_BUILD=yes in the environment"


class SubinterpreterError(BackendError, ImportError):
    """``otel_trading`` was imported in a subinterpreter.

    The recorder, its segment and its drain belong to the process, so only the main interpreter has them.
    """


class PureBackendWarning(RuntimeWarning):
    """The C extension is missing, so the pure backend records, at several times the cost."""


def _in_subinterpreter() -> bool:
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found,unused-ignore]  # Python 3.13
    except ImportError:
        try:
            import _xxsubinterpreters as interpreters  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ImportError:
            return False  # not CPython, or built without it: nothing here can have made one
    return bool(interpreters.get_current() != interpreters.get_main())


def _refuse_subinterpreter(cause: BaseException | None = None) -> None:
    if _in_subinterpreter():
        raise SubinterpreterError(
            "otel_trading cannot be imported in a subinterpreter: its recorder belongs to the process. "
            "Import it in the main interpreter, or use a process in place of the subinterpreter."
        ) from cause


def _native() -> ModuleType:
    from otel_trading import _native

    # In a source tree the directory of the C sources is importable, as an empty namespace package.
    if not hasattr(_native, "BACKEND"):
        raise ImportError("the C extension otel_trading._native was not built")
    return _native


def _pure() -> ModuleType:
    _refuse_subinterpreter()
    from otel_trading import _pure

    return _pure  # type: ignore[return-value,unused-ignore]


def _choose() -> tuple[ModuleType, str, str]:
    """Give the backend's module, its name, and the reason for the choice."""
    asked = os.environ.get(_VARIABLE, "").strip().lower()
    if asked not in ("", "native", "pure"):
        raise BackendError(f"{_VARIABLE}={asked!r} is neither 'native' nor 'pure': correct it or unset it")
    if asked == "pure":
        return _pure(), "pure", f"{_VARIABLE}=pure"
    try:
        return _native(), "native", f"{_VARIABLE}=native" if asked else "the C extension is installed"
    except ImportError as error:
        _refuse_subinterpreter(error)
        if asked:
            raise BackendError(
                f"{_VARIABLE}=native, but the C extension cannot be imported ({error}): {_REMEDY}"
            ) from error
        reason = f"the C extension cannot be imported ({error})"
    import warnings

    warnings.warn(
        f"otel-trading records with its pure Python backend, at several times the cost of the native one, as "
        f"{reason}. To have the native one, {_REMEDY}; to be content with this one, set {_VARIABLE}=pure.",
        PureBackendWarning,
        stacklevel=2,
    )
    return _pure(), "pure", reason


backend: str
reason: str
if TYPE_CHECKING:
    from otel_trading import _native as core
    from otel_trading._native import Counter, Gauge, Histogram, Probe, Span, Token

    backend, reason = core.BACKEND, ""
else:
    core, backend, reason = _choose()
    Counter, Gauge, Histogram = core.Counter, core.Gauge, core.Histogram
    Probe, Span, Token = core.Probe, core.Span, core.Token
