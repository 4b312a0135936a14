"""Start worker processes and take what they say."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FOOTPRINT = Path(__file__).with_name("footprint.py")
_ROOT = Path(__file__).parents[2]


class BenchmarkError(OtelTradingError):
    """A benchmark could not run."""

    exit_code = 2


def environment(backend: str | None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a worker: this program's own, without its telemetry settings, importing this very package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    if directory := os.environ.get("OTEL_TRADING_DIR"):
        kept["OTEL_TRADING_DIR"] = str(Path(directory).absolute())
    kept["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    if backend is not None:
        kept["OTEL_TRADING_BACKEND"] = backend
    return {**kept, **(extra or {})}


def task(
    name: str,
    options: Mapping[str, Any],
    *,
    backend: str | None,
    extra: Mapping[str, str] | None = None,
    progress: Callable[[Any], object] | None = None,
) -> dict[str, Any]:
    """Run a task of ``worker`` in a child process.  Raises BenchmarkError with what the child said where it fails."""
    command = [sys.executable, "-m", "otel_trading.bench.worker", name, json.dumps(dict(options))]
    return lines(command, environment(backend, extra), progress)


def footprint(backend: str) -> dict[str, Any]:
    """Run footprint.py in a fresh interpreter.  Raises BenchmarkError as ``task`` does."""
    return lines([sys.executable, str(FOOTPRINT)], environment(backend), None)


def lines(command: Sequence[str], env: Mapping[str, str], progress: Callable[[Any], object] | None) -> dict[str, Any]:
    """Run ``command``; give its result line, or its last line where that has no ``result``.

    ``progress`` is called with what each of its progress lines has.
    """
    found: dict[str, Any] | None = None
    with _scratch() as errors:
        # In the package's own place, because "python -m" looks where it is started first.
        with subprocess.Popen(
            command, env=dict(env), cwd=_ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child:
            try:
                for line in child.stdout or ():
                    if not line.startswith("{"):
                        continue  # a library that prints
                    said = json.loads(line)
                    if "progress" in said:
                        if progress is not None:
                            progress(said["progress"])
                    else:
                        found = said.get("result", said)
            except BaseException:
                child.kill()  # an interrupted benchmark leaves nobody measuring
                raise
        if child.returncode == 0 and found is not None:
            return found
        errors.seek(0)
        tail = "\n".join(errors.read().strip().splitlines()[-8:])
    message = f"{' '.join(command[:4])} ended with status {child.returncode}:\n{tail}"
    raise BenchmarkError(message)


def _scratch() -> IO[str]:
    """A file for what a child says; in memory where that is possible, or it would count as the child's writing."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("otel-trading-child"), "w+", encoding="utf-8")
    return tempfile.TemporaryFile("w+")


def has_native() -> bool:
    """Tell whether the C extension can be imported."""
    check = [sys.executable, "-c", "from otel_trading._native import BACKEND"]
    return subprocess.run(check, env=environment(None), cwd=_ROOT, check=False, capture_output=True).returncode == 0


def has_otlp() -> bool:
    """Tell whether OpenTelemetry's OTLP exporter over http is installed."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False
