"""Pressure: how loaded what this process may use is, from files of the kernel and of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from math import isnan
from typing import TYPE_CHECKING, Any

import pytest
from governing import EMERGENCY, Governed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Recorder

CPUS = sorted(os.sched_getaffinity(0))


class Tree:
    """Files of /proc and /sys, below a directory of the test's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.idle = self.busy = 0
        self.sums: dict[str, int] = {}
        self.spend(0, 0)
        self.memory(8000, 6000)
        self.write("proc/self/cgroup", "0::/\n")
        self.write("proc/self/mountinfo", "")

    def write(self, path: str, text: str | bytes) -> None:
        """Write a file; one that is open stays the same file."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("r+b" if file.exists() else "wb") as opened:
            opened.truncate(0)
            opened.write(text if isinstance(text, bytes) else text.encode())

    def spend(self, busy: int, idle: int, others: int = 0) -> None:
        """Have all CPUs that this process may use spend so many units; one that it may not use is ``others`` busy."""
        self.busy += busy
        self.idle += idle
        lines = [f"cpu{number} {self.busy} 0 0 {self.idle} 0 0 0 0 0 0" for number in CPUS]
        if others:
            lines.append(f"cpu{CPUS[-1] + 1} {others} 0 0 0 0 0 0 0 0 0")
        total, rest = self.busy * len(CPUS) + others, self.idle * len(CPUS)
        self.write("proc/stat", "\n".join([f"cpu  {total} 0 0 {rest} 0 0 0 0 0 0", *lines, "intr 1 2 3", ""]))

    def memory(self, total: int, available: int) -> None:
        """Have so much memory, in KiB."""
        self.write("proc/meminfo", f"MemTotal:  {total} kB\nMemFree:  10 kB\nMemAvailable:  {available} kB\n")

    def groups(self, version: int, own: str, mounts: dict[str, str]) -> None:
        """Be in the group ``own`` of the hierarchies that are mounted, {controllers or "": mount point}."""
        kinds = [name for name in mounts if name] if version == 1 else [""]
        self.write("proc/self/cgroup", "".join(f"{5 if name else 0}:{name}:{own}\n" for name in kinds))
        self.write(
            "proc/self/mountinfo",
            "22 1 8:1 / / rw shared:1 - ext4 /dev/root rw\n"
            + "".join(
                f"3{number} 22 0:2{number} / {point} rw,nosuid shared:9 - "
                + (f"cgroup cgroup rw,{name}\n" if name else "cgroup2 cgroup2 rw\n")
                for number, (name, point) in enumerate(mounts.items())
            ),
        )


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """Give files that stand in for the kernel's."""
    (tmp_path / "system").mkdir()
    core.system_root(str(tmp_path / "system"))
    yield Tree(tmp_path / "system")
    core.system_root("")


@pytest.fixture
def governed(recorder: Recorder) -> Iterator[Governed]:
    """Give a governor that nothing gives readings to but the files."""
    one = Governed(recorder)
    yield one
    one.close()


def look(governed: Governed, after: float = 0.1) -> tuple[float, float]:
    """Tick, and give the load of CPU and memory."""
    governed.now += after
    core.govern({"now": governed.now})
    return governed.reading("cpu_load"), governed.reading("memory_load")


# ---- CPU ----


def test_the_load_is_the_share_of_busy_time(governed: Governed, tree: Tree) -> None:
    """Of all that the CPUs spent since the looks before."""
    assert look(governed) == (0.0, 0.25)
    tree.spend(busy=5, idle=5)
    assert look(governed)[0] == pytest.approx(0.5)
    tree.spend(busy=0, idle=10)
    assert look(governed)[0] == 0.0
    tree.spend(busy=10, idle=0)
    assert look(governed)[0] == 1.0
    assert governed.mode == EMERGENCY


