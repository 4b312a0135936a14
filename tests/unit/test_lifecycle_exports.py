"""Exporters through the recorder's life: started when asked for, flushed at every end, each span sent once."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

SMALL = {"ring.slots": 1024, "ring.thread_slots": 64}

CONSOLE = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"}


def spans(text: str) -> list[dict[str, object]]:
    """Parse what the console exporter has written: one JSON object after another."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        while at < len(text) and text[at].isspace():
            at += 1
    return found


def test_none_are_started_unless_asked_for(tmp_path: Path) -> None:
    """Without exporters the OpenTelemetry SDK is not even loaded."""
    ot.configure("bot", tmp_path, SMALL)
    assert lifecycle._host.exports is None
    assert ot.flush()


def test_unknown_exporter_is_a_configuration_error(tmp_path: Path) -> None:
    """An exporter that is not installed is told at once, and nothing is left running."""
    with pytest.raises(ot.ConfigurationError, match="nonesuch"):
        ot.configure("bot", tmp_path, {**SMALL, "export.traces": ["nonesuch"]})
    assert not core.is_open()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_exporter_that_breaks_on_its_way_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter that fails to start is reported, and recording goes on without it."""
    from otel_trading.drain import exports

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(exports, "start", fail)
    ot.configure("bot", tmp_path, {**SMALL, "export.traces": "console"})
    assert core.is_open()
    assert "nothing is exported" in caplog.text


def test_spans_are_sent_at_the_exit(run_python: Run) -> None:
    """What was recorded last is sent before the program ends."""
    done = run_python(
        """
import otel_trading as ot
ot.configure("bot")
with ot.probe("outer"):
    for number in range(10):
        with ot.probe("inner").span(number=number):
            pass
""",
        **CONSOLE,
    )
    sent = spans(done.stdout)
    assert sorted(str(span["name"]) for span in sent) == ["inner"] * 10 + ["outer"]
    assert done.stderr == ""


@pytest.mark.parametrize("call", ["ot.flush()", "ot.shutdown()"])
def test_flush_and_shutdown_send(run_python: Run, call: str) -> None:
    """After a flush, or a shutdown, what came before it has been sent and is in the accounts."""
    done = run_python(
        f"""
import os, sys
import otel_trading as ot
ot.configure("bot")
for _ in range(100):
    with ot.probe("work"):
        pass
assert {call} in (True, None)
if "flush" in {call!r}:
    account = ot.accounts()[1]
    assert account["exported"] == account["recorded"] == 100, account
sys.stdout.flush()
os._exit(0)
""",
        **CONSOLE,
    )
    assert len(spans(done.stdout)) == 100


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_each_span_is_sent_once_across_a_fork(run_python: Run) -> None:
    """Spans of before, after, and both sides of a fork are each sent by the process that recorded them."""
    done = run_python(
        """
import os, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
import otel_trading as ot
ot.configure("bot")
def work(who):
    for number in range(50):
        with ot.probe("work").span(who=who, number=number):
            pass
work("before")
pid = os.fork()
if pid == 0:
    work("child")
    sys.exit(0)
work("parent")
_, status = os.waitpid(pid, 0)
assert status == 0
work("after")
""",
        **CONSOLE,
    )
    sent = sorted((span["attributes"]["who"], span["attributes"]["number"]) for span in spans(done.stdout))
    assert sent == sorted((who, number) for who in ("before", "child", "parent", "after") for number in range(50))


def test_sigterm_sends(run_python: Run) -> None:
    """SIGTERM sends the finished spans and the open one, as an error."""
    done = run_python(
        """
import os, signal
import otel_trading as ot
ot.configure("bot")
with ot.probe("done"):
    pass
with ot.probe("open"):
    os.kill(os.getpid(), signal.SIGTERM)
    import time
    time.sleep(30)
""",
        check=False,
        **CONSOLE,
    )
    assert done.returncode == -15
    sent = {str(span["name"]): span["status"] for span in spans(done.stdout)}
    assert set(sent) == {"done", "open"}
    assert sent["open"]["status_code"] == "ERROR"


def test_a_collector_that_is_down_does_not_hold_the_exit(run_python: Run) -> None:
    """With nobody listening the program ends by its timeout, and the log says what was not sent."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the OTLP exporter is not installed")
    done = run_python(
        """
import time
import otel_trading as ot
ot.configure("bot", config={"shutdown.timeout": 0.5})
with ot.probe("work"):
    pass
began = time.monotonic()
ot.shutdown()
print(time.monotonic() - began < 10)
""",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    )
    assert done.stdout == "True\n"
