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
