"""Forks and child processes: what each process records, joins, flushes, and leaves to the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

INTERRUPTED = 16

# The start of all scripts: each process leaves a second link to its segment, to be read when it is gone.
# Python 3.12 warns of a fork with threads, and the native drain's is not one that it can see; our own are none of its.
START = """
import json, os, signal, sys, threading, time, warnings
import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
KEEP = os.environ["KEEP"]
CONFIG = {"ring.slots": 1024, "ring.thread_slots": 256, "drain.period": 0.01}
def keep(name):
    os.link(lifecycle._host.path, os.path.join(KEEP, name))
def tell(name, value):
    with open(os.path.join(KEEP, name), "w") as f:
        json.dump(value, f)
def reap(pid):
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
"""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Give a directory where processes leave links to their segments, and notes."""
    directory = tmp_path / "kept"
    directory.mkdir()
    return directory


@pytest.fixture
def run(run_python: Run, kept: Path) -> Run:
    """Give a function that runs a script which forks."""
    return lambda code, **environment: run_python(START + code, KEEP=str(kept), **environment)


@pytest.fixture
def left(kept: Path) -> Iterator[Callable[[str], Any]]:
    """Give a function that opens the segment which a process has left."""
    opened = []

    def open_(name: str) -> Any:
        fd = os.open(kept / name, os.O_RDONLY)
        reader = core.Reader(fd)
        os.close(fd)
        opened.append(reader)
        return reader

    yield open_
    for reader in opened:
        reader.close()


def spans(reader: Any) -> list[tuple[str, Any]]:
    """Give the records of a segment with their probes' names."""
    names = [probe[0] for probe in reader.probes()]
    return [(names[state[0]], state) for state in reader.read(100_000)]


def remaining(directory: Path) -> list[str]:
    """List the segments that are still where the recorder made them."""
    return [
        path.name
        for path in directory.rglob("*")
        if path.is_file() and path.parent.name != "kept" and path.name != "script.py"
    ]


# ---- os.fork --------------------------------------------------------------------------------------


def test_each_process_has_its_own_spans(run: Run, left: Callable[[str], Any], tmp_path: Path) -> None:
    """Nothing recorded before or after a fork is lost or there twice, and each file goes with its process."""
    run("""
ot.configure("parent", config=CONFIG)
keep("parent")
probe = ot.probe("work")
def work(who, count):
    for number in range(count):
        with probe.span(who=who, number=number):
            pass
work("before", 100)
pid = os.fork()
if pid == 0:
    assert not core.is_open()
    work("child", 50)
    keep("child")
    assert ot.accounts()[1]["recorded"] == 50, ot.accounts()
    sys.exit(0)
work("after", 30)
reap(pid)
assert os.path.exists(lifecycle._host.path)
work("later", 20)
assert ot.accounts()[1]["recorded"] == 150, ot.accounts()
""")
    parent, child = left("parent"), left("child")
    for reader, expected in ((parent, {"before": 100, "after": 30, "later": 20}), (child, {"child": 50})):
        got = [(state[11]["who"], state[11]["number"]) for _, state in spans(reader)]
        assert sorted(got) == sorted((who, number) for who, count in expected.items() for number in range(count))
        assert reader.info()["closed"]
        assert reader.accounts()[1]["pending"] == 0
    assert parent.info()["pid"] != child.info()["pid"]
    assert remaining(tmp_path) == []


def test_childs_spans_join_the_trace(run: Run, left: Callable[[str], Any]) -> None:
    """The span that was current at the fork is the parent of the child's spans, and ends in the parent only."""
    run("""
ot.configure("parent", config=CONFIG)
keep("parent")
with ot.probe("outer") as outer:
    pid = os.fork()
    with ot.probe("inner"):
        pass
    if pid == 0:
        keep("child")
    else:
        reap(pid)
""")
    parent, child = spans(left("parent")), spans(left("child"))
    assert [name for name, _ in parent] == ["inner", "outer"]
    assert [name for name, _ in child] == ["inner"]
    outer = parent[1][1]
    for _, inner in (parent[0], child[0]):
        assert (inner[2], inner[4]) == (outer[2], outer[3])
    assert parent[0][1][3] != child[0][1][3]


