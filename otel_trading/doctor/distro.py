"""Which distro and configurator OpenTelemetry's loader would really choose, asked of the loader itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from otel_trading.doctor.check import FAIL, OK, WARN, Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.doctor.check import Situation

_OURS = "otel_trading"
_TIMEOUT = 60.0
# The distro's own loading is the loader's; its configurators are chosen as _load_configurators does, without being run.
_PROGRAM = """
import json, os, sys
from importlib.metadata import entry_points
from opentelemetry.instrumentation.auto_instrumentation import _load
distro = _load._load_distro()
distro.configure()
wanted = os.environ.get("OTEL_PYTHON_CONFIGURATOR")
points = [p for p in _load.entry_points(group="opentelemetry_configurator") if wanted in (None, p.name)]
def package(p):
    return getattr(getattr(p, "dist", None), "name", None) or p.value.partition(".")[0]
json.dump({
    "distro": f"{type(distro).__module__}.{type(distro).__qualname__}",
    "configurator": points[0].value if points else None,
    "distros": [[p.name, package(p)] for p in entry_points(group="opentelemetry_distro")],
}, sys.stdout)
"""


def checks(_situation: Situation) -> Iterator[Check]:
    """Ask twice: as ``opentelemetry-instrument`` would find things, and as ``otel-trading run`` does."""
    for name, command, environment in (
        ("distro", "opentelemetry-instrument", {}),
        ("distro of run", "otel-trading run", {"OTEL_PYTHON_DISTRO": _OURS, "OTEL_PYTHON_CONFIGURATOR": _OURS}),
    ):
        found = chosen(environment)
        if isinstance(found, str):
            yield Check(name, FAIL, f"OpenTelemetry's loader failed: {found}", "pip install --upgrade otel-trading")
            continue
        ours = found["distro"].startswith(f"{_OURS}.") and str(found["configurator"]).startswith(f"{_OURS}.")
        message = f"{command} chooses {found['distro']} and {found['configurator'] or 'no configurator'}"
        others = [f"{point} (package {package})" for point, package in found["distros"] if point != _OURS]
        if others:
            message += f"; also installed: {', '.join(others)}"
        remedy = (
            "use otel-trading run, or set OTEL_PYTHON_DISTRO=otel_trading and OTEL_PYTHON_CONFIGURATOR=otel_trading"
        )
        if not any(point == _OURS for point, _ in found["distros"]):
            remedy = "pip install --force-reinstall otel-trading: its entry points are missing"
        yield Check(name, OK, message) if ours else Check(name, FAIL if "run" in name else WARN, message, remedy)


def chosen(environment: dict[str, str]) -> dict[str, Any] | str:
    """Give what a process with these further variables would choose, or why that cannot be told."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return found