def test_all_kinds_of_time_count(governed: Governed, tree: Tree) -> None:
    """Steal and interrupts are busy, waiting for a disk is idle, and guests are in user time already."""
    tree.write("proc/stat", "cpu  1 1 1 1 1 1 1 1 0 0\n")
    look(governed)
    tree.write("proc/stat", "cpu  11 11 11 31 31 11 11 11 500 500\n")
    assert look(governed)[0] == pytest.approx(0.5)


def test_a_short_look_tells_sooner(governed: Governed, tree: Tree) -> None:
    """All busy for 50 ms is told at once, before the longer look has it; less than that is not."""
    for _ in range(8):
        tree.spend(busy=1, idle=9)
        look(governed, 0.025)
    for load in (9, 10):
        tree.spend(busy=load, idle=10 - load)
        tree.spend(busy=load, idle=10 - load)
        look(governed, 0.025)
    tree.spend(busy=20, idle=0)
    load, _ = look(governed, 0.025)
    assert 0.9 < load < 1.0


def test_only_what_the_process_may_use_counts(governed: Governed, tree: Tree) -> None:
    """A CPU that the affinity leaves out may be as busy as it likes."""
    tree.spend(0, 0, others=1)
    look(governed)
    tree.spend(busy=2, idle=8, others=5000)
    assert look(governed)[0] == pytest.approx(0.2)


def test_a_counter_of_idle_time_that_goes_back(governed: Governed, tree: Tree) -> None:
    """The kernel's count of waiting for disks can fall: the load is then 1 at most, and no failure."""
    tree.spend(100, 100)
    look(governed)
    tree.idle -= 1
    tree.spend(busy=10, idle=0)
    assert look(governed)[0] == 1.0
    assert governed.number("failed") == 0


def seconds(tree: Tree, busy: int, idle: int, waited: int = 0, idle_by_uptime: int | None = None) -> None:
    """Have each CPU spend so many units more, in stat and in uptime, which knows of no waits."""
    sums = tree.sums
    for kind, units in (("busy", busy), ("idle", idle), ("waited", waited)):
        sums[kind] = sums.get(kind, 0) + units
    told = idle if idle_by_uptime is None else idle_by_uptime
    sums["uptime"] = sums.get("uptime", 0) + told * len(CPUS)

    def line(name: str, cpus: int) -> str:
        return f"{name} {sums['busy'] * cpus} 0 0 {sums['idle'] * cpus} {sums['waited'] * cpus} 0 0 0 0 0"

    lines = [line("cpu ", len(CPUS)), *(line(f"cpu{number}", 1) for number in CPUS), "intr 1 2 3", ""]
    tree.write("proc/stat", "\n".join(lines))
    tree.write("proc/uptime", f"1234.56 {sums['uptime'] // 100}.{sums['uptime'] % 100:02}\n")


def test_uptime_tells_the_same_as_stat(governed: Governed, tree: Tree) -> None:
    """Where uptime has the idle time of all CPUs, the load is the same as by the sums of stat."""
    seconds(tree, 0, 0)
    look(governed)
    for busy in (1, 2, 9, 10, 0, 5, 7, 7, 3, 0, 8, 10):
        seconds(tree, busy, 10 - busy)
        assert look(governed)[0] == pytest.approx(busy / 10)
    assert governed.number("failed") == 0


def test_waiting_for_a_disk_is_no_load(governed: Governed, tree: Tree) -> None:
    """Uptime knows of no waits; where they would make a load of some size, stat is asked."""
    seconds(tree, 0, 0)
    look(governed)
    for _ in range(12):
        seconds(tree, busy=1, idle=1, waited=8)
        assert look(governed)[0] == pytest.approx(0.1, abs=0.01)
    seconds(tree, busy=9, idle=1)
    assert look(governed)[0] == pytest.approx(0.9)
    assert governed.mode == EMERGENCY


