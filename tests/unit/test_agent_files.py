"""The agent's lock, page and socket in a directory."""

from __future__ import annotations

import os
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_trading import _layout as at
from otel_trading.agent import door, files
from otel_trading.agent.asking import NoAgentError, ask
from otel_trading.errors import SegmentDirectoryError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def where(tmp_path: Path) -> str:
    """Give a directory of segments."""
    tmp_path.chmod(0o700)
    return str(tmp_path)


def test_one_agent_a_directory(where: str) -> None:
    """The lock is one process's, and free when it is let go."""
    assert not files.is_running(where)
    held = files.lock(where)
    assert held is not None
    assert files.lock(where) is None
    assert files.is_running(where)
    os.close(held)
    assert not files.is_running(where)


def test_a_directory_that_is_not_there_has_no_agent(where: str) -> None:
    """Nothing is made by asking."""
    assert not files.is_running(os.path.join(where, "none"))
    assert not os.path.exists(os.path.join(where, "none"))


@pytest.mark.parametrize("name", [files.LOCK, files.PAGE])
def test_planted_files_are_refused(where: str, name: str, tmp_path: Path) -> None:
    """A link, a pipe, and a file that others may write are not taken for ours."""
    path = os.path.join(where, name)
    target = tmp_path / "target"
    target.write_text("secret")
    make = files.Page if name == files.PAGE else files.lock
    os.symlink(target, path)
    with pytest.raises(SegmentDirectoryError):
        make(where)
    os.unlink(path)
    os.mkfifo(path, 0o600)
    with pytest.raises(SegmentDirectoryError):
        make(where)
    os.unlink(path)
    with open(path, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o666)
    with pytest.raises(SegmentDirectoryError):
        make(where)
    assert target.read_text() == "secret"


def test_the_page_tells_who_lives(where: str) -> None:
    """It is there before the first beat, and the next agent takes the same file over, the watchdog's words with it."""
    assert not files.words(where).alive
    page = files.Page(where)
    try:
        words = files.words(where)
        assert words.pid == os.getpid()
        assert words.alive
        assert words.state == at.AGENT_STARTING
        page.segments, page.mode = 3, at.MODE_STRESSED
        page.beat(at.AGENT_RUNNING)
        later = files.words(where)
        assert (later.segments, later.mode, later.state) == (3, at.MODE_STRESSED, at.AGENT_RUNNING)
        assert later.beat_ns >= words.beat_ns > 0
    finally:
        page.close()
    path = os.path.join(where, files.PAGE)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    inode = os.stat(path).st_ino
    with open(path, "r+b") as file:
        file.seek(at.OFF_AGENT_WATCHDOG_PID)
        file.write((77).to_bytes(8, "little"))
    files.Page(where).close()
    assert os.stat(path).st_ino == inode
    assert files.words(where).watchdog_pid == 77


def test_a_page_that_is_none_says_nothing(where: str) -> None:
    """Rubbish, and a page of another version, are as no page."""
    path = os.path.join(where, files.PAGE)
    for content in (b"", b"rubbish" * 100, at.AGENT_MAGIC.to_bytes(8, "little") + b"\xff" * 96):
        with open(path, "wb") as file:
            file.write(content)
        assert files.words(where).pid == 0


class Served:
    """A door, and a loop for it in a thread."""

    def __init__(self, where: str) -> None:
        """Answer each request with itself."""
        import selectors

        self.selector = selectors.DefaultSelector()
        self.requests: list[dict[str, Any]] = []
        self.stopping = False
        self.door = door.Door(where, self._answer, self._listen, self._forget)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _answer(self, request: dict[str, Any], reply: Any) -> None:
        self.requests.append(request)
        reply({"you": request, "long": "x" * int(request.get("bytes", 0))})

    def _listen(self, fd: int, called: Any, *, write: bool = False) -> None:
        events = 2 if write else 1
        try:
            self.selector.register(fd, events, called)
        except KeyError:
            self.selector.modify(fd, events, called)

    def _forget(self, fd: int) -> None:
        self.selector.unregister(fd)

    def _run(self) -> None:
        import time

        while not self.stopping:
            for key, _ in self.selector.select(0.01):
                key.data()
            self.door.expire(time.monotonic())

    def close(self) -> None:
        """End."""
        self.stopping = True
        self.thread.join()
        self.door.close()
        self.selector.close()


@pytest.fixture
def served(where: str) -> Any:
    """Give a door that is open."""
    made = Served(where)
    yield made
    made.close()
    assert not os.path.exists(os.path.join(where, files.SOCKET))


@pytest.mark.usefixtures("served")
def test_a_request_and_its_answer(where: str) -> None:
    """What is asked is answered, answers of megabytes too."""
    assert stat.S_IMODE(os.stat(os.path.join(where, files.SOCKET)).st_mode) == 0o600
    assert ask(where, {"ask": "status"})["you"] == {"ask": "status"}
    assert len(ask(where, {"bytes": 3_000_000})["long"]) == 3_000_000


def test_a_directory_with_a_long_path(where: str) -> None:
    """A socket's address has room for some 100 characters, a path has thousands."""
    deep = os.path.join(where, *["d" * 60] * 5)
    os.makedirs(deep, mode=0o700)
    made = Served(deep)
    try:
        assert ask(deep, {"ask": "status"})["you"] == {"ask": "status"}
    finally:
        made.close()


@pytest.mark.usefixtures("served")
def test_a_client_that_sends_rubbish_or_nothing_harms_nobody(where: str) -> None:
    """It is cut off, and others are answered meanwhile."""
    silent = [_connected(where) for _ in range(5)]
    rubbish = _connected(where)
    rubbish.sendall(b"\0\xff nonsense\n")
    rubbish.settimeout(5.0)
    assert rubbish.recv(10) == b""
    endless = _connected(where)
    endless.settimeout(5.0)
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        _send_without_end(endless)
    assert ask(where, {"ask": "status"})["you"] == {"ask": "status"}
    for one in silent:
        one.settimeout(10.0)
        assert one.recv(10) == b""
        one.close()
    rubbish.close()
    endless.close()


def _send_without_end(connection: socket.socket) -> None:
    for _ in range(10_000):
        connection.sendall(b"x" * 4096)


def _connected(where: str) -> socket.socket:
    name, fd = door.address(where)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.connect(name)
    os.close(fd)
    return found


@pytest.mark.usefixtures("served")
def test_many_clients_are_bounded(where: str) -> None:
    """Beyond so many at once they are closed unanswered."""
    found = [_connected(where) for _ in range(60)]
    closed = 0
    for one in found:
        one.settimeout(0.2)
        try:
            closed += one.recv(1) == b""
        except TimeoutError:
            continue
    assert closed >= 20
    for one in found:
        one.close()


def test_no_agent_is_told_with_what_to_do(where: str) -> None:
    """A socket that is not there, and one that nobody listens at."""
    with pytest.raises(NoAgentError, match="otel-trading agent"):
        ask(where, {"ask": "status"})
    made = Served(where)
    made.stopping = True
    made.thread.join()
    try:
        with pytest.raises(NoAgentError, match="does not answer"):
            ask(where, {"ask": "status"}, 0.1)
    finally:
        made.close()


def test_another_file_in_the_place_of_the_socket_is_left_alone(where: str) -> None:
    """Only a socket is removed for ours."""
    path = os.path.join(where, files.SOCKET)
    with open(path, "w", encoding="ascii") as file:
        file.write("mine")
    with pytest.raises(SegmentDirectoryError, match=r"agent\.sock"):
        door.listen(where)
    with open(path, encoding="ascii") as file:
        assert file.read() == "mine"
