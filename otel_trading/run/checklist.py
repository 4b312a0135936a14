"""The checklist: what records, where it goes, what was instrumented, what was skipped and why."""

from __future__ import annotations

import os

from otel_trading.run import outcomes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.run.outcomes import Outcomes

_MARKS = {outcomes.INSTRUMENTED: "\u2713", outcomes.SKIPPED: "-", outcomes.FAILED: "\u2717"}


def text() -> str:
    """Give the lines that go to standard error, the last one ending in a newline."""
    told = outcomes.current
    lines = [f"otel-trading: {_recording(told)}"]
    lines += [f"  {_mark(outcome)} {name}" + (f": {reason}" if reason else "") for name, outcome, reason in _rows(told)]
    return "\n".join(lines) + "\n"


def _rows(told: Outcomes) -> list[tuple[str, str, str]]:
    return told.rows() if told.settings is not None and told.refused is None else []


def _mark(outcome: str) -> str:
    import sys

    mark = _MARKS[outcome]
    try:
        mark.encode(getattr(sys.stderr, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return {outcomes.INSTRUMENTED: "+", outcomes.FAILED: "!"}.get(outcome, "-")
    return mark


def _recording(told: Outcomes) -> str:
    if told.refused is not None:
        return f"nothing is instrumented: {told.refused}; run: otel-trading config check"
    settings = told.settings
    if settings is None:
        return "our distro was not loaded; run: otel-trading doctor"
    from otel_trading import lifecycle
    from otel_trading._backend import backend
    from otel_trading.config import sdk_disabled

    if sdk_disabled():
        return "nothing is recorded: OTEL_SDK_DISABLED is true"
    path = lifecycle._host.path  # noqa: SLF001
    if path is None:
        return "nothing is recorded: the recorder did not start (see above); run: otel-trading doctor"
    if not settings.enabled:
        return f"recording is off (enabled, said by {settings.sources['enabled']}); {path}"
    ways = _agent(os.path.dirname(path)) if settings.host == "agent" else f"spans go to {_exporters(told)}"
    return f"pid {os.getpid()} records ({backend} backend) in {path}; {ways}"


def _agent(where: str) -> str:
    from otel_trading.agent import files

    if files.is_running(where):
        return f"the agent, pid {files.words(where).pid}, drains it and exports; see: otel-trading agent --status"
    return "no agent drains it: start one with otel-trading agent"


def _exporters(told: Outcomes) -> str:
    if os.environ.get("OTEL_CONFIG_FILE"):
        return f"the exporters of {os.environ['OTEL_CONFIG_FILE']}"
    names = told.settings.export_traces if told.settings is not None else ()
    if names:
        return ", ".join(names)
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return "no exporter"
    return "no exporter: none is installed (pip install otel-trading[otlp]) or named"