def test_ids_differ_between_processes(run: Run, left: Callable[[str], Any]) -> None:
    """Children of one parent never make the same ids."""
    run("""
ot.configure("parent", config=CONFIG)
probe = ot.probe("work")
for _ in range(10):
    probe.stop(probe.start())
keep("parent")
children = []
for number in range(5):
    pid = os.fork()
    if pid == 0:
        for _ in range(100):
            probe.stop(probe.start())
        keep(f"child{number}")
        sys.exit(0)
    children.append(pid)
for pid in children:
    reap(pid)
""")
    states = [state for number in range(5) for _, state in spans(left(f"child{number}"))]
    states += [state for _, state in spans(left("parent"))]
    assert len(states) == 510
    assert len({state[2] for state in states}) == len({state[3] for state in states}) == 510


def test_a_child_that_records_nothing_makes_nothing(run: Run, tmp_path: Path) -> None:
    """A child without a record has no segment, not even after a garbage collection, and leaves the parent's."""
    run("""
import gc
ot.configure("parent", config=CONFIG)
pid = os.fork()
if pid == 0:
    gc.collect()
    assert not core.is_open()
    assert ot.flush()
    sys.exit(0)
reap(pid)
assert os.path.exists(lifecycle._host.path)
""")
    assert remaining(tmp_path) == []


@pytest.mark.parametrize("first", ["gc", "counter", "histogram", "flat", "function", "generator"])
def test_any_first_record_opens_the_childs_segment(run: Run, first: str) -> None:
    """Whatever the child records first, it has a segment for it, and nothing of it is lost."""
    run(
        f"FIRST = {first!r}"
        """
ot.configure("parent", config=CONFIG)
probe, leaf = ot.probe("work"), ot.probe("leaf", leaf=True)
counter, histogram = ot.counter("orders"), ot.histogram("slippage")
counter.add(5)
histogram.record(1.0)
pid = os.fork()
if pid == 0:
    if FIRST == "counter":
        counter.add(2)
    elif FIRST == "histogram":
        histogram.record(2.0)
    elif FIRST == "flat":
        leaf.stop(leaf.start())
    elif FIRST == "function":
        assert probe(lambda: 7)() == 7
    elif FIRST == "generator":
        @probe
        def count():
            yield 1
        assert list(count()) == [1]
    else:
        with probe:
            import gc
            gc.collect()
    assert core.is_open()
    got = {i["name"]: i for i in core.snapshot()["instruments"]}
    assert got["orders"]["value"] == (2 if FIRST == "counter" else 0), got["orders"]
    assert got["slippage"]["total"][1] == (1 if FIRST == "histogram" else 0)
    assert sum(a["recorded"] for a in ot.accounts().values()) == (FIRST not in ("counter", "histogram"))
    sys.exit(0)
reap(pid)
got = {i["name"]: i for i in core.snapshot()["instruments"]}
assert got["orders"]["value"] == 5
"""
    )


def test_spans_open_at_the_fork(run: Run, left: Callable[[str], Any]) -> None:
    """Spans that were open at the fork end harmlessly in the child, and are recorded by the parent alone."""
    run("""
ot.configure("parent", config=CONFIG)
keep("parent")
probe, flat = ot.probe("work"), ot.probe("flat")
token = flat.start()
span = probe.span(symbol="x")
with span:
    pid = os.fork()
    if pid == 0:
        span.set_attribute("child", True)
flat.stop(token)
if pid == 0:
    with probe:
        pass
    keep("child")
    assert [i["segment"]["faults"] for i in [core.snapshot()]] == [0]
    sys.exit(0)
reap(pid)
""")
    assert [(name, state[11]) for name, state in spans(left("parent"))] == [("work", {"symbol": "x"}), ("flat", {})]
    assert [name for name, _ in spans(left("child"))] == ["work"]