@pytest.mark.parametrize("idle_by_uptime", [0, 9])
def test_an_uptime_of_its_own_is_not_believed(governed: Governed, tree: Tree, idle_by_uptime: int) -> None:
    """In some containers uptime tells the container's: what differs from stat is left alone after a moment."""
    seconds(tree, 0, 0)
    look(governed)
    for _ in range(12):
        seconds(tree, busy=5, idle=5, idle_by_uptime=idle_by_uptime)
        look(governed)
    for busy in (2, 9, 4):
        seconds(tree, busy=busy, idle=10 - busy, idle_by_uptime=idle_by_uptime)
        assert look(governed)[0] == pytest.approx(busy / 10)


@pytest.mark.parametrize("text", ["", "x", "1.00", "1.00 ", "1.00 x", "1.00 5", "1.00 5.1", "9" * 70, "1 -5.00"])
def test_an_uptime_that_can_not_be_understood(governed: Governed, tree: Tree, text: str) -> None:
    """Then stat alone tells the load."""
    seconds(tree, 0, 0)
    for busy in (1, 6, 9):
        tree.write("proc/uptime", text)
        look(governed)
        seconds(tree, busy, 10 - busy)
        tree.write("proc/uptime", text)
        assert look(governed)[0] == pytest.approx(busy / 10)


def v2(tree: Tree, group: str = "/bot.slice/bot.service") -> str:
    """Have version 2 mounted, and be in a group; gives its directory."""
    tree.groups(2, group, {"": "/sys/fs/cgroup"})
    tree.write("sys/fs/cgroup/cpu.stat", "usage_usec 1\n")
    return f"sys/fs/cgroup{group}"


def test_a_quota_of_version_2(governed: Governed, tree: Tree) -> None:
    """With half a CPU's quota, a tenth of a CPU is a load of a fifth."""
    own = v2(tree)
    tree.write(f"{own}/cpu.max", "50000 100000\n")
    tree.write(f"{own}/cpu.stat", "usage_usec 5000000\nuser_usec 1\n")
    look(governed)
    tree.spend(1, 99)
    tree.write(f"{own}/cpu.stat", "usage_usec 5010000\nuser_usec 1\n")
    assert look(governed)[0] == pytest.approx(0.2)


def test_the_tightest_group_above_counts(governed: Governed, tree: Tree) -> None:
    """A limit of the slice that the service is in holds for the service too."""
    own = v2(tree)
    tree.write(f"{own}/cpu.max", "max 100000\n")
    tree.write(f"{own}/cpu.stat", "usage_usec 0\n")
    tree.write("sys/fs/cgroup/bot.slice/cpu.max", "200000 100000\n")
    tree.write("sys/fs/cgroup/bot.slice/cpu.stat", "usage_usec 0\n")
    look(governed)
    tree.spend(1, 99)
    tree.write("sys/fs/cgroup/bot.slice/cpu.stat", "usage_usec 180000\n")
    assert look(governed)[0] == pytest.approx(0.9)


def test_a_quota_of_version_1(governed: Governed, tree: Tree) -> None:
    """The limit and the use are in hierarchies of their own."""
    tree.groups(1, "/bot", {"cpu": "/sys/fs/cgroup/cpu", "cpuacct": "/sys/fs/cgroup/cpuacct"})
    tree.write("sys/fs/cgroup/cpu/bot/cpu.cfs_quota_us", "150000\n")
    tree.write("sys/fs/cgroup/cpu/bot/cpu.cfs_period_us", "100000\n")
    tree.write("sys/fs/cgroup/cpuacct/bot/cpuacct.usage", "7000000000\n")
    look(governed)
    tree.spend(1, 99)
    tree.write("sys/fs/cgroup/cpuacct/bot/cpuacct.usage", "7120000000\n")
    assert look(governed)[0] == pytest.approx(0.8)


def test_without_a_quota_the_group_does_not_count(governed: Governed, tree: Tree) -> None:
    """-1 and max are no limits, however much the group uses."""
    tree.groups(1, "/", {"cpu,cpuacct": "/sys/fs/cgroup/cpu"})
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    tree.write("sys/fs/cgroup/cpu/cpuacct.usage", "0\n")
    look(governed)
    tree.spend(3, 7)
    tree.write("sys/fs/cgroup/cpu/cpuacct.usage", "900000000000\n")
    assert look(governed)[0] == pytest.approx(0.3)


