"""``otel-trading forensics``: finds what is meant, tells of it, and exits as it should."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import child_environment

from otel_trading.cli.main import main
from otel_trading.forensics import archive, candidates, evidence, report
from otel_trading.forensics.archive import Archive
from otel_trading.forensics.how_it_ended import End

VICTIM = """
import sys, time
import otel_trading as ot

ot.configure(sys.argv[1])
with ot.probe("tick").span():
    ot.order("o1", symbol="BTCUSDT", side="buy", qty=1.0, price=100.0)
    print("ready", flush=True)
    exec(sys.argv[2])
"""
KILLED = "import os; os.kill(os.getpid(), 9)"


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have segments and archive in the test's directory."""
    monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path / "segments"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give the function that starts a program which records, and then does what it is told."""
    started: list[subprocess.Popen[str]] = []

    def start(service: str = "bot", last_words: str = KILLED) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", VICTIM, service, last_words],
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(tmp_path / "segments", OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none"),
        )
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        if last_words == KILLED:
            child.wait(30)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Give the function that runs the command: exit code, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["forensics", *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def segment_of(tmp_path: Path) -> Path:
    """Give the one segment that there is."""
    (path,) = (tmp_path / "segments").glob("*.seg")
    return path


def archived(tmp_path: Path, path: Path, service: str = "bot") -> Path:
    """Put a segment into the archive, with the kernel's words, and take it away from where it was."""
    found = evidence.gather(path, alive=False)
    end = End("signal", pid=found.pid, signal=9, source="the kernel (pidfd)", certainty=1.0, unix_ns=found.seen_ns)
    with Archive(str(tmp_path / "state" / "otel-trading" / "crashes"), 100e6) as where:
        kept = where.put(service, found.pid, found.seen_ns, report.document(found, end), str(path))
    path.unlink()
    assert kept.segment is not None
    return Path(kept.segment)


