"""From configure to shutdown: what is made and removed, what fails softly, exits and signals."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading import lifecycle, segment
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]

ERROR = 2
INTERRUPTED = 16
SMALL = {"ring.slots": 64, "ring.thread_slots": 64, "drain.period": 60}

# The start of children that leave a second link to their segment, to be read when they are gone.
CHILD = """
import os, signal, sys, threading, time
import otel_trading as ot
from otel_trading import lifecycle
def keep(name="kept"):
    os.link(lifecycle._host.path, os.path.join(os.environ["KEEP"], name))
"""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Give a directory where children leave links to their segments."""
    directory = tmp_path / "links"
    directory.mkdir()
    return directory


def files(directory: Path) -> list[Path]:
    """List all files below a directory."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


# ---- configure and shutdown -----------------------------------------------------------------------


def test_segment_is_made_and_removed(tmp_path: Path) -> None:
    """The segment is one private file that is there from configure to shutdown."""
    ot.configure("bot", tmp_path, SMALL)
    (path,) = files(tmp_path)
    assert str(path) == lifecycle._host.path
    assert path.stat().st_mode & 0o777 == 0o600
    assert core.is_open()
    ot.shutdown()
    assert files(tmp_path) == []
    assert not core.is_open()


def test_resource_names_the_service(recorder: Recorder) -> None:
    """The segment tells the service's name and this process."""
    assert '"test"' in str(recorder.info["resource"])
    assert recorder.info["pid"] == os.getpid()
    assert recorder.info["backend"] == ot.backend


def test_resource_has_what_the_configuration_says(make_recorder: Callable[..., Recorder]) -> None:
    """Attributes of the configuration go into the segment's resource with the types that they have."""
    given = {"host.cpu.count": 2, "paper": True, "venues": ["gateio", "okx"], "telemetry.sdk.name": "opentelemetry"}
    recorder = make_recorder(resource=given)
    resource = json.loads(str(recorder.info["resource"]))
    assert resource.items() >= given.items()
    assert resource["service.name"] == "test"


def test_configuration_from_a_file(tmp_path: Path) -> None:
    """A path in place of a mapping is our YAML file."""
    file = tmp_path / "trading.yaml"
    file.write_text("service: from-file\norders: {max: 32}\nresource: {desk: 7}\n", encoding="utf-8")
    ot.configure(directory=tmp_path, config=file)
    settings = lifecycle.settings()
    assert settings is not None
    assert (settings.service, settings.orders_max) == ("from-file", 32)
    (found,) = segment.segments(tmp_path)
    assert found.service == "from-file"
    ot.shutdown()
    with pytest.raises(ot.ConfigurationError, match=r"none\.yaml"):
        ot.configure(directory=tmp_path, config=tmp_path / "none.yaml")


def test_what_is_told_of_the_recorder(make_recorder: Callable[..., Recorder]) -> None:
    """The settings and the segment's path are there while there is a recorder."""
    assert (lifecycle.settings(), lifecycle.own_segment()) == (None, None)
    recorder = make_recorder(orders__max=64)
    settings = lifecycle.settings()
    assert settings is not None
    assert settings.orders_max == 64
    assert lifecycle.own_segment() == str(recorder.path)
    ot.shutdown()
    assert (lifecycle.settings(), lifecycle.own_segment()) == (None, None)


def test_logs_are_correlated_where_that_is_asked_for(run_python: Run) -> None:
    """With the setting, log records carry the trace; without it logging is not even loaded."""
    code = (
        "import sys\n"
        "import otel_trading as ot\n"
        "ot.configure('bot', config={'logs.correlation': len(sys.argv) > 1})\n"
        "print('logging' in sys.modules)\n"
        "import logging\n"
        "with ot.probe('a') as span:\n"
        "    record = logging.getLogger('x').makeRecord('x', 20, 'f', 1, 'm', (), None)\n"
        "print(getattr(record, 'trace_id', None) == f'{span.trace_id:032x}')\n"
        "ot.shutdown()\n"
    )
    assert run_python(code, "yes").stdout.split() == ["True", "True"]
    assert run_python(code).stdout.split() == ["False", "False"]


