"""A program dies under an agent: within a moment its open spans, its death and the report are there."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from agents import Scene, scene
from conftest import wait_until
from otlp_receiver import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the agent needs Linux")

OPEN = "ot.probe('open', tier=ot.P0).__enter__()"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """Give a directory, a receiver and no process yet; ends are looked into."""
    with scene(tmp_path, forensics=True) as made:
        yield made


@pytest.mark.parametrize("host", ["agent", "embedded"])
def test_a_killed_program(stage: Scene, host: str) -> None:
    """What was open is exported as interrupted, the death as a span; report and archive are there, the segment gone."""
    stage.agent()
    program = stage.program(20, host=host)
    assert stage.hear(program) == "written"
    stage.tell(program, OPEN)
    wait_until(lambda: stage.segment(program.pid).get("state") == ("drained" if host == "agent" else "drains itself"))
    stage.end(program, signal.SIGKILL)
    wait_until(lambda: len(stage.received("process.death")) == 1)
    stage.await_all()
    spans = {span.name: span for span in stage.receiver.spans()}
    assert spans["open"].status.code == 2
    assert spans["process.death"].status.code == 2
    assert attributes(spans["process.death"])
    wait_until(lambda: stage.segments() == [])
    wait_until(lambda: stage.status()["died"] == 1)
    assert stage.status()["deaths"][0]["pid"] == program.pid
    kept = [os.path.join(where, name) for where, _, names in os.walk(stage.base / "state") for name in names]
    assert any("crash" in path for path in kept), kept
    assert len(stage.received("process.death")) == 1


@pytest.mark.parametrize("when", ["before the end", "after the export"])
def test_a_drain_host_that_hangs_when_its_process_has_died(stage: Scene, when: str) -> None:
    """It is ended, and another one does what is left to do: nothing is missing, nothing comes twice."""
    config = stage.base / "config.yaml"
    config.write_text(config.read_text().replace("shutdown: {timeout: 5}", "shutdown: {timeout: 0.5}"))
    stage.agent()
    program = stage.program(20)
    assert stage.hear(program) == "written"
    stage.await_all()
    stage.tell(program, OPEN)
    host = stage.segment(program.pid)["drain_host"]

    def stop() -> None:
        os.kill(host, signal.SIGSTOP)
        stage.receiver.before = bool

    if when == "before the end":
        stop()
    else:
        stage.receiver.before = stop
    stage.end(program, signal.SIGKILL)
    wait_until(lambda: stage.status()["died"] == 1, 60.0)
    stage.await_all()
    assert not os.path.exists(f"/proc/{host}")
    assert stage.status()["restarts"] == 1
    assert len(stage.received("open")) == len(stage.received("process.death")) == 1
    assert stage.status()["deaths"][0]["report"] is not None
    assert stage.segments() == []
    assert "hangs: it is ended" in stage.said()


def test_an_orderly_end_is_no_death(stage: Scene) -> None:
    """A program that ends by itself is drained, and that is all."""
    stage.agent()
    program = stage.program(20)
    assert stage.hear(program) == "written"
    assert stage.end(program) == 0
    stage.await_all()
    wait_until(lambda: stage.segments() == [])
    assert stage.status()["died"] == 0
    assert stage.received("process.death") == []


def test_orders_that_are_open_are_found_after_the_death(stage: Scene) -> None:
    """The order table stays, without the rings, and the next process finds the order in it."""
    stage.agent()
    program = stage.program(5)
    assert stage.hear(program) == "written"
    stage.tell(program, "ot.order('o-1', symbol='BTCUSDT', side='buy', qty=1.0, price=2.0)")
    stage.end(program, signal.SIGKILL)
    wait_until(lambda: stage.status()["died"] == 1)
    assert len(stage.segments()) == 1
    assert (stage.directory / stage.segments()[0]).stat().st_blocks * 512 < 6 << 20
    following = stage.program(1)
    assert stage.hear(following) == "written"
    stage.tell(following, "ot.order('o-1').fill(2.0, 1.0)")
    assert stage.tell(following, "print(ot.flush(10.0))") == "True"
    assert stage.end(following) == 0
    wait_until(lambda: stage.segments() == [])
    traces = {span.trace_id for span in stage.receiver.spans() if attributes(span).get("trading.order.id") == "o-1"}
    assert len(traces) == 1


def test_a_program_that_is_killed_in_emergency(stage: Scene) -> None:
    """The lean drain host loads the exporters itself, and sends what was kept meanwhile, and the death."""
    stage.agent()
    program = stage.program(10)
    assert stage.hear(program) == "written"
    stage.await_all()
    stage.tell(program, "ot.set_mode('EMERGENCY')")
    wait_until(lambda: stage.segment(program.pid).get("state") == "lean")
    record = "span = probe.record(None, 0, 0, False, None)"
    stage.tell(program, record + "; os.write(ledger, f'{span.trace_id:032x}{span.span_id:016x}\\n'.encode())")
    stage.tell(program, OPEN)
    host = stage.segment(program.pid)["drain_host"]
    stage.end(program, signal.SIGKILL)
    wait_until(lambda: stage.status()["died"] == 1)
    stage.await_all()
    assert len(stage.recorded()) == 11
    assert len(stage.received("open")) == len(stage.received("process.death")) == 1
    assert stage.segments() == []
    assert stage.status()["restarts"] == 0
    assert not os.path.exists(f"/proc/{host}")


def test_a_crash_is_found_afterwards(stage: Scene) -> None:
    """What an exception ended has exported itself; its segment tells of it, is looked into once, and sends no more."""
    program = stage.program(20, host="embedded")
    assert stage.hear(program) == "written"
    program.communicate("raise KeyError('secret')\n")
    assert program.returncode == 1
    stage.await_all()
    assert len(stage.segments()) == 1
    assert (stage.directory / stage.segments()[0]).stat().st_blocks * 512 < 8 << 20
    looked = stage.start("-m", "otel_trading", "forensics").communicate()[0]
    assert "uncaught KeyError" in looked
    assert "secret" not in looked
    assert stage.start("-m", "otel_trading", "agent", "--once").wait(20.0) == 0, stage.said()
    assert stage.segments() == []
    wait_until(lambda: len(stage.received("process.death")) == 1)
    assert len(stage.received()) == 20
    looked = stage.start("-m", "otel_trading", "forensics").communicate()[0]
    assert "uncaught KeyError" in looked


@pytest.mark.parametrize("host", ["agent", "embedded"])
def test_a_crash_beside_an_agent(stage: Scene, host: str) -> None:
    """It is looked into at once, whoever has drained it, and sends nothing twice."""
    stage.agent()
    program = stage.program(20, host=host)
    assert stage.hear(program) == "written"
    wait_until(lambda: stage.segment(program.pid).get("state") in {"drained", "drains itself"})
    program.communicate("raise KeyError('secret')\n")
    wait_until(lambda: stage.status()["died"] == 1)
    stage.await_all()
    (death,) = [span for span in stage.receiver.spans() if span.name == "process.death"]
    assert attributes(death)["exception.type"] == "KeyError"
    assert len(stage.received()) == 20
    wait_until(lambda: stage.segments() == [])


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_what_is_no_crash_leaves_nothing(stage: Scene, enabled: str) -> None:
    """An exit code of its own, SIGTERM, and without forensics an exception too: the segment is removed."""
    config = stage.base / "config.yaml"
    config.write_text(config.read_text().replace("forensics: {enabled: true}", f"forensics: {{enabled: {enabled}}}"))
    for code in ["sys.exit(3)", "os.kill(os.getpid(), 15)"] + ["1 / 0"] * (enabled == "false"):
        program = stage.program(1, host="embedded")
        assert stage.hear(program) == "written"
        program.communicate(code + "\n")
        assert program.returncode != 0
        assert stage.segments() == []
