"""Orders whose acks and fills come to another process than the one that sent them, or to its successor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Segment, child_environment

import otel_trading as ot
from otel_trading import orders, segment
from otel_trading._backend import core
from otel_trading.segment import neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

SENT, ACKED, FILLED, CANCELLED = 1, 2, 4, 5
REMOTE_PARENT = 1

# Sends the orders that it is told to, says their trace, and then does as it is told: stays, dies, or ends orderly.
SENDER = """
import json, os, sys
import otel_trading as ot

ot.configure("sender", config={"ring.slots": 1024, "ring.thread_slots": 256, "names.max": 2048})
decide = ot.probe("decide")
handles = {}
with decide as span:
    for order_id in sys.argv[1:]:
        handles[order_id] = ot.order(order_id, symbol="BTCUSDT", side="buy", qty=1.0, price=100.0)
print(json.dumps([f"{span.trace_id:x}", f"{span.span_id:x}"]), flush=True)
for line in sys.stdin:
    what, _, order_id = line.strip().partition(" ")
    if what == "crash":
        os.kill(os.getpid(), 9)
    elif what == "end":
        break
    else:
        getattr(handles[order_id], what)()
        print("done", flush=True)
ot.shutdown()
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Look into the directory anew in each test."""
    yield
    orders._shared.open.clear()
    if orders._shared.neighbours is not None:
        orders._shared.neighbours.close()


class Sender:
    """A process that sends orders."""

    def __init__(self, directory: Path, *order_ids: str) -> None:
        """Start it, and wait until the orders are sent."""
        script = directory / "sender.py"
        script.write_text(SENDER, encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), *order_ids],
            env=child_environment(directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        trace_id, span_id = json.loads(self.process.stdout.readline())
        self.trace_id, self.span_id = int(trace_id, 16), int(span_id, 16)

    def tell(self, what: str) -> None:
        """Have it do something to one of its orders, and wait until that is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self, how: str) -> None:
        """Have it end."""
        self.process.communicate(how + "\n", timeout=60)
        assert self.process.returncode == (-signal.SIGKILL if how == "crash" else 0)


def segments(directory: Path) -> list[Path]:
    """List the segments' files."""
    return list(directory.glob("*.seg"))


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Callable[..., Sender]]:
    """Give a function that starts a process which sends orders."""
    started: list[Sender] = []

    def start(*order_ids: str) -> Sender:
        started.append(Sender(tmp_path, *order_ids))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def joined(recorder: Recorder, name: str, sender: Sender) -> None:
    """Demand that the one new span of a name is a child of the sender's decision."""
    record = recorder.only(name)
    assert (record.trace_id, record.parent_id) == (sender.trace_id, sender.span_id)
    assert record.flags & REMOTE_PARENT
    assert record.end > record.start
    assert record.attributes["trading.symbol"] == "BTCUSDT"


@pytest.mark.parametrize("how", ["stay", "crash", "end"])
def test_an_event_joins_the_trace_that_sent_the_order(
    sender: Callable[..., Sender], make_recorder: Callable[[], Recorder], how: str
) -> None:
    """Whether the sender lives, was killed, or was shut down: its orders' acks and fills here are in its trace."""
    sending = sender("o-1", "o-2")
    if how != "stay":
        sending.end(how)
    recorder = make_recorder()
    order = ot.order("o-1")
    assert (order.known, order.state) == (True, "sent")
    order.ack()
    joined(recorder, "order.ack", sending)
    ot.order("o-1").fill(100.0, 1.0)
    joined(recorder, "order.fill", sending)
    assert order.state == "filled"
    assert recorder.faults == 0


def test_an_order_that_is_sent_while_we_look_on(
    sender: Callable[..., Sender], make_recorder: Callable[[], Recorder]
) -> None:
    """A segment is attached once: what its process sends later is found in it without looking for files again."""
    recorder = make_recorder()
    sending = sender("o-1", "o-2")
    assert ot.order("o-1").known
    sending.tell("ack o-2")
    assert ot.order("o-2").state == "acked"
    assert recorder.faults == 0


def test_the_state_of_a_living_process_is_its_own(
    sender: Callable[..., Sender], make_recorder: Callable[[], Recorder]
) -> None:
    """Events here do not go into another process's table, nor its orders into ours."""
    recorder = make_recorder()
    sending = sender("o-1")
    ot.order("o-1").ack()
    (found,) = [found for found in segment.segments(recorder.directory) if found.service == "sender"]
    theirs = Segment(Path(found.path))
    state = theirs.reader.order("o-1")
    assert state is not None
    assert state[3] == SENT
    assert core.order_get("o-1") is None
    assert ot.order("o-1").state == "acked"
    theirs.close()
    sending.end("end")
    assert recorder.faults == 0


