"""Python imports this at its start: it instruments the process, and leaves everything else as it would have been.

It does what OpenTelemetry's own ``sitecustomize`` does, and three things more: a ``sitecustomize`` that it hides from
Python is run, a Python without our package starts untouched, and the checklist is printed when all is loaded.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_HELPER = (
    "from multiprocessing.resource_tracker import"  # a process of Python's own, which runs nothing of the program's
)


def _run_hidden() -> None:
    """Run the next ``sitecustomize`` on the path, which would be Python's without us."""
    from importlib import util
    from importlib.machinery import PathFinder

    theirs = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if os.path.abspath(entry) != _HERE])
    if theirs is None or theirs.loader is None:
        return
    folder = os.path.dirname(theirs.origin or "")
    if folder.endswith(os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")):
        return  # it would instrument a second time
    module = util.module_from_spec(theirs)
    sys.modules["sitecustomize"] = module
    theirs.loader.exec_module(module)


def _instrument() -> None:
    try:
        from otel_trading.run import start
    except ImportError as error:
        if os.environ.pop("OTEL_TRADING_CHECKLIST", ""):
            sys.stderr.write(
                f"otel-trading: not instrumented: {sys.executable} has no otel-trading ({error}); "
                "install it there, or name the Python that has it\n"
            )
        return
    start.instrument(_HERE)


if not any(argument.startswith(_HELPER) for argument in sys.orig_argv):
    try:
        _run_hidden()
    finally:
        _instrument()
