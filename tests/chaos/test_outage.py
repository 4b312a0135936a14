"""A receiver that is down for long: memory stays flat, what is lost is counted by tier, and P0 goes last."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import uncovered
from otlp_receiver import Receiver, attributes, over_http

# Four tiers at a steady rate while nobody listens, then until the queue is empty; it tells its memory each second.
PROGRAM = """
import json, sys, time
import otel_trading as ot

seconds, rate, port = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
ot.configure("outage", config={"export.queue": 8192, "ring.slots": 65536})
probes = [ot.probe(f"tier{tier}", tier=tier) for tier in (ot.P0, ot.P1, ot.P2, ot.P3)]
shares = [0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]  # P0 is the smallest part, as in life

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

done = 0
began = time.monotonic()
told = 0.0
while (now := time.monotonic() - began) < seconds:
    while done < now * rate:
        with probes[shares[done % len(shares)]].span(n=done):
            pass
        done += 1
    if now - told >= 1.0:
        told = now
        print(json.dumps({"resident": resident()}), flush=True)
    time.sleep(0.001)
print(json.dumps({"down": ot.accounts()}), flush=True)
sys.stdin.readline()  # the receiver is back
assert ot.flush(60.0)
for _ in range(100):
    with probes[0].span(n=-1):
        pass
assert ot.flush(60.0)
print(json.dumps({"up": ot.accounts()}), flush=True)
ot.shutdown()
"""


def test_a_receiver_that_is_down(
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    chosen: Callable[[float, float], float],
    figures: Callable[..., None],
    progress: Callable[[str], None],
) -> None:
    """At a steady load nothing grows, the accounts are exact, P0 is refused last, and exports go on by themselves."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    seconds, rate = rounds(6, 600), int(chosen(4_000, 13_000))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds), str(rate), str(port)],
        env=uncovered(
            tmp_path,
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_TIMEOUT="2000",
            OTEL_TRADING_BUDGET_ENABLED="false",
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        resident: list[int] = []
        for line in program.stdout:
            told = json.loads(line)
            if "down" in told:
                break
            resident.append(told["resident"])
            progress(f"receiver down: {len(resident)} of {seconds} s, {resident[-1] / 1e6:.1f} MB")
        receiver = Receiver()
        with over_http(receiver, port):
            program.stdin.write("back\n")
            program.stdin.flush()
            up = json.loads(program.stdout.readline())["up"]
            assert program.wait(60) == 0
    for account in up.values():
        assert account["recorded"] == sum(n for name, n in account.items() if name != "recorded")
        assert account["pending"] == 0
    spans = receiver.spans()
    assert len({span.span_id for span in spans}) == len(spans)
    by_tier = Counter(span.name for span in spans)
    assert {f"tier{tier}": account["exported"] for tier, account in up.items()} == dict(by_tier)
    kept = [up[tier]["exported"] / up[tier]["recorded"] for tier in "0123"]
    assert kept[0] == max(kept)
    assert kept[3] == min(kept)
    assert sum(1 for span in spans if attributes(span).get("n") == -1) == 100
    settled = resident[len(resident) // 3 :]
    figures(
        "receiver down",
        seconds=seconds,
        rate=rate,
        resident_first_mb=settled[0] / 1e6,
        resident_last_mb=settled[-1] / 1e6,
        kept_by_tier=kept,
    )
    assert settled[-1] - settled[0] < 4 << 20


@pytest.mark.parametrize("host", ["embedded", "agent"])
def test_soak(
    tmp_path: Path,
    host: str,
    rounds: Callable[[int, int], int],
    figures: Callable[..., None],
    progress: Callable[[str], None],
) -> None:
    """At the load of a trading program memory has no slope that differs from none."""
    from soak import memory_over_time, slope

    samples = memory_over_time(tmp_path, host, rounds(10, 3_600), progress)
    rate, error = slope(samples)
    figures(f"soak, {host}", seconds=samples[-1][0], bytes_a_second=rate, standard_error=error)
    # What is left after the caches have filled: within two standard errors, or less than 100 kB an hour.
    assert rate <= max(2.0 * error, 100_000 / 3_600) or samples[-1][0] < 60
