"""Build of the C extension; everything else is in pyproject.toml.

Environment:
  OTEL_TRADING_BUILD=yes       a backend that cannot be compiled is an error, not a fallback to pure Python
  OTEL_TRADING_BUILD=no        do not compile it
  OTEL_TRADING_SANITIZE=LIST   compile with ``-fsanitize=LIST`` (``make sanitize`` uses address,undefined)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("otel_trading/_native")


def sources(pattern: str) -> list[str]:
    """Files of the native backend, in an order that does not depend on the file system."""
    here = Path(__file__).parent
    return sorted(str(path.relative_to(here)) for path in (here / NATIVE).glob(pattern))


def extension() -> Extension:
    """The native backend, compiled as the environment says."""
    compile_args = [
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Wno-missing-field-initializers",
    ]
    link_args: list[str] = []
    sanitize = os.environ.get("OTEL_TRADING_SANITIZE", "")
    if sanitize:
        flags = [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
        # -U_FORTIFY_SOURCE: the sanitizer's own checks of memcpy and friends, not glibc's.
        compile_args += ["-g", "-O1", "-U_FORTIFY_SOURCE", *flags]
        link_args += flags
    else:
        # -fno-plt saves a jump in each call into libpython; -fno-semantic-interposition lets the recorder's
        # own functions be inlined across the hidden-visibility border.
        compile_args += ["-O2", "-fno-plt"]
        if sys.platform == "linux":
            compile_args += ["-fno-semantic-interposition"]
    return Extension(
        "otel_trading._native",
        sources=sources("*.c"),
        depends=["setup.py", *sources("*.h")],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        libraries=["pthread", "m"],
        optional=os.environ.get("OTEL_TRADING_BUILD") != "yes",
    )


wanted = os.environ.get("OTEL_TRADING_BUILD") != "no" and sources("*.c")
setup(ext_modules=[extension()] if wanted else [])
