"""Build of the C extension and of the watchdog's program; everything else is in pyproject.toml.

Environment:
  OTEL_TRADING_BUILD=yes       a backend that cannot be compiled is an error, not a fallback to pure Python
  OTEL_TRADING_BUILD=no        do not compile it
  OTEL_TRADING_SANITIZE=LIST   compile with ``-fsanitize=LIST`` (``make sanitize`` uses address,undefined)
  CC, CFLAGS, LDFLAGS          as always
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

NATIVE = Path("otel_trading/_native")
WATCHDOG = "otel-trading-watchdog"


def sources(pattern: str) -> list[str]:
    """Files of the native backend, in an order that does not depend on the file system."""
    here = Path(__file__).parent
    return sorted(str(path.relative_to(here)) for path in (here / NATIVE).glob(pattern))


def demanded() -> bool:
    """Whether what can not be compiled is an error."""
    return os.environ.get("OTEL_TRADING_BUILD") == "yes"


def flags() -> tuple[list[str], list[str]]:
    """What compiler and linker are told, for extension and program."""
    compile_args = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-missing-field-initializers"]
    sanitize = os.environ.get("OTEL_TRADING_SANITIZE", "")
    if not sanitize:
        return [*compile_args, "-O2"], []
    checks = [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    # -U_FORTIFY_SOURCE: the sanitizer's own checks of memcpy and friends, not glibc's.
    return [*compile_args, "-g", "-O1", "-U_FORTIFY_SOURCE", *checks], checks


def extension() -> Extension:
    """The native backend, compiled as the environment says."""
    compile_args, link_args = flags()
    compile_args += ["-fvisibility=hidden"]
    if not link_args:
        # -fno-plt saves a jump in each call into libpython; -fno-semantic-interposition lets the recorder's
        # own functions be inlined across the hidden-visibility border.
        compile_args += ["-fno-plt"]
        if sys.platform == "linux":
            compile_args += ["-fno-semantic-interposition"]
    return Extension(
        "otel_trading._native",
        sources=sources("*.c"),
        depends=["setup.py", *sources("*.h")],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        libraries=["pthread", "m"],
        optional=not demanded(),
    )


class BuildNative(build_ext):
    """Builds the watchdog's program besides the extension; it is Linux's, elsewhere its Python twin does the work."""

    def run(self) -> None:
        """Build the extension, then the program."""
        super().run()
        if sys.platform != "linux" or not sources("watchdog/*.c"):
            return
        try:
            self._build_watchdog()
        except (CompileError, LinkError) as error:
            if demanded():
                raise
            self.warn(f"{WATCHDOG} is not built, its Python twin is used in its place: {error}")

    def _watchdog(self) -> Path:
        """Where the program goes: beside the extension."""
        return Path(self.get_ext_fullpath("otel_trading._native")).parent / WATCHDOG

    def _build_watchdog(self) -> None:
        compile_args, link_args = flags()
        objects = self.compiler.compile(
            sources("watchdog/*.c"),
            output_dir=self.build_temp,
            extra_postargs=[*compile_args, "-fPIE"],
            depends=["setup.py", *sources("*.h"), *sources("watchdog/*.h")],
        )
        target = self._watchdog()
        self.compiler.link_executable(
            objects,
            f"{WATCHDOG}.new~",
            output_dir=str(target.parent),
            extra_postargs=["-pie", *(link_args or ["-Wl,-z,relro,-z,now", "-s"])],
        )
        (target.parent / f"{WATCHDOG}.new~").replace(target)  # it may be running

    def get_outputs(self) -> list[str]:
        """Name the program, too, where it was built."""
        built = [str(self._watchdog())] if self._watchdog().exists() else []
        return [*super().get_outputs(), *built]


wanted = os.environ.get("OTEL_TRADING_BUILD") != "no" and sources("*.c")
setup(ext_modules=[extension()] if wanted else [], cmdclass={"build_ext": BuildNative})
