"""Trace context between real processes: a Redis stream, shared memory, a socket, pools of threads and processes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing import shared_memory
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import child_environment

import otel_trading as ot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

REMOTE_PARENT = 1

SEND = ot.probe("propagation.send", kind="producer")
RECEIVE = ot.probe("propagation.receive", kind="consumer")

# What each of the other processes ends with: the ids of its span, and whose child it is.
TELL = """
import json
print(json.dumps({"trace_id": span.trace_id, "parent_id": parent.span_id, "pid": os.getpid()}), flush=True)
ot.shutdown()
"""


def start(code: str, directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start another process that records."""
    prologue = "import os, sys\nimport otel_trading as ot\not.configure('other')\nprobe = ot.probe('other.handle')\n"
    script = directory / "other.py"
    script.write_text(prologue + code + TELL, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script), *arguments],
        env=child_environment(directory),
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict[str, int]:
    """Wait for the end of another process and take what it told."""
    with process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    told: dict[str, int] = json.loads(out)
    return told


# ---- Redis ----------------------------------------------------------------------------------------


@pytest.fixture
def redis_socket(until: Callable[..., None]) -> Iterator[str]:
    """Give the path of a redis-server's socket."""
    redis = pytest.importorskip("redis", reason="the Python package redis is missing")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is missing")
    directory = tempfile.mkdtemp(prefix="redis-")  # a socket's path must be short
    path = str(Path(directory) / "redis.sock")
    options = ["--port", "0", "--unixsocket", path, "--dir", directory, "--save", "", "--appendonly", "no"]
    with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as server:
        try:

            def answers() -> bool:
                assert server.poll() is None, "redis-server has ended"
                with redis.Redis(unix_socket_path=path) as client:
                    try:
                        return bool(client.ping())
                    except redis.ConnectionError:
                        return False

            until(answers)
            yield path
        finally:
            server.terminate()
            server.wait(30)
            shutil.rmtree(directory, ignore_errors=True)


CONSUMER = """
import redis
with redis.Redis(unix_socket_path=sys.argv[1]) as client:
    ((_, entries),) = client.xread({"signals": "0"}, count=1, block=20000)
fields = entries[0][1]
assert fields[b"symbol"] == b"BTCUSDT"
parent = ot.extract(fields)
with parent, probe as span:
    pass
"""


def test_a_redis_stream(recorder: Recorder, tmp_path: Path, redis_socket: str) -> None:
    """The fields of a stream's entry carry the context; the reader has them as bytes."""
    import redis

    with redis.Redis(unix_socket_path=redis_socket) as client, SEND as sent:
        client.xadd("signals", ot.inject({"symbol": "BTCUSDT", "strength": "0.7"}))
    told = answer(start(CONSUMER, tmp_path, redis_socket))
    assert (told["trace_id"], told["parent_id"]) == (sent.trace_id, sent.span_id)
    assert recorder.faults == 0


# ---- shared memory --------------------------------------------------------------------------------

SHARED = """
from multiprocessing import resource_tracker, shared_memory
block = shared_memory.SharedMemory(sys.argv[1])
resource_tracker.unregister(block._name, "shared_memory")  # it is the parent's to remove
parent = ot.extract(block.buf)
with parent, probe as span:
    ot.inject(block.buf[32:])
block.close()
"""


def test_shared_memory(recorder: Recorder, tmp_path: Path) -> None:
    """Two processes pass the binary form to and fro in a block of shared memory."""
    block = shared_memory.SharedMemory(create=True, size=64)
    try:
        buffer = block.buf
        assert buffer is not None
        with SEND as sent:
            ot.inject(buffer)
        told = answer(start(SHARED, tmp_path, block.name))
        assert (told["trace_id"], told["parent_id"]) == (sent.trace_id, sent.span_id)
        with ot.extract(buffer[32:]), RECEIVE:
            pass
        del buffer
    finally:
        block.close()
        block.unlink()
    record = recorder.only("propagation.receive")
    assert record.trace_id == sent.trace_id
    assert record.parent_id not in (0, sent.span_id)
    assert record.flags & REMOTE_PARENT