def test_an_orderly_end_without_open_orders(sender: Callable[..., Sender], tmp_path: Path) -> None:
    """Nothing is left behind."""
    sending = sender("o-1")
    sending.tell("cancel o-1")
    sending.end("end")
    assert segments(tmp_path) == []


def test_an_orderly_end_with_open_orders(sender: Callable[..., Sender], tmp_path: Path) -> None:
    """The file stays, marked closed, with hardly more in it than the orders; it is private, and can be read."""
    sending = sender("o-1", "o-2")
    sending.tell("cancel o-2")
    sending.end("end")
    (found,) = segment.segments(tmp_path)
    assert (found.closed, found.alive, found.service) == (True, False, "sender")
    status = Path(found.path).stat()
    assert status.st_mode & 0o777 == 0o600
    left = Segment(Path(found.path))
    assert [order_id for order_id, state in left.reader.orders() if state[3] == SENT] == ["o-1"]
    assert left.reader.order("o-1") is not None
    assert left.records() == []
    left.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux punches holes into files")
def test_a_closed_segment_takes_little_memory(sender: Callable[..., Sender], tmp_path: Path) -> None:
    """The rings' pages are given back."""
    sending = sender("o-1")
    (path,) = segments(tmp_path)
    before = path.stat().st_blocks
    sending.end("end")
    assert path.stat().st_blocks < before / 2
    assert neighbours.has_open_orders(str(path))


def test_a_closed_segment_goes_with_its_last_order(
    sender: Callable[..., Sender], tmp_path: Path, make_recorder: Callable[[], Recorder]
) -> None:
    """The ends of its orders are noted in it, wherever they come to, and then it is removed."""
    sending = sender("o-1", "o-2", "o-3")
    sending.end("end")
    (path,) = segments(tmp_path)
    recorder = make_recorder()
    ot.order("o-1").fill(100.0, 1.0)
    assert path.exists()
    left = Segment(path)
    states = {order_id: state[3] for order_id, state in left.reader.orders()}
    assert states == {"o-1": FILLED, "o-2": SENT, "o-3": SENT}
    left.close()
    order = ot.order("o-2")
    order.ack()
    order.cancel()
    assert path.exists()
    ot.order("o-3").reject("too late")
    assert not path.exists()
    state = core.order_get("o-2")  # which we have taken over
    assert state is not None
    assert state[3] == CANCELLED
    assert recorder.faults == 0


def test_a_crashed_segment_stays(
    sender: Callable[..., Sender], tmp_path: Path, make_recorder: Callable[[], Recorder]
) -> None:
    """What was recorded before a crash is for whoever looks into the crash, whatever became of the orders."""
    sending = sender("o-1")
    (path,) = segments(tmp_path)
    sending.end("crash")
    recorder = make_recorder()
    ot.order("o-1").cancel()
    assert path.exists()
    assert not neighbours.has_open_orders(str(path))
    assert recorder.faults == 0


def test_an_order_that_went_through_two_ends(
    sender: Callable[..., Sender], tmp_path: Path, make_recorder: Callable[[], Recorder], run_python: Callable[..., Any]
) -> None:
    """The successor that acked an order takes it over, so its own successor finds it with what it knew."""
    sending = sender("o-1")
    sending.end("end")
    run_python("import otel_trading as ot\not.configure('second')\not.order('o-1').ack()\not.shutdown()\n")
    assert len(segments(tmp_path)) == 2
    recorder = make_recorder()
    order = ot.order("o-1")
    assert order.state == "acked"
    order.fill(100.0, 1.0)
    joined(recorder, "order.fill", sending)
    assert recorder.faults == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_sees_the_parents_orders(run_python: Callable[..., Any]) -> None:
    """Orders from before the fork and from after it, in both directions of time, join the parent's trace."""
    done = run_python(
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import otel_trading as ot\n"
        "from otel_trading import orders\n"
        "ot.configure('bot')\n"
        "decide = ot.probe('decide')\n"
        "read, write = os.pipe()\n"
        "with decide as span:\n"
        "    ot.order('before', symbol='A', qty=1)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.read(read, 1)\n"
        "    from otel_trading._backend import core\n"
        "    found = [ot.order(name) for name in ('before', 'after')]\n"
        "    orders._shared.open.clear()\n"
        "    found.append(ot.order('before'))\n"
        "    for order in found:\n"
        "        order.ack()\n"
        "    same = [order.known and order._parent.trace_id == span.trace_id for order in found]\n"
        "    os._exit(0 if all(same) else 1)\n"
        "with decide.span(span):\n"
        "    ot.order('after', symbol='A', qty=1)\n"
        "os.write(write, b'x')\n"
        "code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "ot.shutdown()\n"
        "sys.exit(code)\n"
    )
    assert done.returncode == 0
