"""When a process dies: its open spans end, ``process.death`` tells why, a report is kept, an alert raised."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import child_environment, uncovered

from otel_trading.forensics import archive, how_it_ended

VICTIM = """
import sys, time
import otel_trading as ot

ot.configure("victim", config={"drain.period": 60})  # what it records is drained by who buries it
session, work = ot.probe("session", tier=ot.P0), ot.probe("work")
with session.span(account="paper"):
    for n in range(200):
        ot.market_data("BTCUSDT", time.time() * 1e3, 100.0, 1.0)
        with work.span(n=n):
            ot.order(f"o{n}", symbol="BTCUSDT", side="buy", qty=1.0, price=100.0).ack()
    with work.span(n=-1):
        print("ready", flush=True)
        exec(sys.argv[1])
"""

BURY = """
import json, os, sys
from otel_trading import alerts
from otel_trading._backend import core
from otel_trading.agent import death
from otel_trading.config import resolve
from otel_trading.forensics.how_it_ended import Before, End

path, end, before, crashes = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
raised = []
alerts.raise_alert = raised.append
fd = os.open(path, os.O_RDWR)
core.adopt(fd)
os.close(fd)
core.keep(100_000)
dead = death.record(path, End.unpack(end), Before.unpack(before))
core.drain(True)
batch = core.take(100_000)
reader = core.Reader(os.open(path, os.O_RDONLY))
names = [probe[0] for probe in reader.probes()]
spans = [
    {"name": state[13] or names[state[0]], "tier": state[1], "trace": f"{state[2]:x}", "id": state[3],
     "parent": state[4], "start": state[5], "end": state[6], "status": state[7], "flags": state[8],
     "error": state[9], "attributes": state[11]}
    for state in batch.states()
]
batch.settle()
told = dead.keep(resolve(config={"forensics.directory": crashes}))
core.let_go()
print(json.dumps({"spans": spans, "told": told, "orderly": dead.orderly, "interrupted": dead.interrupted, "alerts": [
    [a.name, a.severity, a.summary, a.labels, a.details] for a in raised]}))
