"""A reader attached from another process while eight threads record through the public API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import child_environment, wait_until

from otel_trading import segment

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


def test_no_record_is_a_mixture(tmp_path: Path) -> None:
    """Every span that the reader takes fits together, and none is taken twice."""
    each = 20_000
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(each)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(tmp_path),
    ) as writer:
        try:
            read_while_written(writer, tmp_path, each)
        finally:
            writer.kill()


def read_while_written(writer: subprocess.Popen[str], directory: Path, each: int) -> None:
    """Read along until the writer is done, and then what is left."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    (path,) = directory.glob("*.seg")
    reader = segment.attach(path)
    seen: set[tuple[object, object]] = set()

    def take() -> int:
        states = reader.read(5000)
        for state in states:
            attributes = state[11]
            thread, n, twice = attributes["thread"], attributes["n"], attributes["twice"]
            assert isinstance(n, int)
            assert twice == 2 * n
            # the arena may have come round before the reader did; what is there must be right
            text = f"{thread}/{n}/" + "x" * 70
            assert attributes.get("text", text) == text
            assert (thread, n) not in seen
            seen.add((thread, n))
        return len(states)

    writer.stdin.write("go\n")
    writer.stdin.flush()
    wait_until(take)
    wait_until(lambda: take() == 0 and sum(a["recorded"] for a in reader.accounts()) == 8 * each, 120)
    missed, torn = reader.missed()
    assert torn == 0
    # the rest are pauses of the garbage collector, which are records too
    assert len(seen) + missed <= sum(ring["head"] for ring in reader.info()["rings"])
    reader.close()