def test_fork_of_a_fork(run: Run, left: Callable[[str], Any], tmp_path: Path) -> None:
    """Grandchildren record too, whether their parent has recorded or not."""
    run("""
ot.configure("parent", config=CONFIG)
probe = ot.probe("work")
for records in (True, False):
    pid = os.fork()
    if pid == 0:
        if records:
            with probe:
                pass
        grandchild = os.fork()
        if grandchild == 0:
            with probe:
                pass
            keep(f"grandchild{records}")
            sys.exit(0)
        reap(grandchild)
        sys.exit(0)
    reap(pid)
""")
    for records in (True, False):
        assert [name for name, _ in spans(left(f"grandchild{records}"))] == ["work"]
    assert remaining(tmp_path) == []


def test_fork_in_a_thread_while_others_record(run: Run) -> None:
    """A fork amid recording threads gives a child that records and ends, and a parent that lost nothing."""
    run(
        """
ot.configure("parent", config={**CONFIG, "ring.thread_slots": 65536})
probe = ot.probe("work")
stop, counts = threading.Event(), []
def work():
    count = 0
    while not stop.is_set() or count < 1000:
        with probe:
            count += 1
        if count >= 20000:
            break
    counts.append(count)
def forks():
    for number in range(5):
        pid = os.fork()
        if pid == 0:
            with probe.span(number=number):
                pass
            assert ot.accounts()[1]["recorded"] == 1
            ot.shutdown()
            os._exit(0)
        reap(pid)
    stop.set()
threads = [threading.Thread(target=work) for _ in range(4)] + [threading.Thread(target=forks)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
account = ot.accounts()[1]
assert account["recorded"] == sum(counts), (account, counts)
""",
        # coverage has a lock that a fork of several threads leaves locked in the child
        COVERAGE_PROCESS_CONFIG="",
        COVERAGE_PROCESS_START="",
    )


def test_child_configures_itself(run: Run, left: Callable[[str], Any], tmp_path: Path) -> None:
    """A child may be configured anew before its first record, under its own name."""
    run("""
ot.configure("parent", config=CONFIG)
pid = os.fork()
if pid == 0:
    ot.configure("child", config={**CONFIG, "ring.slots": 64})
    keep("child")
    with ot.probe("work"):
        pass
    sys.exit(0)
reap(pid)
""")
    child = left("child")
    assert '"child"' in child.info()["resource"]
    assert child.info()["rings"][0]["capacity"] == 64
    assert [name for name, _ in spans(child)] == ["work"]
    assert remaining(tmp_path) == []


@pytest.mark.parametrize("call", ["ot.configure()", "ot.configure('parent', config=CONFIG)"])
def test_child_configures_as_the_parent(run: Run, left: Callable[[str], Any], call: str) -> None:
    """Configure in a child, as its parent had it, gives the child its segment at once."""
    run(f"""
ot.configure("parent", config=CONFIG)
pid = os.fork()
if pid == 0:
    {call}
    assert core.is_open()
    keep("child")
    sys.exit(0)
reap(pid)
""")
    assert '"parent"' in left("child").info()["resource"]


def test_child_shuts_down(run: Run) -> None:
    """Shutdown in a child ends its recording, before the first record or after, and leaves the parent's alone."""
    run("""
ot.configure("parent", config=CONFIG)
probe = ot.probe("work")
for records in (True, False):
    pid = os.fork()
    if pid == 0:
        if records:
            with probe:
                pass
        ot.shutdown()
        with probe:
            pass
        assert not core.is_open()
        sys.exit(0)
    reap(pid)
assert core.is_open() and os.path.exists(lifecycle._host.path)
""")


def test_fork_without_a_recorder(run: Run) -> None:
    """A process that is not configured forks as ever, and its child may configure."""
    run("""
pid = os.fork()
if pid == 0:
    with ot.probe("work"):
        pass
    assert not core.is_open()
    ot.configure("child", config=CONFIG)
    assert core.is_open()
    sys.exit(0)
reap(pid)
assert not core.is_open()
""")


def test_sigterm_in_a_child(run: Run, left: Callable[[str], Any], tmp_path: Path) -> None:
    """A child that is terminated writes its own open spans, and the parent goes on."""
    run("""
ot.configure("parent", config=CONFIG)
with ot.probe("outer"):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with ot.probe("work"):
            keep("child")
            os.write(write, b"x")
            time.sleep(60)
    os.read(read, 1)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM, status
assert ot.accounts()[1]["recorded"] == 1
""")
    child = left("child")
    ((name, state),) = spans(child)
    assert (name, state[9], state[8] & INTERRUPTED) == ("work", "SIGTERM", INTERRUPTED)
    assert child.info()["closed"]
    assert remaining(tmp_path) == []