def test_the_process_that_died_last(
    victim: Callable[..., subprocess.Popen[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """Without an argument it is the process that died last; how it ended nobody knows any more, so that is said."""
    victim("first")
    dead = victim("second")
    victim("alive", "import time; time.sleep(60)")
    code, output, _ = command()
    assert code == 1
    assert output.startswith(f"second, pid {dead.pid}: gone without a word")
    assert "CAUSE UNKNOWN" in output
    assert "OPEN SPANS, 1" in output
    assert output.splitlines()[-1] == "Next: otel-trading forensics --list"


def test_a_zombie_is_asked(
    tmp_path: Path, victim: Callable[..., subprocess.Popen[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """A process that has died, and was not reaped, still says how."""
    child = victim("bot", "sys.stdout.flush(); " + KILLED + "  # not reaped by the fixture")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    code, output, _ = command("bot", "--json")
    document = json.loads(output)
    assert code == 1
    assert document["end"]["text"] == "killed by SIGKILL"
    assert document["cause"]["name"] == "killed"
    assert document["segment"] == str(segment_of(tmp_path))


def test_a_live_process(
    victim: Callable[..., subprocess.Popen[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """By pid, service, or path: it lives, exit code 0, and goes on."""
    child = victim("bot", "import time; time.sleep(60)")
    for what in (str(child.pid), "bot"):
        code, output, _ = command(what, "--last", "5s")
        assert code == 0
        assert output.startswith(f"bot, pid {child.pid}: is alive")
        assert "NOTHING WRONG IS SEEN" in output
        assert output.splitlines()[-1] == f"Next: otel-trading forensics {what} --perfetto trace.pftrace"
    assert child.poll() is None


def test_perfetto(
    tmp_path: Path, victim: Callable[..., subprocess.Popen[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """The trace is written, for its owner alone, and the last line says where to open it; a bad path is said."""
    victim()
    path = tmp_path / "trace.pftrace"
    code, output, _ = command(str(segment_of(tmp_path)), "--perfetto", str(path))
    assert code == 1
    assert b"tick" in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert output.splitlines()[-1] == f"Next: open {path} in https://ui.perfetto.dev"
    code, _, errors = command(str(segment_of(tmp_path)), "--perfetto", str(tmp_path / "no" / "where"))
    assert code == 2
    assert "--perfetto" in errors


def test_a_copy(
    tmp_path: Path, victim: Callable[..., subprocess.Popen[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """A segment that was copied elsewhere, under any name."""
    victim()
    copy = tmp_path / "evidence"
    shutil.copy(segment_of(tmp_path), copy)
    segment_of(tmp_path).unlink()
    code, output, _ = command(str(copy), "--json")
    assert code == 1
    assert json.loads(output)["process"]["service"] == "bot"


def test_the_archive(
    tmp_path: Path, victim: Callable[..., subprocess.Popen[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """What was archived is found by service and pid, is read packed, and still knows what the kernel said."""
    child = victim()
    packed = archived(tmp_path, segment_of(tmp_path))
    for what in ([], ["bot"], [str(child.pid)], [str(packed)]):
        code, output, _ = command(*what)
        assert code == 1
        assert output.startswith(f"bot, pid {child.pid}: killed by SIGKILL")
        assert "LIKELY CAUSE  killed" in output
    code, output, _ = command("--list")
    assert code == 0
    assert [line.split()[:3] for line in output.splitlines()[1:2]] == [["bot", str(child.pid), "archived"]]
    assert "killed" in output
    code, output, _ = command("--list", "--json")
    assert json.loads(output)["segments"][0]["path"] == str(packed)


def test_a_report_that_lies_is_not_believed(
    tmp_path: Path, victim: Callable[..., subprocess.Popen[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """A report beside a packed segment that has other types than it should is left aside."""
    victim()
    packed = archived(tmp_path, segment_of(tmp_path))
    beside = Path(str(packed).removesuffix(".seg.gz") + ".json")
    told = json.loads(beside.read_text(encoding="utf-8"))
    for end in ([], {**told["end"], "signal": "9"}, {**told["end"], "unix_ns": None}, {"kind": "signal"}):
        beside.write_text(json.dumps({**told, "end": end, "process": 3}), encoding="utf-8")
        code, output, _ = command(str(packed))
        assert code == 1
        assert "gone without a word" in output


def test_nothing_to_look_into(command: Callable[..., tuple[int, str, str]]) -> None:
    """Where there is nothing, that is said, exit code 2; a list may be empty."""
    code, _, errors = command()
    assert code == 2
    assert "no process has died" in errors
    code, output, _ = command("--list")
    assert (code, output.splitlines()[0]) == (0, "there is nothing to look into")


def test_a_mistyped_service(
    victim: Callable[..., subprocess.Popen[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """A name that is nearly one is suggested."""
    victim("market-maker")
    code, _, errors = command("market-makr")
    assert code == 2
    assert "did you mean market-maker?" in errors


@pytest.mark.parametrize("content", [b"", b"nothing", b"OTELTRD\0" + bytes(5000)])
def test_a_file_that_is_no_segment(
    tmp_path: Path, content: bytes, command: Callable[..., tuple[int, str, str]]
) -> None:
    """Exit code 2, in one line."""
    path = tmp_path / "x.seg"
    path.write_bytes(content)
    code, _, errors = command(str(path))
    assert code == 2
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(("word", "seconds"), [("30s", 30.0), ("500ms", 0.5), ("45", 45.0), ("2min", 120.0)])
def test_times(word: str, seconds: float, command: Callable[..., tuple[int, str, str]]) -> None:
    """``--last`` takes seconds, and times with a unit."""
    from otel_trading.cli.forensics import _seconds

    assert _seconds(word) == seconds
    with pytest.raises(SystemExit):
        command("--last", f"{word}x")


def test_the_path_of_a_directory_is_no_service(tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    """A directory is no segment, and is not waited for."""
    assert command(str(tmp_path))[0] == 2
    os.mkfifo(tmp_path / "pipe.seg")
    assert command(str(tmp_path / "pipe.seg"))[0] == 2


def test_names_of_the_archive() -> None:
    """Service and pid come back out of a name, whatever the service is called."""
    assert candidates._named("market-maker-12-20261118T110640") == ("market-maker", 12)
    assert candidates._named("nothing") == ("nothing", 0)
    assert archive._stem("market-maker", 12, 1_795_000_000 * 10**9) == "market-maker-12-20261118T110640"