def test_an_order_that_is_open_keeps_the_segment(tmp_path: Path) -> None:
    """At an orderly end the file stays for the orders' sake, closed; without one it goes."""
    ot.configure("bot", tmp_path, SMALL)
    order = ot.order("lifecycle-1", symbol="A", qty=1)
    ot.shutdown()
    (found,) = segment.segments(tmp_path)
    assert (found.closed, found.alive) == (True, False)
    ot.configure("bot", tmp_path, SMALL)
    order.cancel()
    ot.shutdown()
    assert [one.path for one in segment.segments(tmp_path)] == [found.path]


def test_configure_twice(recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A second call changes nothing; one with other settings is a fault that is logged."""
    path = recorder.path
    ot.configure()
    assert caplog.text == ""
    ot.configure("other", tmp_path)
    assert recorder.path == path
    assert "configure() has run already" in caplog.text
    recorder.faults_expected = 1


def test_shutdown_twice_and_before_configure(tmp_path: Path) -> None:
    """Shutdown is harmless at any time."""
    ot.shutdown()
    ot.configure("bot", tmp_path, SMALL)
    ot.shutdown()
    ot.shutdown(0)
    assert files(tmp_path) == []


def test_configure_after_shutdown(make_recorder: Callable[..., Recorder]) -> None:
    """Recording can be started anew, with the same probes, from zero."""
    probe = ot.probe("lifecycle.again", sla="1s")
    first = make_recorder()
    with probe:
        pass
    assert len(first.named("lifecycle.again")) == 1
    ot.shutdown()
    with probe:
        pass
    second = make_recorder()
    with probe.span(symbol="BTCUSDT"):
        pass
    assert second.only("lifecycle.again").attributes == {"symbol": "BTCUSDT"}
    assert ot.stats()["lifecycle.again"]["count"] == 1


def test_spans_that_outlive_their_segment(make_recorder: Callable[..., Recorder]) -> None:
    """A span begun before shutdown is written as interrupted, and its own end is harmless, then and later."""
    probe = ot.probe("lifecycle.outlives")
    first = make_recorder()
    token = probe.start()
    with probe as span:
        ot.shutdown()
        assert [record.flags & INTERRUPTED for record in first.named("lifecycle.outlives")] == [INTERRUPTED] * 2
        second = make_recorder()
        span.set_attribute("late", 1)
    probe.stop(token)
    assert second.records() == []
    assert core.current() is None
    assert second.open_spans() == []


def test_shutdown_writes_open_spans(make_recorder: Callable[..., Recorder]) -> None:
    """Spans that are open at the shutdown are written, interrupted and without an error."""
    recorder = make_recorder()
    span = ot.probe("lifecycle.open").span(order="42")
    span.begin()
    ot.shutdown()
    record = recorder.only("lifecycle.open")
    assert (record.status, record.flags & INTERRUPTED) == (0, INTERRUPTED)
    assert record.attributes == {"order": "42"}
    assert recorder.info["closed"]


def test_ends_after_the_interruption_are_no_faults(recorder: Recorder) -> None:
    """A span that was written as interrupted may still be ended by its owner, in every form."""
    probe = ot.probe("lifecycle.interrupted")
    token, hand = probe.start(), probe.span()
    hand.begin()
    with probe:
        assert core.interrupt_open("test", True) == 3
    hand.finish()
    probe.stop(token)
    records = recorder.named("lifecycle.interrupted")
    assert [(record.status, record.error) for record in records] == [(ERROR, "test")] * 3
    assert recorder.accounts()[1]["recorded"] == 3


def test_sdk_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``OTEL_SDK_DISABLED=true`` leaves the program alone."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    ot.configure("bot", tmp_path, {"nonsense": 1})
    assert not core.is_open()
    assert files(tmp_path) == []


def test_wrong_configuration_raises_and_leaves_nothing(tmp_path: Path) -> None:
    """A mistake in the configuration is the caller's, and nothing is started."""
    with pytest.raises(ot.ConfigurationError, match=r"ring\.slot: no such key"):
        ot.configure("bot", tmp_path, {"ring.slot": 64})
    assert not core.is_open()
    assert files(tmp_path) == []
    ot.configure("bot", tmp_path, SMALL)
    assert core.is_open()


def test_directory_that_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the segment can not be made the program goes on unrecorded, and the log says what to do, once."""
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    for _ in range(2):
        ot.configure("bot", blocked / "below", SMALL)
    assert not core.is_open()
    (message,) = caplog.records
    assert message.name == "otel_trading"
    assert "nothing is recorded" in message.getMessage()
    assert "Remedy" in message.getMessage()
    with ot.probe("lifecycle.unrecorded") as span:
        assert not span.recording
    assert ot.flush()


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where space is short the file does not stay, and the log says what to do."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(core, "open", full)
    ot.configure("bot", tmp_path, SMALL)
    assert "No space left" in caplog.text
    assert "ring.slots" in caplog.text
    assert files(tmp_path) == []


def test_enable(recorder: Recorder) -> None:
    """``enable`` switches recording off and on at once, P0 included."""
    probe = ot.probe("lifecycle.enable", tier=ot.P0)
    ot.enable(False)
    with probe as span:
        assert not span.recording
    ot.enable(True)
    with probe as span:
        assert span.recording
    assert len(recorder.named("lifecycle.enable")) == 1


def test_enable_before_configure(make_recorder: Callable[..., Recorder]) -> None:
    """What ``enable`` was told holds for a later configure."""
    ot.enable(False)
    recorder = make_recorder()
    with ot.probe("lifecycle.early"):
        pass
    assert recorder.records() == []


def test_a_span_ends_as_it_began(recorder: Recorder) -> None:
    """A span that is open when recording is switched off is written; one begun meanwhile is not."""
    probe = ot.probe("lifecycle.switched")
    with probe as outer:
        ot.enable(False)
        with probe:
            ot.enable(True)
    assert recorder.only("lifecycle.switched").span_id == outer.span_id


@pytest.mark.parametrize(
    ("variable", "value", "state"),
    [
        ("OTEL_TRADING_ENABLED", "false", (0, 0, 0)),
        ("OTEL_TRADING_EXPORT_ENABLED", "false", (10, 10, 0)),
        ("OTEL_TRADING_SAMPLING_RATE", "0", (10, 10, 0)),
        ("OTEL_TRADING_SAMPLING_RATE", "1", (10, 0, 10)),
    ],
)
def test_switches_of_the_environment(
    make_recorder: Callable[..., Recorder],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    state: tuple[int, int, int],
) -> None:
    """The environment sets the switches that a process begins with."""
    monkeypatch.setenv(variable, value)
    recorder = make_recorder()
    core.keep(100)
    probe = ot.probe("lifecycle.switches")
    for _ in range(10):
        probe.stop(probe.start())
    account = recorder.accounts()[1]
    assert (account["recorded"], account["sampled_out"], account["pending"]) == state


def test_flush_without_exporters(recorder: Recorder) -> None:
    """A flush drains, and is done."""
    with ot.probe("lifecycle.flush"):
        pass
    assert ot.flush(1.0) is True
    assert ot.flush(0) is True
    assert core.snapshot()["rings"][0]["backlog"] == 0
    assert recorder.faults == 0


def test_embedded_drain_passes_by_itself(make_recorder: Callable[..., Recorder], until: Callable[..., None]) -> None:
    """The drain's thread empties the rings without being asked."""
    recorder = make_recorder(drain__period=0.01)
    with ot.probe("lifecycle.drained"):
        pass
    until(lambda: recorder.info["rings"][0]["tail"] == recorder.info["rings"][0]["head"] > 0)
    assert recorder.info["heartbeat_age_ns"] < 60_000_000_000


def test_gc_callback_is_taken_back(tmp_path: Path) -> None:
    """The callback that times collections goes with the recorder."""
    before = list(gc.callbacks)
    ot.configure("bot", tmp_path, SMALL)
    assert core.gc_callback in gc.callbacks
    ot.shutdown()
    assert gc.callbacks == before


def test_configure_in_another_thread(tmp_path: Path) -> None:
    """A program may configure in any thread; only SIGTERM is then left alone."""
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=ot.configure, args=("bot", tmp_path, SMALL))
    thread.start()
    thread.join()
    assert core.is_open()
    with ot.probe("lifecycle.thread"):
        pass
    assert ot.accounts()[1]["recorded"] == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_of_the_application_is_left_alone(tmp_path: Path) -> None:
    """A handler that is there stays."""

    def handler(_number: int, _frame: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, handler)
    try:
        ot.configure("bot", tmp_path, SMALL)
        assert signal.getsignal(signal.SIGTERM) is handler
        ot.shutdown()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_is_given_back(tmp_path: Path) -> None:
    """Where SIGTERM had its default action it has it again after shutdown."""
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ot.configure("bot", tmp_path, SMALL)
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ot.shutdown()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# ---- the end of processes -------------------------------------------------------------------------