# ---- memory ----


def test_memory_is_what_is_not_available(governed: Governed, tree: Tree) -> None:
    """What the kernel can give back at once is available."""
    look(governed)
    tree.memory(1000, 50)
    assert look(governed)[1] == pytest.approx(0.95)
    assert (governed.mode, governed.word("mode_reason")) == (EMERGENCY, at.REASON_MEMORY)


def test_a_memory_limit_of_version_2(governed: Governed, tree: Tree) -> None:
    """Files that nobody uses are no pressure, and the tighter of machine and group counts."""
    own = v2(tree)
    tree.write(f"{own}/memory.max", "1000000\n")
    tree.write(f"{own}/memory.current", "900000\n")
    tree.write(f"{own}/memory.stat", "anon 1\ninactive_file 200000\n")
    assert look(governed)[1] == pytest.approx(0.7)
    tree.write(f"{own}/memory.stat", "anon 1\ninactive_file 0\n")
    assert look(governed)[1] == pytest.approx(0.9)
    tree.memory(1000, 20)
    assert look(governed)[1] == pytest.approx(0.98)


def test_a_memory_limit_of_version_1(governed: Governed, tree: Tree) -> None:
    """Also beside a mount of version 2 that has no controllers, and below a mount that shows a part only."""
    tree.groups(1, "/docker/abc/bot", {"memory": "/sys/fs/cgroup/memory", "": "/sys/fs/cgroup/unified"})
    text = (tree.root / "proc/self/mountinfo").read_text()
    tree.write("proc/self/mountinfo", text.replace(" / /sys/fs/cgroup/memory", " /docker/abc /sys/fs/cgroup/memory"))
    tree.write("sys/fs/cgroup/unified/cgroup.procs", "")
    tree.write("sys/fs/cgroup/memory/bot/memory.limit_in_bytes", "1000000\n")
    tree.write("sys/fs/cgroup/memory/bot/memory.usage_in_bytes", "950000\n")
    tree.write("sys/fs/cgroup/memory/bot/memory.stat", "inactive_file 7\ntotal_inactive_file 100000\n")
    tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    tree.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000000\n")
    assert look(governed)[1] == pytest.approx(0.85)


# ---- stalls ----


def pressure_lines(some: int) -> str:
    """Give a file of pressure stall information, µs."""
    return f"some avg10=0.00 avg60=0.00 avg300=0.00 total={some}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"


def test_stalls_are_shares_of_the_time(governed: Governed, tree: Tree) -> None:
    """Of the time since the look before; a group's own file comes before the system's."""
    own = v2(tree)
    tree.write(f"{own}/cpu.stat", "usage_usec 1\n")
    tree.write(f"{own}/cpu.pressure", pressure_lines(1000))
    tree.write("proc/pressure/cpu", pressure_lines(5))
    tree.write("proc/pressure/memory", pressure_lines(2000))
    look(governed)
    assert isnan(governed.reading("cpu_stall"))
    tree.write(f"{own}/cpu.pressure", pressure_lines(51_000))
    tree.write("proc/pressure/memory", pressure_lines(22_000))
    look(governed, 0.1)
    assert isnan(governed.reading("cpu_stall"))  # twice a second: nothing is decided by it
    look(governed, 0.4)
    assert governed.reading("cpu_stall") == pytest.approx(0.1)
    assert governed.reading("memory_stall") == pytest.approx(0.04)


def test_no_stall_information_is_no_failure(governed: Governed, tree: Tree) -> None:
    """Where the kernel has none, the readings are not known, and the engine works."""
    look(governed)
    tree.spend(1, 9)
    look(governed)
    assert isnan(governed.reading("cpu_stall"))
    assert isnan(governed.reading("memory_stall"))
    assert governed.number("failed") == 0


# ---- what can not be read ----


