"""Each installed instrumentor, loaded by OpenTelemetry's loader in a process of its own, as ``run`` would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from otel_trading.doctor.check import FAIL, OK, WARN, Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.doctor.check import Situation

_TIMEOUT = 120.0
_MARK = "otel-trading-doctor:"
_PROGRAM = """
import json, sys
from opentelemetry.instrumentation.auto_instrumentation import initialize
initialize()
from otel_trading.run.outcomes import current
print("otel-trading-doctor:" + json.dumps(dict(rows=current.rows(), refused=current.refused)), flush=True)
"""


def checks(_situation: Situation) -> Iterator[Check]:
    """Give one finding an instrumentor."""
    with tempfile.TemporaryDirectory(prefix="otel-trading-doctor-") as directory:
        environment = {
            **os.environ,
            "OTEL_PYTHON_DISTRO": "otel_trading",
            "OTEL_PYTHON_CONFIGURATOR": "otel_trading",
            "OTEL_TRADING_DIR": directory,
            "OTEL_TRACES_EXPORTER": "none",  # nothing of this is to be exported
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        }
        environment.pop("OTEL_CONFIG_FILE", None)
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _PROGRAM],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Check("instrumentors", FAIL, f"they could not be tried: {error}", "load them one by one")
            return
    line = next((text for text in done.stdout.splitlines() if text.startswith(_MARK)), None)
    if line is None:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        yield Check("instrumentors", FAIL, f"loading them ends the process: {said}", "otel-trading run -- python -c 0")
        return
    found = json.loads(line.removeprefix(_MARK))
    if found["refused"]:
        yield Check("instrumentors", FAIL, f"none is loaded: {found['refused']}", "otel-trading config check")
        return
    yield from map(_finding, found["rows"])


def _finding(row: list[str]) -> Check:
    name, outcome, reason = row
    title = f"instrumentor {name}"
    if outcome == "instrumented":
        return Check(title, OK, "instrumented")
    if outcome == "failed":
        return Check(
            title, FAIL, reason, f"update its package, or disable it: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={name}"
        )
    if reason.endswith(" is installed"):  # in a version that it does not know
        return Check(title, WARN, reason, "install the version that it needs, or a newer instrumentation package")
    return Check(title, OK, f"skipped: {reason}")
