"""Which backend is chosen, and how plainly that is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading import _backend

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

# Makes the C extension as good as not built, in a process that is about to import the package.
WITHOUT_NATIVE = """
import importlib.abc, sys
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "otel_trading._native":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
"""

# What is importable in a source tree where nothing was built.
EMPTY_NATIVE = """
import sys, types
sys.modules["otel_trading._native"] = types.ModuleType("otel_trading._native")
"""

CHOSEN = """
import otel_trading as ot
from otel_trading import _backend
print(ot.backend, _backend.core.BACKEND, _backend.reason, sep="|")
"""


def test_backend_is_told() -> None:
    """``ot.backend`` names what runs, and there is a reason."""
    assert ot.backend in ("native", "pure")
    assert ot.backend == _backend.core.BACKEND
    assert _backend.reason


@pytest.mark.parametrize("asked", ["pure", "PURE", " pure "])
def test_pure_on_demand(run_python: Run, asked: str) -> None:
    """The pure backend can be asked for, without a warning."""
    done = run_python(CHOSEN, OTEL_TRADING_BACKEND=asked)
    assert done.stdout.strip() == "pure|pure|OTEL_TRADING_BACKEND=pure"


@pytest.mark.skipif(ot.backend != "native", reason="there is no C extension, or another backend is being tested")
@pytest.mark.parametrize("asked", ["native", ""])
def test_native_where_it_is(run_python: Run, asked: str) -> None:
    """The extension is taken where it is there, without a warning."""
    done = run_python(CHOSEN, OTEL_TRADING_BACKEND=asked)
    assert done.stdout.startswith("native|native|")


def test_bad_value(run_python: Run) -> None:
    """Another value is refused at import, with what would be right."""
    done = run_python("import otel_trading", check=False, OTEL_TRADING_BACKEND="rust")
    assert done.returncode == 1
    assert "BackendError" in done.stderr
    assert "neither 'native' nor 'pure'" in done.stderr


@pytest.mark.parametrize("missing", [WITHOUT_NATIVE, EMPTY_NATIVE])
def test_native_asked_for_and_missing(run_python: Run, missing: str) -> None:
    """Asking for what is not there is an error that names the remedy."""
    done = run_python(missing + "import otel_trading", check=False, OTEL_TRADING_BACKEND="native")
    assert done.returncode == 1
    assert "BackendError" in done.stderr
    assert "install a C compiler and reinstall with OTEL_TRADING_BUILD=yes" in done.stderr


@pytest.mark.parametrize("missing", [WITHOUT_NATIVE, EMPTY_NATIVE])
def test_falling_back_is_warned_of_once(run_python: Run, missing: str) -> None:
    """Without the extension the pure backend runs, one warning of our own category says so, and why."""
    code = f"""
import warnings
{missing}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import otel_trading as ot
    import otel_trading.probes
(warning,) = caught
assert warning.category is ot.PureBackendWarning, warning.category
assert issubclass(warning.category, RuntimeWarning)
text = str(warning.message)
assert "C compiler" in text and "OTEL_TRADING_BACKEND=pure" in text, text
{CHOSEN}
"""
    done = run_python(code, OTEL_TRADING_BACKEND="")
    assert done.stdout.startswith("pure|pure|the C extension cannot be imported")


def test_subinterpreter_is_refused(run_python: Run) -> None:
    """A subinterpreter gets an ImportError that says what to do, and the main one goes on recording."""
    done = run_python(
        """
import os
import otel_trading as ot
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
ot.configure("main")
inside = '''
try:
    import otel_trading
except ImportError as error:
    print(type(error).__name__, error, sep="|", flush=True)
'''
for _ in range(2):
    interpreter = interpreters.create()
    try:
        interpreters.run_string(interpreter, inside)
    finally:
        interpreters.destroy(interpreter)
with ot.probe("main"):
    pass
print(ot.stats()["main"]["count"])
"""
    )
    first, second, count = done.stdout.splitlines()
    assert first == second
    assert first.startswith("SubinterpreterError|otel_trading cannot be imported in a subinterpreter")
    assert count == "1"


def test_import_is_cheap(run_python: Run) -> None:
    """Importing the package loads none of the modules that a trading process should not pay for."""
    done = run_python(
        """
import sys
before = set(sys.modules)
import otel_trading
loaded = set(sys.modules) - before
heavy = {"asyncio", "dataclasses", "inspect", "json", "logging", "typing", "threading", "socket", "ssl",
         "subprocess", "multiprocessing", "opentelemetry", "prometheus_client", "rich", "websockets"}
print(sorted(heavy & loaded))
"""
    )
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    """Everything in ``__all__`` is there."""
    assert all(hasattr(ot, name) for name in ot.__all__)