@pytest.mark.parametrize("gone", ["proc/stat", "proc/meminfo"])
def test_a_file_that_is_not_there_is_a_failure(governed: Governed, tree: Tree, gone: str) -> None:
    """Without it the pressure can not be told, which is a decision, and recording stays as it is."""
    (tree.root / gone).unlink()
    look(governed)
    (failed,) = governed.decisions()
    assert (failed.kind, failed.reason) == (
        at.DECISION_FAILED,
        at.REASON_CPU if gone == "proc/stat" else at.REASON_MEMORY,
    )
    assert governed.shares == (1.0, 1.0, 1.0, 1.0)


def test_counters_that_stand_still_are_a_failure(governed: Governed, tree: Tree) -> None:
    """A file that always says the same, as some sandboxes have it, does not tell a load."""
    look(governed)
    assert isnan(look(governed)[0])
    assert governed.number("failed") == 1
    tree.spend(1, 9)
    assert look(governed)[0] == pytest.approx(0.1)
    assert governed.number("failed") == 0


TEXT = st.one_of(
    st.binary(max_size=300),
    st.text("cpu 0123456789\n-+.e:maxMemTotalAvilb=some_usec", max_size=300).map(str.encode),
    st.just(b"cpu  " + b"9" * 400 + b"\n"),
)
FILES = (
    "proc/stat",
    "proc/uptime",
    "proc/meminfo",
    "proc/pressure/cpu",
    "proc/self/cgroup",
    "proc/self/mountinfo",
    "sys/fs/cgroup/cpu.max",
    "sys/fs/cgroup/cpu.stat",
    "sys/fs/cgroup/memory.max",
    "sys/fs/cgroup/memory.current",
    "sys/fs/cgroup/memory.stat",
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FILES), TEXT, min_size=1), st.booleans())
def test_malformed_files_do_no_harm(governed: Governed, tree: Tree, files: dict[str, bytes], early: bool) -> None:  # noqa: FBT001
    """Whatever stands in them, a load is from 0 to 1 or can not be told, and P0 stays on."""
    tree.groups(2, "/", {"": "/sys/fs/cgroup"})
    for path in FILES[6:]:
        tree.write(path, "100 100\n")
    if early:
        for path, text in files.items():
            tree.write(path, text)
    core.govern_start()  # has the files looked for anew
    core.govern_stop()
    for _ in range(3):
        tree.spend(1, 9)
        for path, text in files.items():
            tree.write(path, text)
        for load in look(governed):
            assert isnan(load) or 0.0 <= load <= 1.0
    assert governed.shares[0] == 1.0


def test_wrong_roots_are_refused() -> None:
    """The root is a path; what is none raises."""
    with pytest.raises(TypeError):
        core.system_root(7)
    with pytest.raises(TypeError):
        core.system_root("x" * 100_000)


# ---- the real ones ----


def test_burners_lead_to_emergency(recorder: Recorder, until: Callable[[Callable[[], object]], None]) -> None:
    """Processes that take all CPUs are seen by the governor's thread, and their end as well."""
    governed = Governed(recorder, period=0.025, dwell=0.2, enter=(0.7, 0.85, 2.0, 2.0), budget=[1e18] * 20)
    command = [sys.executable, "-c", "while True: pass"]
    core.govern_start()
    burners = [subprocess.Popen(command) for _ in CPUS]
    try:
        until(lambda: governed.mode == EMERGENCY)
        assert governed.word("mode_reason") == at.REASON_CPU
        assert governed.reading("cpu_load") > 0.85
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
        core.govern_stop()
        governed.close()


def test_the_real_files_are_understood(governed: Governed, until: Callable[[Callable[[], object]], None]) -> None:
    """On the machine that the tests run on, loads are told."""
    done = threading.Event()

    def told() -> Any:
        core.govern({"cpu": 0.0, "memory": 0.0, "latency": 0.0})
        done.wait(0.05)
        return 0.0 < governed.reading("cpu_load") <= 1.0 and 0.0 < governed.reading("memory_load") < 1.0

    until(told)
    assert governed.number("failed") == 0
