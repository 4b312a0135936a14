"""What a segment still holds after its process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import child_environment

from otel_trading import segment

VICTIM = """
import sys
import otel_trading as ot

ot.configure("victim", config={"ring.slots": 1 << 17, "ring.arena_bytes": 1 << 24})
session, work = ot.probe("session", tier=ot.P0), ot.probe("work", tier=ot.P1)
with session.span(account="paper"):
    for n in range(100_000):
        with work.span(n=n, text="x" * 80):
            pass
        if n % 100 == 0:
            print(n, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 7, 60])
def test_no_finished_span_is_lost(tmp_path: Path, lines: int) -> None:
    """After SIGKILL in the middle of the work every span that had ended is there, whole, and the open one is seen."""
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, text=True, env=child_environment(tmp_path)
    ) as victim:
        assert victim.stdout is not None
        ended = [int(victim.stdout.readline()) for _ in range(lines)][-1]
        os.kill(victim.pid, signal.SIGKILL)
        assert victim.wait(30) == -signal.SIGKILL
    (path,) = Path(tmp_path).glob("*.seg")
    reader = segment.attach(path)
    probes = [probe[0] for probe in reader.probes()]
    spans = reader.read(1_000_000)
    assert [state[11] for state in spans] == [{"n": n, "text": "x" * 80} for n in range(len(spans))]
    assert len(spans) > ended
    assert reader.missed() == (0, 0)
    assert not reader.info()["closed"]
    still_open = {probes[state[0]]: state for state in reader.open_spans()}
    assert still_open["session"][11] == {"account": "paper"}
    assert {state[2] for state in spans} == {still_open["session"][2]}
    assert set(still_open) <= {"session", "work"}
    reader.close()
