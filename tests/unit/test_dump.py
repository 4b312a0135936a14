"""Flight records: what is in them, where they go, and what is in their way."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading import flight, lifecycle, segment

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.usefixtures("recorder")
def test_a_record_has_what_the_segment_has(tmp_path: Path) -> None:
    """Finished and open spans, orders, critical events and beats, by any reader of segments."""
    work = ot.probe("work")
    for number in range(50):
        with work.span(number=number, text="t" * 500):
            pass
    ot.heartbeat("loop")
    ot.critical("risk.near", key="a")
    with work.span(state="open"):
        ot.order("a", symbol="BTCUSDT", qty=1.0)
        path = ot.dump(tmp_path / "record")
    assert path == str(tmp_path / "record")
    reader = segment.attach(path)
    spans = [state for state in reader.read(1000) if reader.probes()[state[0]][0] == "work"]
    assert [state[11] for state in spans] == [{"number": number, "text": "t" * 500} for number in range(50)]
    assert [state[11]["state"] for state in reader.open_spans()] == ["open"]
    assert reader.order("a") is not None
    assert [(event["name"], event["key"]) for event in reader.vitals()] == [("risk.near", "a"), ("BTCUSDT", "a")]
    assert [beat["name"] for beat in reader.life()["beats"]] == ["loop"]
    assert reader.info()["pid"] == os.getpid()
    assert reader.missed() == (0, 0)
    reader.close()


@pytest.mark.usefixtures("recorder")
def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    """Its mode is 0600 whatever the umask, and its place's 0700 where it is made for it."""
    before = os.umask(0)
    try:
        path = Path(ot.dump(tmp_path / "record"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_path_it_goes_to_the_crashes(make_recorder: Any, tmp_path: Path) -> None:
    """The name tells service and pid, and the directory is made for the user alone."""
    make_recorder("a bot/../x", forensics__directory=str(tmp_path / "state" / "crashes"))
    paths = [Path(ot.dump()), Path(ot.dump())]
    assert paths[0] != paths[1]
    for path in paths:
        assert path.parent == tmp_path / "state" / "crashes"
        assert path.name.startswith(f"a_bot_.._x-{os.getpid()}-")
        assert path.suffix == flight.SUFFIX
        segment.attach(path).close()
    assert stat.S_IMODE(paths[0].parent.stat().st_mode) == 0o700


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is below the user's state directory; one that is not absolute does not count."""
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert flight.directory() == "/somewhere/otel-trading/crashes"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/trader")
    assert flight.directory() == "/home/trader/.local/state/otel-trading/crashes"


def test_a_directory_is_a_place(recorder: Recorder, tmp_path: Path) -> None:
    """The record is made in it, by a name that is no segment's."""
    path = ot.dump(tmp_path)
    assert os.path.dirname(path) == str(tmp_path)
    assert [found.path for found in segment.segments(tmp_path)] == [str(recorder.path)]


def test_nothing_is_overwritten_and_no_link_followed(recorder: Recorder, tmp_path: Path) -> None:
    """A file that is there stays as it is, and so does what a link names; "" tells so."""
    there = tmp_path / "there"
    there.write_text("mine", encoding="utf-8")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert ot.dump(there) == ot.dump(link) == ""
    assert there.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "elsewhere").exists()
    recorder.faults_expected = 2


@pytest.mark.parametrize("path", ["no/such/directory/record", "record\0", 5])
def test_places_that_there_are_not(recorder: Recorder, tmp_path: Path, path: Any) -> None:
    """They are a fault, and never an exception."""
    assert ot.dump(str(tmp_path / path) if isinstance(path, str) else path) == ""
    recorder.faults_expected = 1


def test_no_record_takes_a_segment_s_name(recorder: Recorder, tmp_path: Path) -> None:
    """Where an agent looks for segments, it would take it for one of a living process."""
    assert ot.dump(tmp_path / "x.seg") == ""
    recorder.faults_expected = 1


def test_without_a_segment_there_is_nothing_to_write(tmp_path: Path) -> None:
    """Before configure it is a fault that nobody counts."""
    assert ot.dump(tmp_path / "record") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(run_python: Run) -> None:
    """The beginning of the record is removed, the fault is told, and recording goes on."""
    done = run_python(
        "import resource, os\n"
        "import otel_trading as ot\n"
        "ot.configure('full')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))\n"
        "print(repr(ot.dump('record')), os.path.exists('record'))\n"
        "with ot.probe('x'): pass\n"
        "print(ot.stats()['x']['count'])\n"
    )
    assert done.stdout.splitlines() == ["'' False", "1"]
    assert "File too large" in done.stderr


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("way", ["pread", "no holes"])
def test_systems_that_can_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Where the kernel does not copy, or knows of no holes, the record is the same."""
    if way == "pread":
        monkeypatch.delattr(os, "sendfile")
    else:
        monkeypatch.delattr(os, "SEEK_DATA")
    with ot.probe("work"):
        pass
    reader = segment.attach(ot.dump(tmp_path / "record"))
    assert len(reader.read(1000)) == 1
    reader.close()


def test_holes_stay_holes(tmp_path: Path) -> None:
    """What the segment does not take the record does not take either."""
    source, target = tmp_path / "source", tmp_path / "target"
    size = 16 << 20
    with source.open("wb") as file:
        file.truncate(size)
        file.seek(8 << 20)
        file.write(b"x" * 4096)
    with source.open("rb") as read, target.open("wb") as write:
        os.ftruncate(write.fileno(), size)
        copy = flight._way(read.fileno(), write.fileno())
        parts = list(flight._data(read.fileno(), size))
        for start, end in parts:
            assert copy(start, end - start) == end - start
    assert sum(end - start for start, end in parts) < 1 << 20
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks + 16


SIGNAL = """
import os, signal, sys, time
import otel_trading as ot
handled = []
if sys.argv[1] == "chained":
    signal.signal(signal.SIGUSR2, lambda number, frame: handled.append(number))
ot.configure("signalled", config={"forensics.directory": os.path.abspath("crashes"), "forensics.signal": "SIGUSR2"})
with ot.probe("work"):
    signal.raise_signal(signal.SIGUSR2)
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    if os.path.isdir("crashes") and os.listdir("crashes") and not ot.lifecycle._host.process_end._flight._writing:
        break
    time.sleep(0.005)
(name,) = os.listdir("crashes")
reader = ot.segment.attach(os.path.join("crashes", name))
print([reader.probes()[state[0]][0] for state in reader.open_spans() + reader.read(100)], handled)
ot.shutdown()
signal.raise_signal(signal.SIGUSR2)
print("alive")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="this system has no such signal")
@pytest.mark.parametrize("before", ["default", "chained"])
def test_a_signal_writes_a_record(run_python: Run, before: str) -> None:
    """A handler that was there runs as well, and after shutdown the signal does not end the process."""
    done = run_python(SIGNAL, before)
    handled = [int(signal.SIGUSR2)] if before == "chained" else []
    assert done.stdout.splitlines() == [f"['work'] {handled}", "alive"]


def test_a_record_of_a_busy_process_can_be_read(recorder: Recorder, tmp_path: Path) -> None:
    """While other threads record, each span that it has is whole, and the newest of before the call are there."""
    import threading

    ended = threading.Event()
    marks = ot.probe("mark")

    def busy() -> None:
        probe = ot.probe("busy")
        while not ended.is_set():
            with probe.span(text="x" * 100):
                pass

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            with marks.span(number=number):
                pass
            reader = segment.attach(ot.dump(tmp_path / f"record {number}"))
            names = [probe[0] for probe in reader.probes()]
            found = [(names[state[0]], state[11]) for state in reader.read(100_000)]
            assert ("mark", {"number": number}) in found
            assert all(attributes in ({"text": "x" * 100}, {}) for name, attributes in found if name == "busy")
            reader.close()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert lifecycle.own_segment() == str(recorder.path)