@pytest.fixture
def left(kept: Path) -> Callable[..., Any]:
    """Give a function that opens the segment which a child has left."""
    opened = []

    def open_(name: str = "kept") -> Any:
        fd = os.open(kept / name, os.O_RDONLY)
        reader = core.Reader(fd)
        os.close(fd)
        opened.append(reader)
        return reader

    yield open_
    for reader in opened:
        reader.close()


def test_interpreter_exit(run_python: Run, kept: Path, tmp_path: Path, left: Callable[..., Any]) -> None:
    """At an ordinary exit open spans are written, all is drained, and the file goes."""
    run_python(
        CHILD
        + """
ot.configure("exits")
keep()
with ot.probe("done"):
    pass
span = ot.probe("open").span(order=7)
span.begin()
""",
        KEEP=str(kept),
    )
    reader = left()
    names = [probe[0] for probe in reader.probes()]
    states = {names[state[0]]: state for state in reader.read(100)}
    assert set(states) == {"done", "open"}
    assert states["open"][8] & INTERRUPTED
    assert states["open"][7] == 0
    assert states["open"][11] == {"order": 7}
    assert reader.info()["closed"]
    assert reader.accounts()[1]["pending"] == 0
    assert [path.parent for path in files(tmp_path) if path.name != "script.py"] == [kept]


