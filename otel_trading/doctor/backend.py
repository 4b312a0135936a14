"""Which recorder runs, and whether the quick one could."""

from __future__ import annotations

import os
import shutil
import sysconfig
from typing import TYPE_CHECKING

from otel_trading import _backend
from otel_trading.doctor.check import OK, WARN, Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.doctor.check import Situation

_REMEDY = "OTEL_TRADING_BUILD=yes pip install --force-reinstall --no-deps otel-trading"


def checks(_situation: Situation) -> Iterator[Check]:
    """Look at the backend, and at the compiler that would build the native one."""
    native = _backend.backend == "native"
    compiler = compiler_found()
    if native:
        yield Check("backend", OK, f"native ({_backend.reason})")
    elif _backend.reason.startswith("OTEL_TRADING_BACKEND"):
        yield Check(
            "backend", WARN, f"pure, as {_backend.reason}: several times the cost", "unset OTEL_TRADING_BACKEND"
        )
    else:
        first = "" if compiler else "install a C compiler and Python's headers, then: "
        yield Check("backend", WARN, f"pure, as {_backend.reason}: several times the cost", first + _REMEDY)
    if compiler:
        yield Check("compiler", OK, compiler)
    elif native:
        yield Check("compiler", OK, "none here; none is needed, as the extension is built")
    else:
        yield Check(
            "compiler", WARN, "no C compiler, or no Python.h", "install both (Debian: apt-get install gcc python3-dev)"
        )


def compiler_found() -> str | None:
    """Name the C compiler that could build the extension here, None without one or without Python's headers."""
    asked = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    compiler = shutil.which(asked) or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    return f"{compiler}, with {header}" if compiler and os.path.exists(header) else None
