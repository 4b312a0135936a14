"""Full file systems, missing rights, clocks that step, threads and processes without end: the program goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import uncovered
from otlp_receiver import Receiver, over_http

ROOT = os.geteuid() == 0
namespaces = pytest.mark.skipif(
    not ROOT or shutil.which("unshare") is None, reason="mounting a small file system takes root and unshare"
)

# A program that works, and says so at its end; what is recorded of it is not its affair.
PROGRAM = """
import os, sys, threading
import otel_trading as ot

ot.configure("grounded", config={"ring.slots": 1024, "ring.thread_slots": 256, "ring.arena_bytes": 65536})
work = ot.probe("work", tier=ot.P0)
results = []

def turn(number):
    with work.span(number=number, text="x" * 300):
        results.append(number)

for number in range(500):
    turn(number)
for number in range(20):
    thread = threading.Thread(target=turn, args=(number,))
    thread.start()
    thread.join()
order = ot.order("a-1", symbol="BTCUSDT", side="buy", qty=1.0, price=2.0)
order.ack()
order.fill(2.0, 1.0)
ot.gauge("queue.size").set(3)
ot.risk_breach("exposure")
ot.flush(1.0)
ot.shutdown()
assert len(results) == 520
print("the program is through")
"""


def run(directory: Path, *before: str, code: str = PROGRAM, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program, below a command if one is given."""
    return subprocess.run(
        [*before, sys.executable, "-c", code],
        env=uncovered(directory, OTEL_TRADING_BUDGET_ENABLED="false", **environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_unharmed(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """Demand that the program did its work, and that one clear message says what is wrong with the ground."""
    assert (done.returncode, done.stdout) == (0, "the program is through\n"), done.stderr
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr
    assert done.stderr.count("nothing is recorded") == (1 if said else 0), done.stderr


def mounted(directory: Path, options: str) -> list[str]:
    """Give the command below which a small file system is mounted there, for what it runs only."""
    script = f'mount -t tmpfs -o {options} none "{directory}" && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


@namespaces
def test_no_room_for_a_segment(tmp_path: Path) -> None:
    """Where the file system is too small for a segment, the program runs unrecorded, and the remedy is told."""
    ground = tmp_path / "ground"
    ground.mkdir(mode=0o700)
    done = run(ground, *mounted(ground, "size=256k,mode=0700"))
    assert_unharmed(done, "OTEL_TRADING_DIR", "make the rings smaller")


@namespaces
def test_no_room_for_another_ring(tmp_path: Path) -> None:
    """Where there is no more room for a new thread's ring, its spans are recorded elsewhere or refused, and counted."""
    ground = tmp_path / "ground"
    ground.mkdir(mode=0o700)
    code = PROGRAM.replace("ot.flush(1.0)", "accounts = ot.accounts()[0]").replace(
        "assert len(results)",
        "parts = sum(n for name, n in accounts.items() if name != 'recorded')\n"
        "assert accounts['recorded'] == parts >= 520, accounts\nassert len(results)",
    )
    for size in range(2_000, 3_600, 200):  # KiB: from too small for anything to room for some rings
        done = run(ground, *mounted(ground, f"size={size}k,mode=0700"), code=code)
        assert done.returncode in {0, 1}
        if "nothing is recorded" not in done.stderr:
            assert (done.returncode, done.stdout) == (0, "the program is through\n"), done.stderr
            return
    pytest.fail("no size was found at which a segment fits")


@namespaces
def test_a_read_only_directory(tmp_path: Path) -> None:
    """Where nothing can be written, the program runs unrecorded, and is told why."""
    ground = tmp_path / "ground"
    ground.mkdir(mode=0o700)
    assert_unharmed(run(ground, *mounted(ground, "size=8m,mode=0700,ro")), str(ground), "ead-only")


@namespaces
def test_a_full_disk_for_flight_records(tmp_path: Path) -> None:
    """A flight record that finds no room is no file, and no exception."""
    full = tmp_path / "full"
    full.mkdir(mode=0o700)
    code = PROGRAM.replace("ot.flush(1.0)", f"assert ot.dump({str(full / 'dump.flight')!r}) == ''").replace(
        "print(", f"assert os.listdir({str(full)!r}) == [], os.listdir({str(full)!r})\nprint("
    )
    done = run(tmp_path, *mounted(full, "size=64k,mode=0700"), code=code)
    assert (done.returncode, done.stdout) == (0, "the program is through\n"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not ROOT, reason="running a program as another user takes root")
def test_a_directory_without_rights(tmp_path: Path) -> None:
    """Where the user may not write, the program runs unrecorded, and is told why."""
    for parent in (tmp_path, *tmp_path.parents):  # pytest's directories are the user's alone
        mode = os.stat(parent).st_mode
        if mode & 0o005 != 0o005:
            parent.chmod(mode | 0o055)
    ground = tmp_path / "ground"
    ground.mkdir(mode=0o700)
    os.chown(ground, 12_345, 12_345)
    os.chmod(ground, 0o500)
    done = run(ground, "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", HOME="/nonexistent")
    assert_unharmed(done, str(ground))


# ---- clocks

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The system's wall clock, as many seconds off as the first word of a shared file says. */
static volatile long *offset;

__attribute__((constructor)) static void start(void) {
    int fd = open(getenv("CLOCK_OFFSET"), O_RDWR);
    if (fd >= 0)
        offset = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, t);
    if (result == 0 && offset != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        t->tv_sec += *offset;
    return result;
}

int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""

STEPPING = """
import mmap, os, struct, time
import otel_trading as ot

ot.configure("clocks", config={"drain.period": 0.01})
work = ot.probe("work", tier=ot.P0)
page = mmap.mmap(os.open(os.environ["CLOCK_OFFSET"], os.O_RDWR), 8)
for step in (0, 3600, -3600, 0):
    page[:8] = struct.pack("<q", step)
    with work.span(step=step, across=True):
        page[:8] = struct.pack("<q", step + 60)
        time.sleep(0.06)
        page[:8] = struct.pack("<q", step)
    time.sleep(0.1)  # a pass of the drain takes the new time
    for _ in range(50):
        with work.span(step=step, began=time.time_ns()):
            time.sleep(0.001)
    assert ot.flush(20.0)  # the clock that a pass finds holds for all that it drains
accounts = ot.accounts()[0]
assert accounts["recorded"] == accounts["exported"] == 204, accounts
stats = ot.stats()["work"]
assert 0 < stats["max_ns"] < 30e9, stats
ot.shutdown()
print("the program is through")
"""


@pytest.fixture
def clock(tmp_path: Path) -> dict[str, str]:
    """Give the environment in which a program's wall clock can be stepped."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("stepping a program's clock takes a C compiler")
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", tmp_path / "shim.so", tmp_path / "shim.c", "-ldl"], check=True
    )
    (tmp_path / "offset").write_bytes(bytes(8))
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD", ""), str(tmp_path / "shim.so")]))
    return {"LD_PRELOAD": preload, "CLOCK_OFFSET": str(tmp_path / "offset")}


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    """Give a receiver and its address."""
    made = Receiver()
    with over_http(made) as url:
        yield made, url


def exporting(url: str) -> dict[str, str]:
    """Give the environment of a program that exports there."""
    return {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
    }


def test_the_wall_clock_steps(clock: dict[str, str], receiver: tuple[Receiver, str], tmp_path: Path) -> None:
    """Steps of the wall clock by an hour, to and fro, change no duration, and later spans are at the new time."""
    there, url = receiver
    done = run(tmp_path, code=STEPPING, **clock, **exporting(url))
    assert (done.returncode, done.stdout) == (0, "the program is through\n"), done.stderr
    spans: list[Any] = there.spans()
    assert len({span.span_id for span in spans}) == len(spans) == 204
    for span in spans:
        length = span.end_time_unix_nano - span.start_time_unix_nano
        assert 0 <= length < 30e9
        told = {item.key: item.value for item in span.attributes}
        if "began" in told:
            assert abs(span.start_time_unix_nano - told["began"].int_value) < 5e9


# ---- many of everything

THREADS = """
import os, sys, threading
import otel_trading as ot

ot.configure("threads", config={"ring.slots": 1024, "ring.thread_slots": 256, "drain.period": 0.01})
work = ot.probe("work")
count = int(sys.argv[1])

def turn():
    with work:
        pass

sizes = []
for number in range(count // 20):
    threads = [threading.Thread(target=turn) for _ in range(20)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    if number % 10 == 9:
        sizes.append(os.stat(next(os.scandir(os.environ["OTEL_TRADING_DIR"])).path).st_size)
assert len(set(sizes[len(sizes) // 2:])) == 1, sizes  # rings of threads that have ended are used again
account = ot.accounts()[1]
assert account["recorded"] == count == sum(n for name, n in account.items() if name != "recorded"), account
assert ot.stats()["work"]["count"] == count
ot.shutdown()
print("the program is through")
"""


def test_threads_without_end(tmp_path: Path, rounds: Callable[[int, int], int]) -> None:
    """Thousands of threads over time take no more room than those that live at once, and each span is counted."""
    directory = tmp_path / "segments"
    directory.mkdir(mode=0o700)
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(rounds(1_000, 10_000))],
        env=uncovered(directory, OTEL_TRADING_BUDGET_ENABLED="false"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "the program is through\n"), done.stderr


SHORT = """
import sys
import otel_trading as ot

ot.configure("short", config={"ring.slots": 1024, "ring.thread_slots": 256})
with ot.probe("work").span(number=int(sys.argv[1])):
    pass
"""


def test_short_processes(receiver: tuple[Receiver, str], tmp_path: Path, rounds: Callable[[int, int], int]) -> None:
    """Many short programs, some at once, each have their span exported once, and leave nothing behind."""
    there, url = receiver
    directory = tmp_path / "segments"
    directory.mkdir(mode=0o700)
    environment = uncovered(directory, OTEL_TRADING_BUDGET_ENABLED="false", **exporting(url))
    count = rounds(20, 1_000)
    running: list[subprocess.Popen[bytes]] = []
    for number in range(count):
        running.append(subprocess.Popen([sys.executable, "-c", SHORT, str(number)], env=environment))
        while len(running) >= 4:
            assert running.pop(0).wait(60) == 0
    assert [program.wait(60) for program in running] == [0] * len(running)
    numbers = sorted(span.attributes[0].value.int_value for span in there.spans())
    assert numbers == list(range(count))
    assert [path.name for path in directory.iterdir()] == []
