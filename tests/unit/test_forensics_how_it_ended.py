"""How a process ended: the kernel's words about real children, and what a process told of itself."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from otel_trading import _layout as at
from otel_trading.forensics import how_it_ended, oom
from otel_trading.forensics.how_it_ended import Before, End, look, with_told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDS = {
    "code": ("import os; os._exit(7)", "exit", 7, None),
    "orderly": ("pass", "exit", 0, None),
    "SIGKILL": ("import os; os.kill(os.getpid(), 9)", "signal", None, 9),
    "SIGSEGV": ("import ctypes; ctypes.string_at(8)", "signal", None, 11),
    "SIGTERM": ("import os; os.kill(os.getpid(), 15)", "signal", None, 15),
}


class Child:
    """A child that ends as a program says, and is not reaped before this says so."""

    def __init__(self, program: str) -> None:
        """Start it."""
        self.process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def wait(self) -> None:
        """Wait until it has died; it stays a zombie."""
        assert select.select([self.pidfd], [], [], 30.0)[0]

    def close(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait()
        os.close(self.pidfd)


@pytest.fixture(params=list(ENDS))
def child(request: pytest.FixtureRequest) -> Iterator[tuple[Child, str, int | None, int | None]]:
    """Give a child that ends in one of these ways, and what has to be said of it."""
    program, *expected = ENDS[request.param]
    made = Child(program)
    try:
        yield made, *expected
    finally:
        made.close()


def has_exit_information() -> bool:
    """Tell whether this kernel says by a pidfd how a process ended, 6.15 or later."""
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 15)


def test_a_zombie_tells(child: tuple[Child, str, int | None, int | None]) -> None:
    """As long as nobody has reaped it, its stat file says how it ended."""
    made, kind, code, number = child
    made.wait()
    end = look(made.pid)
    assert (end.kind, end.code, end.signal, end.certainty) == (kind, code, number, 1.0)
    assert "zombie" in end.source
    assert abs(end.unix_ns - time.time_ns()) < 60 * 10**9


@pytest.mark.skipif(not has_exit_information(), reason="the kernel is older than 6.15")
def test_a_pidfd_tells_of_who_was_reaped(child: tuple[Child, str, int | None, int | None]) -> None:
    """When its parent has reaped it, the file descriptor that was opened before still says it."""
    made, kind, code, number = child
    made.process.wait(30)
    end = look(made.pid, pidfd=made.pidfd)
    assert (end.kind, end.code, end.signal, end.certainty) == (kind, code, number, 1.0)
    assert "pidfd" in end.source


def test_who_is_gone_is_gone(child: tuple[Child, str, int | None, int | None]) -> None:
    """Without anybody to ask nothing is claimed."""
    made, *_ = child
    made.process.wait(30)
    end = look(made.pid)
    assert (end.kind, end.source, end.certainty) == ("gone", "", 0.0)
    assert end.text == "gone without a word"


def test_another_process_with_that_pid_is_not_asked() -> None:
    """A zombie that started at another time is another process."""
    made = Child("import os; os._exit(3)")
    try:
        made.wait()
        with open(f"/proc/{made.pid}/stat", encoding="ascii") as file:
            start = int(file.read().rpartition(")")[2].split()[19])
        assert look(made.pid, process_start=start).code == 3
        assert look(made.pid, process_start=start + 1).kind == "gone"
    finally:
        made.close()


def test_nobody_waits_long_for_the_kernel() -> None:
    """Asking about a process that is alive ends after the patience that is given."""
    made = Child("import time; time.sleep(60)")
    try:
        began = time.monotonic()
        assert look(made.pid, pidfd=made.pidfd, patience=0.05).kind == "gone"
        assert time.monotonic() - began < 10.0
    finally:
        made.close()


@pytest.mark.parametrize(
    ("told", "closed", "kind", "text"),
    [
        (
            {"kind": at.ENDING_EXCEPTION, "name": "ValueError", "code": 1},
            False,
            "exit",
            "uncaught ValueError, exit code 1",
        ),
        ({"kind": at.ENDING_SIGNAL, "code": 11}, False, "signal", "killed by SIGSEGV"),
        ({"kind": at.ENDING_EXIT, "code": 0}, True, "exit", "exit code 0"),
        ({"kind": at.ENDING_EXIT, "code": -1}, True, "exit", "orderly end"),
        ({"kind": at.ENDING_NONE}, True, "exit", "orderly end"),
        ({"kind": at.ENDING_NONE}, False, "gone", "gone without a word"),
        (None, False, "gone", "gone without a word"),
    ],
)
def test_its_own_words_count_where_the_kernel_has_none(
    told: dict[str, object] | None,
    closed: bool,  # noqa: FBT001 - a case
    kind: str,
    text: str,
) -> None:
    """Without the kernel's words the process's own are taken, with less certainty."""
    end = with_told(End("gone"), told, closed=closed)
    assert (end.kind, end.text) == (kind, text)
    assert end.certainty < 1.0


def test_the_kernel_is_believed_first() -> None:
    """A process that told of an orderly exit, and was killed then, was killed; an exception explains an exit code."""
    killed = with_told(End("signal", signal=9, certainty=1.0), {"kind": at.ENDING_EXIT, "code": 0}, closed=True)
    assert killed.text == "killed by SIGKILL"
    raised = with_told(End("exit", code=1, certainty=1.0), {"kind": at.ENDING_EXCEPTION, "name": "KeyError"})
    assert raised.text == "uncaught KeyError, exit code 1"
    assert not raised.orderly


def test_ends_and_what_was_before_travel_as_json() -> None:
    """Both go through JSON, from the process that asks the kernel to the one that writes the report."""
    end = End("signal", pid=3, signal=11, core_dumped=True, source="the kernel (pidfd)", certainty=1.0, unix_ns=5)
    assert End.unpack(json.loads(json.dumps(end.pack()))).pack() == end.pack()
    assert end.text == "killed by SIGSEGV, core dumped"
    before = Before(os.getpid())
    assert Before.unpack(json.loads(json.dumps(before.pack()))).pack() == before.pack()
    assert End("signal", signal=77).text == "killed by signal 77"


def test_orderly_and_requested_ends() -> None:
    """Exit code 0 is orderly; SIGTERM, SIGINT and SIGHUP were asked for."""
    assert End("exit", code=0).orderly
    assert not End("exit", code=1).orderly
    assert End("signal", signal=signal.SIGTERM).requested
    assert not End("signal", signal=signal.SIGKILL).requested


def test_a_rising_count_of_oom_kills_is_told(tmp_path: Path) -> None:
    """A count of a control group that rose since the process was seen alive says that it was killed for that."""
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 2\n", encoding="ascii")
    before = Before(os.getpid())
    before.kills = {str(tmp_path): 2}
    assert before.killed_for_memory() is None
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 3\n", encoding="ascii")
    assert "from 2 to 3" in str(before.killed_for_memory())
    before.refresh()
    assert before.killed_for_memory() is None
    assert Before.unpack(before.pack()).kills == {str(tmp_path): 3}


@pytest.mark.parametrize(
    ("name", "text", "count", "limit"),
    [
        ("memory.events", "oom 3\noom_kill 4\n", 4, None),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5, None),
        ("memory.events", "nonsense\noom_kill x\n", None, None),
        ("memory.max", "104857600\n", None, 104_857_600),
        ("memory.max", "max\n", None, None),
        ("memory.limit_in_bytes", "9223372036854771712\n", None, None),
        ("memory.limit_in_bytes", "1048576\n", None, 1_048_576),
    ],
)
def test_files_of_control_groups(tmp_path: Path, name: str, text: str, count: int | None, limit: int | None) -> None:
    """Counts and limits are read from files of both versions, and nothing from what is none of them."""
    (tmp_path / name).write_text(text, encoding="ascii")
    assert oom.cgroup_kills(str(tmp_path)) == count
    assert oom.cgroup_limit(str(tmp_path)) == limit


def test_this_process_has_control_groups_where_the_system_has() -> None:
    """Each directory that is found has a count, and the limits are those of the process."""
    for directory in oom.memory_cgroups(os.getpid()):
        assert oom.cgroup_kills(directory) is not None
    assert oom.memory_cgroups(2**31 - 1) == []
    program = "from otel_trading.forensics import oom; import os; print(oom.address_space_limit(os.getpid()))"
    limited = subprocess.run(
        ["sh", "-c", f"ulimit -v 8000000; exec {sys.executable} -c '{program}'"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert limited.stdout.strip() == str(8_000_000 * 1024)


@pytest.mark.parametrize(
    ("record", "since", "told"),
    [
        (b"3,100,900,-;Memory cgroup out of memory: Killed process 42 (python) total-vm:1kB\n", 0, True),
        (b"3,100,900,-;Out of memory: Killed process 42 (python)\n SUBSYSTEM=x\n", 800, True),
        (b"3,100,900,-;Out of memory: Killed process 42 (python)\n", 1000, False),
        (b"3,100,900,-;Out of memory: Killed process 421 (python)\n", 0, False),
        (b"3,100,900,-;Killed process 42\n", 0, False),
        (b"\xff,,;Out of memory: Killed process 42", 0, True),
    ],
)
def test_the_kernels_log(tmp_path: Path, record: bytes, since: int, told: bool) -> None:  # noqa: FBT001 - a case
    """A line of the log counts where it names the pid, and is not of an older process."""
    path = tmp_path / "kmsg"
    path.write_bytes(record)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert bool(oom._search(fd, 42, since)) is told
    finally:
        os.close(fd)


def test_older_lines_of_the_log_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pid comes again: what the log says of it counts only from the start of the process on."""
    asked: list[int] = []

    def told(_pid: int, since: int) -> str:
        asked.append(since)
        return ""

    monkeypatch.setattr(oom, "told_by_kernel", told)
    ticks = os.sysconf("SC_CLK_TCK")
    before = Before(os.getpid())
    assert before.process_start > 0
    look(2**31 - 1, before=before)
    look(2**31 - 1, process_start=5 * ticks)
    look(2**31 - 1)
    uptime = time.monotonic()
    assert asked[:2] == [before.process_start * 1_000_000 // ticks, 5_000_000]
    assert abs(asked[2] / 1e6 - max(0.0, uptime - 60.0)) < 30.0


def test_the_structure_is_the_kernels() -> None:
    """The ioctl's number carries the size of the second version of struct pidfd_info, 72 bytes."""
    assert how_it_ended._INFO.size == 72
    assert how_it_ended._GET_INFO == 0xC048FF0B
