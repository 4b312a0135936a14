"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("otel-trading", "opentelemetry-sdk", "opentelemetry-exporter-otlp", "prometheus-client")


def describe() -> dict[str, Any]:
    """Processor, kernel, interpreter and versions; what cannot be found is left empty."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "clock": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _processor() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
