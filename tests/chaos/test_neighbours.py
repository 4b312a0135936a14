"""A hostile neighbour on the same machine: refused, nothing followed, nothing leaked."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import uncovered

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="acting as two users takes root and setpriv"
)

VICTIM, NEIGHBOUR = 23_456, 34_567
SECRET = b"the victim's own words"

PROGRAM = """
import os, sys
import otel_trading as ot

ot.configure("victim", config={"ring.slots": 1024, "ring.thread_slots": 256})
with ot.probe("work", tier=ot.P0).span(password="none"):
    pass
if len(sys.argv) > 1:
    os.kill(os.getpid(), 9)
ot.shutdown()
print("the program is through")
"""


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """Give a directory like /dev/shm: anybody may make files in it."""
    for parent in (tmp_path, *tmp_path.parents):
        mode = parent.stat().st_mode
        if mode & 0o005 != 0o005:
            parent.chmod(mode | 0o055)
    made = tmp_path / "ground"
    made.mkdir()
    made.chmod(0o1777)
    return made


def run(user: int, directory: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user, with its segments in the directory."""
    home = directory.parent / f"home-{user}"
    home.mkdir(exist_ok=True)
    os.chown(home, user, user)
    home.chmod(0o700)
    return subprocess.run(
        ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", sys.executable, *command],
        env=uncovered(
            directory,
            OTEL_TRADING_BUDGET_ENABLED="false",
            HOME=str(home),
            XDG_STATE_HOME=str(home / "state"),
            PYTHONDONTWRITEBYTECODE="1",
            **environment,
        ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )


def tool(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours as the victim."""
    return run(VICTIM, directory, "-m", "otel_trading", *arguments)


def own(path: Path, user: int, mode: int = 0o600) -> Path:
    """Give a file or directory to a user."""
    os.chown(path, user, user, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(mode)
    return path


def segments_of_the_victim(ground: Path) -> tuple[Path, Path]:
    """Have the victim killed; gives its directory and the segment that it leaves."""
    directory = ground / "otel-trading"
    assert run(VICTIM, directory, "-c", PROGRAM, "die").returncode == -9
    (segment,) = directory.glob("*.seg")
    return directory, segment


def test_a_directory_that_is_somebody_elses(ground: Path) -> None:
    """In a directory that the neighbour has made before nothing is made, and the program runs unrecorded."""
    planted = ground / "otel-trading"
    planted.mkdir()
    own(planted, NEIGHBOUR, 0o777)
    done = run(VICTIM, planted, "-c", PROGRAM)
    assert (done.returncode, done.stdout) == (0, "the program is through\n"), done.stderr
    assert "nothing is recorded" in done.stderr
    assert list(planted.iterdir()) == []


def test_a_directory_that_is_a_link(ground: Path) -> None:
    """A link in the directory's place is not followed."""
    elsewhere = ground / "elsewhere"
    elsewhere.mkdir()
    own(elsewhere, VICTIM, 0o700)
    planted = ground / "otel-trading"
    planted.symlink_to(elsewhere)
    own(planted, NEIGHBOUR)
    done = run(VICTIM, planted, "-c", PROGRAM)
    assert (done.returncode, done.stdout) == (0, "the program is through\n"), done.stderr
    assert "nothing is recorded" in done.stderr
    assert list(elsewhere.iterdir()) == []


def test_what_the_neighbour_can_see(ground: Path) -> None:
    """The neighbour can neither list nor open what the victim recorded."""
    directory, segment = segments_of_the_victim(ground)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    looking = "import os, sys\nfor what in (os.listdir, open):\n    try:\n        what(sys.argv[1])\n"
    looking += "    except PermissionError:\n        print('refused')\n    sys.argv.pop(1)\n"
    done = run(NEIGHBOUR, ground / "own", "-c", looking, str(directory), str(segment))
    assert done.stdout == "refused\nrefused\n", done.stderr
    done = run(NEIGHBOUR, directory, "-m", "otel_trading", "info", "--json")
    assert "victim" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["planted.seg", "traces.shared", "agent.page", "agent.lock", "agent.sock"])
def test_links_that_are_planted(ground: Path, name: str) -> None:
    """Links in the directory, under any name that is ours, are not followed: what they point to stays as it is."""
    directory, _ = segments_of_the_victim(ground)
    target = own_file(ground / "precious", SECRET)
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(target)
    own(directory / name, NEIGHBOUR)
    for command in (["info", "--json"], ["agent", "--once"], ["agent", "--status"], ["forensics", "--list"]):
        done = tool(directory, *command)
        assert "Traceback" not in done.stderr, done.stderr
        assert SECRET.decode() not in done.stdout + done.stderr
    done = run(VICTIM, directory, "-c", PROGRAM)
    assert (done.returncode, done.stdout) == (0, "the program is through\n"), done.stderr
    assert target.read_bytes() == SECRET


def own_file(path: Path, data: bytes) -> Path:
    """Give a file of the victim's with this in it."""
    path.write_bytes(data)
    return own(path, VICTIM)


def test_things_that_are_no_files(ground: Path) -> None:
    """Pipes, sockets, directories and empty files that are called as segments hold nobody up and are left alone."""
    directory, segment = segments_of_the_victim(ground)
    os.mkfifo(directory / "pipe.seg")
    (directory / "directory.seg").mkdir()
    (directory / "empty.seg").touch()
    (directory / "huge.seg").touch()
    os.truncate(directory / "huge.seg", 1 << 40)
    for name in ("pipe.seg", "directory.seg", "empty.seg", "huge.seg"):
        own(directory / name, VICTIM, 0o700)
    done = tool(directory, "forensics", "--list", "--json")
    assert done.returncode == 0, done.stderr
    assert str(segment) in done.stdout
    for command in (["info"], ["agent", "--once"], ["forensics", "--list"]):
        done = tool(directory, *command)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in {0, 1}, done.stderr


def test_a_segment_that_is_somebody_elses(ground: Path) -> None:
    """A segment that belongs to the neighbour is not read, drained, or removed."""
    directory, segment = segments_of_the_victim(ground)
    planted = directory / "planted-1-1.seg"
    planted.write_bytes(segment.read_bytes())
    own(planted, NEIGHBOUR, 0o666)
    before = planted.read_bytes()
    done = tool(directory, "forensics", "--list", "--json")
    assert "planted" not in done.stdout
    assert str(segment) in json.dumps(json.loads(done.stdout))
    for command in (["agent", "--once"], ["forensics", str(planted)], ["mode", "stressed"]):
        done = tool(directory, *command)
        assert "Traceback" not in done.stderr, done.stderr
    assert planted.read_bytes() == before


def test_archives_and_flight_records_are_the_users_alone(ground: Path) -> None:
    """Crash reports, archived segments and flight records can be read by nobody else."""
    directory, _ = segments_of_the_victim(ground)
    done = tool(directory, "agent", "--once")
    assert done.returncode == 0, done.stderr
    code = "import otel_trading as ot\not.configure('victim')\nprint(ot.dump())\n"
    done = run(VICTIM, directory, "-c", code)
    assert done.stdout.strip(), done.stderr
    archive = Path(done.stdout.strip()).parent
    kept = [archive, *archive.rglob("*")]
    assert len(kept) >= 3
    for path in kept:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
