"""A reader attached from another process while eight threads record through the public API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from conftest import child_environment, wait_until

from otel_trading import segment

if TYPE_CHECKING:
    import pytest

WRITER = """
import sys, threading
import otel_trading as ot

THREADS, EACH = 8, int(sys.argv[1])
ot.configure("writer", config={"ring.slots": 4096, "ring.thread_slots": 1024})
work = ot.probe("work", tier=ot.P0)

def run(number):
    for n in range(EACH):
        with work.span(thread=number, n=n, twice=2 * n, text=f"{number}/{n}/" + "x" * 70):
            pass

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done", flush=True)
sys.stdin.readline()
"""


def test_no_record_is_a_mixture(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Every span that the reader takes fits together, and each is either read, missed or still there: none twice."""
    each = 20_000
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(each)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(tmp_path),
    )
    request.addfinalizer(writer.kill)
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    (path,) = Path(tmp_path).glob("*.seg")
    reader = segment.attach(path)
    writer.stdin.write("go\n")
    writer.stdin.flush()
    seen: set[tuple[int, int]] = set()
    read = 0

    def take() -> bool:
        nonlocal read
        states = reader.read(5000)
        for state in states:
            attributes = state[11]
            thread, n = attributes["thread"], attributes["n"]
            assert attributes["twice"] == 2 * n
            # the arena may have come round before the reader did; what is there must be right
            assert attributes.get("text", f"{thread}/{n}/" + "x" * 70) == f"{thread}/{n}/" + "x" * 70
            seen.add((thread, n))
        read += len(states)
        return not states and sum(ring["head"] for ring in reader.info()["rings"]) == 8 * each

    wait_until(take, 120)
    missed, torn = reader.missed()
    assert torn == 0
    assert len(seen) == read
    assert read + missed == 8 * each
    assert read > 0
    reader.close()
    writer.stdin.write("end\n")
    writer.stdin.close()
    assert writer.wait(30) == 0
    writer.stdout.close()