def test_exporters_are_not_the_childs(run: Run) -> None:
    """A child does not flush, stop, or destroy its parent's exporters."""
    run("""
class Exports:
    def __init__(self):
        self.pid = os.getpid()
    def flush(self, deadline):
        assert os.getpid() == self.pid
        return True
    def stop(self, deadline):
        assert os.getpid() == self.pid
        tell("stopped", self.pid)
    def __del__(self):
        if os.getpid() != self.pid:
            tell("destroyed", os.getpid())
ot.configure("parent", config=CONFIG)
lifecycle._host.exports = Exports()
pid = os.fork()
if pid == 0:
    with ot.probe("work"):
        pass
    assert lifecycle._host.exports is None
    assert ot.flush()
    ot.shutdown()
    os._exit(0)
reap(pid)
ot.shutdown()
assert os.listdir(KEEP) == ["stopped"], os.listdir(KEEP)
""")


# ---- multiprocessing ------------------------------------------------------------------------------

MULTIPROCESSING = (
    START
    + """
import multiprocessing
def target(number, configures):
    if configures:
        ot.configure("child", config=CONFIG)
    for _ in range(number):
        with ot.probe("work").span(number=number):
            pass
    keep(f"child{number}")
    globals()["token"] = ot.probe("held").start()
if __name__ == "__main__":
    METHOD, CONFIGURED = sys.argv[1:]
    context = multiprocessing.get_context(METHOD)
    if CONFIGURED == "parent":
        ot.configure("parent", config=CONFIG)
    processes = [context.Process(target=target, args=(number, CONFIGURED == "child")) for number in (3, 5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0, process.exitcode
"""
)


@pytest.mark.parametrize(
    ("method", "configured"),
    [("fork", "parent"), ("fork", "child"), ("spawn", "child"), ("forkserver", "child")],  # only a fork inherits
)
def test_multiprocessing(
    run_python: Run, kept: Path, left: Callable[[str], Any], tmp_path: Path, method: str, configured: str
) -> None:
    """A child of multiprocessing is flushed at its end and its file removed, however it was started."""
    run_python(MULTIPROCESSING, method, configured, KEEP=str(kept))
    for number in (3, 5):
        child = left(f"child{number}")
        got = spans(child)
        assert [state[11] for name, state in got if name == "work"] == [{"number": number}] * number
        (held,) = [state for name, state in got if name == "held"]
        assert held[8] & INTERRUPTED
        assert child.info()["closed"]
        assert child.accounts()[1]["pending"] == 0
    assert remaining(tmp_path) == []


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_process_pool(run_python: Run, kept: Path, tmp_path: Path, method: str) -> None:
    """Workers of a pool record what they do, and leave no files behind."""
    run_python(
        START
        + """
import concurrent.futures, multiprocessing
def prepare():
    ot.configure("worker", config=CONFIG)
@ot.probe("task")
def task(number):
    return number * number, os.getpid(), ot.current_trace_id()
def count(_):
    time.sleep(0.05)
    return os.getpid(), ot.accounts()[1]["recorded"]
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context, initializer=prepare) as pool:
        results = list(pool.map(task, range(20)))
        assert [result[0] for result in results] == [number * number for number in range(20)]
        assert all(result[2] for result in results)
        tell("results", results)
""",
        method,
        KEEP=str(kept),
    )
    results = json.loads((kept / "results").read_text(encoding="utf-8"))
    assert len({trace for _, _, trace in results}) == 20
    assert remaining(tmp_path) == []


def test_subprocess_is_untouched(run: Run) -> None:
    """A program that is started with a pre-exec function is no recorder's child."""
    run(f"""
import subprocess
ot.configure("parent", config=CONFIG)
with ot.probe("work"):
    done = subprocess.run([{sys.executable!r}, "-c", "print(1)"], preexec_fn=lambda: None, capture_output=True)
assert done.stdout == b"1\\n"
assert os.path.exists(lifecycle._host.path)
assert ot.accounts()[1]["recorded"] == 1
""")