"""


class Died:
    """A process that has died, and what was made of it."""

    def __init__(self, tmp_path: Path, run_python: Callable[..., Any], last_words: str) -> None:
        """Have it die, and look into it as the agent does."""
        with subprocess.Popen(
            [sys.executable, "-c", VICTIM, last_words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=uncovered(tmp_path, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none"),
        ) as child:
            before = how_it_ended.Before(child.pid)
            pidfd = os.pidfd_open(child.pid)
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            self.copy = next(iter(tmp_path.glob("*.seg"))).rename(tmp_path / "victim.seg")
            child.wait(60)
            self.pid = child.pid
        end = how_it_ended.look(child.pid, pidfd=pidfd, before=before)
        os.close(pidfd)
        self.crashes = tmp_path / "crashes"
        done = run_python(BURY, str(self.copy), json.dumps(end.pack()), json.dumps(before.pack()), str(self.crashes))
        result = json.loads(done.stdout.splitlines()[-1])
        self.spans, self.told, self.alerts = result["spans"], result["told"], result["alerts"]
        self.orderly, self.interrupted = result["orderly"], result["interrupted"]

    def named(self, name: str) -> list[dict[str, Any]]:
        """Give the spans of a name."""
        return [span for span in self.spans if span["name"] == name]


@pytest.fixture
def die(tmp_path: Path, run_python: Callable[..., Any]) -> Callable[[str], Died]:
    """Give the function that has a process die by its last words."""
    return lambda last_words: Died(tmp_path, run_python, last_words)


def test_a_process_that_was_killed(die: Callable[[str], Died]) -> None:
    """SIGKILL: the open spans are exported as interrupted, and a span tells why; report and alert follow."""
    died = die("import os; os.kill(os.getpid(), 9)")
    (session,) = died.named("session")
    (stage,) = [span for span in died.named("work") if span["attributes"].get("n") == -1]
    for span in (session, stage):
        assert span["status"] == 2
        assert span["flags"] & 16
        assert span["error"] == "killed by SIGKILL"
    assert died.interrupted == 2
    assert len(died.named("work")) == 201
    (death,) = died.named("process.death")
    assert (death["tier"], death["status"]) == (0, 2)
    assert (death["trace"], death["parent"]) == (stage["trace"], stage["id"])
    assert 0 < death["start"] <= death["end"]
    told = death["attributes"]
    assert told["trading.death.cause"] == died.told["cause"] == "killed"
    assert told["trading.death.how"] == "killed by SIGKILL"
    assert told["process.exit.signal"] == "SIGKILL"
    assert told["process.pid"] == died.pid
    assert told["trading.death.open_orders"] == 200
    assert told["trading.death.open_spans"] == 2
    assert told["trading.death.symbols"] == "BTCUSDT"
    assert "SIGKILL" in told["trading.death.evidence"]
    ((name, severity, summary, labels, details),) = died.alerts
    assert (name, severity) == ("ProcessDied", "critical")
    assert summary == f"victim, pid {died.pid}, died: killed by SIGKILL; likely cause killed (70%)"
    assert labels == {"service": "victim", "pid": str(died.pid), "cause": "killed"}
    assert details["report"] == died.told["report"]
    (kept,) = archive.kept(str(died.crashes))
    assert (kept.report, kept.segment) == (died.told["report"], died.told["segment"])
    report = archive.read_report(str(kept.report))
    assert report is not None
    assert report["cause"]["name"] == "killed"
    assert {span["name"] for span in report["open_spans"]} == {"session", "work"}
    assert report["counts"]["open_orders"] == 200
    assert report["counts"]["spans"] >= 400


def test_an_exit_code(die: Callable[[str], Died]) -> None:
    """An end by an exit code is a warning."""
    died = die("import os; os._exit(9)")
    (death,) = died.named("process.death")
    assert death["attributes"]["process.exit.code"] == 9
    assert [alert[1] for alert in died.alerts] == ["warning"]


def test_an_uncaught_exception(die: Callable[[str], Died]) -> None:
    """An exception that nobody caught is named, and is critical."""
    died = die("raise LookupError('no such symbol')")
    (death,) = died.named("process.death")
    assert death["attributes"]["trading.death.cause"] == "uncaught_exception"
    assert death["attributes"]["exception.type"] == "LookupError"
    assert [alert[1] for alert in died.alerts] == ["critical"]


def test_an_end_without_a_fault(die: Callable[[str], Died]) -> None:
    """Exit code 0 is no death: what was open ends, and there is neither a span, a report nor an alert."""
    died = die("import os; os._exit(0)")
    assert died.orderly
    assert died.interrupted == 2
    assert died.named("process.death") == []
    assert died.alerts == []
    assert not died.crashes.exists()


def test_a_damaged_segment_still_raises_its_alert(tmp_path: Path, run_python: Callable[..., Any]) -> None:
    """Where nothing can be read, the alert says at least how it ended."""
    done = run_python(
        """
import json, sys
from otel_trading import alerts
from otel_trading.agent import death
from otel_trading.forensics.how_it_ended import End
raised = []
alerts.raise_alert = raised.append
dead = death.record(sys.argv[1], End("signal", pid=5, signal=9, certainty=1.0))
told = dead.keep()
print(json.dumps([told, [(a.severity, a.summary) for a in raised]]))
""",
        str(tmp_path / "absent.seg"),
        XDG_STATE_HOME=str(tmp_path / "state"),
    )
    told, raised = json.loads(done.stdout)
    assert (told["cause"], told["report"]) == ("unknown", None)
    assert raised == [["critical", "unknown_service, pid 5, died: killed by SIGKILL; cause unknown"]]


def test_a_hang_is_reported_without_touching_the_process(tmp_path: Path, run_python: Callable[..., Any]) -> None:
    """A live process gets a report, with its threads, and goes on."""
    program = "import time\ntime.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, program], stdout=subprocess.PIPE, text=True, env=child_environment(tmp_path)
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            (path,) = tmp_path.glob("*.seg")
            done = run_python(
                "import sys\nfrom otel_trading.agent import death\nfrom otel_trading.config import resolve\n"
                "print(death.hang(sys.argv[1], resolve(config={'forensics.directory': sys.argv[2]})))",
                str(path),
                str(tmp_path / "crashes"),
            )
            report = archive.read_report(done.stdout.strip())
            assert child.poll() is None
        finally:
            child.send_signal(signal.SIGKILL)
    assert report is not None
    assert report["process"]["alive"]
    assert report["process"]["pid"] == child.pid
    assert child.pid in {thread["thread"] for thread in report["threads"]}
    assert {span["name"] for span in report["open_spans"]} == {"session", "work"}
