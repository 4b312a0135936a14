"""The start of a process that ``otel-trading run`` has instrumented."""

from __future__ import annotations

import os
import sys


def instrument(folder: str) -> None:
    """Have OpenTelemetry's loader do its work; ``folder`` is that of our ``sitecustomize``.  Never raises.

    Meanwhile the folder is not on PYTHONPATH: a program that is started by the loading must not load in its turn.
    """
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        entry for entry in path.split(os.pathsep) if os.path.abspath(entry) != folder
    )
    try:
        from opentelemetry.instrumentation.auto_instrumentation import initialize

        initialize()
    except Exception as error:  # noqa: BLE001  the program starts whatever happens here
        _say(f"otel-trading: not instrumented: {error!r}\n")
    finally:
        os.environ["PYTHONPATH"] = path
    # Printed by the first process alone: its children find the variable gone.
    if os.environ.pop("OTEL_TRADING_CHECKLIST", ""):
        try:
            from otel_trading.run import checklist

            _say(checklist.text())
        except Exception as error:  # noqa: BLE001  as above
            _say(f"otel-trading: the checklist could not be made: {error!r}\n")


def _say(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # none, closed, or full
        return