@pytest.mark.parametrize("ending", ["sys.exit(3)", "raise SystemExit(3)"])
def test_exit_code_is_the_programs(run_python: Run, ending: str) -> None:
    """The recorder does not change how a program ends."""
    done = run_python(CHILD + f"ot.configure('exits')\nprint('out')\n{ending}", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "")


def test_exit_by_exception(run_python: Run, kept: Path, left: Callable[..., Any]) -> None:
    """A program that dies of an exception is flushed like any other."""
    done = run_python(
        CHILD + "ot.configure('dies')\nkeep()\nwith ot.probe('dies'):\n    raise ValueError('x')\n",
        check=False,
        KEEP=str(kept),
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: x")
    (state,) = left().read(10)
    assert (state[7], state[9]) == (ERROR, "ValueError")


def start(code: str, directory: Path, kept: Path) -> subprocess.Popen[str]:
    """Start a child that says "ready" when it can be signalled."""
    from otel_trading import __file__ as package

    root = os.path.dirname(os.path.dirname(package))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD + code],
        env={**os.environ, "PYTHONPATH": path, "OTEL_TRADING_DIR": str(directory), "KEEP": str(kept)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a child; its exit status and what it said on standard error."""
    try:
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, errors


WAITING = {
    "sleep": "time.sleep(60)",
    "busy": "while True: pass",
    "lock": "threading.Lock().acquire() and threading.Event().wait(60)",
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(60))",
    "thread": "t = threading.Thread(target=time.sleep, args=(60,)); t.start(); t.join()",
}


@pytest.mark.parametrize("waiting", WAITING)
def test_sigterm(tmp_path: Path, kept: Path, left: Callable[..., Any], waiting: str) -> None:
    """SIGTERM writes the open spans as failed by it, flushes, removes the file, and kills as it would have."""
    process = start(
        f"""
ot.configure("killed")
keep()
with ot.probe("outer").span(order=1):
    token = ot.probe("flat").start()
    print("ready", flush=True)
    {WAITING[waiting]}
""",
        tmp_path,
        kept,
    )
    process.send_signal(signal.SIGTERM)
    assert end(process) == (-signal.SIGTERM, "")
    reader = left()
    states = reader.read(10)
    assert len(states) == 2
    for state in states:
        assert (state[7], state[9], state[8] & INTERRUPTED) == (ERROR, "SIGTERM", INTERRUPTED)
    assert reader.info()["closed"]
    assert [path for path in files(tmp_path) if path.parent != kept] == []


def test_sigkill_leaves_everything(tmp_path: Path, kept: Path, left: Callable[..., Any]) -> None:
    """After SIGKILL the segment is there, with what was finished and what was open."""
    process = start(
        """
ot.configure("killed")
keep()
probe = ot.probe("done")
for number in range(1000):
    with probe.span(number=number):
        pass
with ot.probe("open").span(order=1):
    print("ready", flush=True)
    time.sleep(60)
""",
        tmp_path,
        kept,
    )
    process.kill()
    assert end(process) == (-signal.SIGKILL, "")
    reader = left()
    assert [state[11]["number"] for state in reader.read(10_000)] == list(range(1000))
    (state,) = reader.open_spans()
    assert (state[6], state[11]) == (0, {"order": 1})
    assert not reader.info()["closed"]
    assert len([path for path in files(tmp_path) if path.parent != kept]) == 1


def test_sigterm_during_shutdown(tmp_path: Path, kept: Path) -> None:
    """A SIGTERM while an orderly end is under way lets it end, and then kills."""
    process = start(
        """
class Slow:
    def flush(self, deadline):
        print("ready", flush=True)
        while not lifecycle._host.process_end.sigterm_waits:
            time.sleep(0.01)
        return True
    def stop(self, deadline):
        keep("stopped")
ot.configure("ends")
path = lifecycle._host.path
lifecycle._host.exports = Slow()
original = keep
keep = lambda name: open(os.path.join(os.environ["KEEP"], name), "w").close()
ot.shutdown()
""",
        tmp_path,
        kept,
    )
    process.send_signal(signal.SIGTERM)
    assert end(process) == (-signal.SIGTERM, "")
    assert [path.name for path in files(kept)] == ["stopped"]


def test_an_exporter_that_fails_at_the_end_does_not_keep_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever an exporter does at shutdown, the recorder is closed and its file removed."""

    class Broken:
        def flush(self, _deadline: float) -> bool:
            raise RuntimeError("flush")

        def stop(self, _deadline: float) -> None:
            raise RuntimeError("stop")

    ot.configure("bot", tmp_path, SMALL)
    lifecycle._host.exports = Broken()
    assert ot.flush() is False
    ot.shutdown()
    assert files(tmp_path) == []
    assert "flush" in caplog.text


def test_exit_is_bounded(run_python: Run) -> None:
    """An exporter that uses its whole time does not make an exit take longer than the timeout allows."""
    done = run_python(
        CHILD
        + """
class Stuck:
    def flush(self, deadline):
        while time.monotonic() < deadline:
            time.sleep(0.01)
        return False
    def stop(self, deadline):
        print(time.monotonic() >= deadline)
ot.configure("stuck", config={"shutdown.timeout": 0.2})
lifecycle._host.exports = Stuck()
"""
    )
    assert done.stdout == "True\n"


def test_segment_without_space_for_the_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trouble of any kind in making the file is no exception of the application's."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

    monkeypatch.setattr(segment, "create", refuse)
    ot.configure("bot", tmp_path, SMALL)
    assert not core.is_open()