# ---- JSON over a socket ---------------------------------------------------------------------------

CLIENT = """
import json, socket
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection, connection.makefile("rw") as file:
    message = json.loads(file.readline())
    parent = ot.extract(message)
    with parent, probe as span:
        file.write(json.dumps(ot.inject({"type": "ack"})) + "\\n")
        file.flush()
"""


def test_json_over_a_socket(recorder: Recorder, tmp_path: Path) -> None:
    """A field of a JSON message carries the context there and back."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = start(CLIENT, tmp_path, str(server.getsockname()[1]))
        server.settimeout(60)
        connection, _ = server.accept()
        with connection, connection.makefile("rw") as file:
            with SEND as sent:
                file.write(json.dumps(ot.inject({"type": "order"})) + "\n")
                file.flush()
            with RECEIVE.span(ot.extract(json.loads(file.readline()))):
                pass
    told = answer(process)
    assert (told["trace_id"], told["parent_id"]) == (sent.trace_id, sent.span_id)
    record = recorder.only("propagation.receive")
    assert record.trace_id == sent.trace_id
    assert record.parent_id not in (0, sent.span_id)


# ---- executors ------------------------------------------------------------------------------------

POOL = """
import json, os, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import otel_trading as ot

probe = ot.probe("pool.work")

def work(number):
    with probe as span:
        return number, os.getpid(), f"{span.trace_id:x}", ot.current_trace_id()

if __name__ == "__main__":
    ot.configure("pool")
    with ProcessPoolExecutor(
        2, mp_context=get_context(sys.argv[1]), initializer=ot.configure, initargs=("pool",)
    ) as pool:
        with ot.probe("pool.outer") as outer:
            carried = ot.carry(work)
        found = [future.result(60) for future in [pool.submit(carried, n) for n in range(4)]]
        plain = pool.submit(work, 0).result(60)
    assert [number for number, *_ in found] == [0, 1, 2, 3]
    assert os.getpid() not in {pid for _, pid, *_ in found}
    assert {trace for *_, trace, _ in found} == {f"{outer.trace_id:x}"}, found
    assert plain[2] != f"{outer.trace_id:x}"
    ot.shutdown()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes(run_python: Callable[..., Any], method: str) -> None:
    """A carried function runs in the caller's trace in another process, however that was started."""
    run_python(POOL, method)


def test_a_pool_of_threads_and_of_tasks(run_python: Callable[..., Any]) -> None:
    """Tasks and asyncio's own helpers need nothing; an executor that is used directly needs ``carry``."""
    run_python(
        "import asyncio\n"
        "import otel_trading as ot\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "ot.configure('bot')\n"
        "outer = ot.probe('outer')\n"
        "async def task():\n"
        "    return ot.current_trace_id()\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    with outer as span, ThreadPoolExecutor(1) as pool:\n"
        "        found = [\n"
        "            await asyncio.create_task(task()),\n"
        "            await asyncio.to_thread(ot.current_trace_id),\n"
        "            await loop.run_in_executor(pool, ot.carry(ot.current_trace_id)),\n"
        "        ]\n"
        "        assert found == [f'{span.trace_id:032x}'] * 3, found\n"
        "        assert await loop.run_in_executor(pool, ot.current_trace_id) is None\n"
        "asyncio.run(main())\n"
        "ot.shutdown()\n"
    )


def test_a_consumer_thread(recorder: Recorder) -> None:
    """A queue between threads carries the context with each message, as any bus does."""
    from queue import Queue

    messages: Queue[dict[str, str] | None] = Queue()

    def consume() -> None:
        while (message := messages.get()) is not None:
            with ot.extract(message), RECEIVE:
                pass

    thread = threading.Thread(target=consume)
    thread.start()
    sent = []
    for _ in range(3):
        with SEND as span:
            messages.put(ot.inject({}))
            sent.append((span.trace_id, span.span_id))
    messages.put(None)
    thread.join()
    assert [(r.trace_id, r.parent_id) for r in recorder.named("propagation.receive")] == sent
