"""The agent's socket: a request a connection, one line of JSON each way, from processes of the same user."""

from __future__ import annotations

import os
import socket
import stat
import struct
import time

from otel_trading.agent.clients import Clients
from otel_trading.agent.files import SOCKET
from otel_trading.agent.lines import GoneError, Lines
from otel_trading.errors import SegmentDirectoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MOST_REQUEST = 4096
"""Bytes of a request."""
_MOST_ANSWER = 64 << 20
_MOST_CLIENTS = 32
_REQUEST_SECONDS = 3.0  # until the request is there
_ANSWER_SECONDS = 30.0  # until it is answered, and the answer is read
_CREDENTIALS = struct.Struct("3i")


def address(where: str) -> tuple[str, int]:
    """Give the socket's address, however long the directory's path is, and a file descriptor to be closed after use.

    Raises OSError.
    """
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if os.path.isdir(f"/proc/self/fd/{fd}"):
        return f"/proc/self/fd/{fd}/{SOCKET}", fd
    return os.path.join(where, SOCKET), fd


def listen(where: str) -> socket.socket:
    """Listen at the socket of a directory of which we are the agent, with mode 0600.  Raises SegmentDirectoryError."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.setblocking(False)
    path = os.path.join(where, SOCKET)
    before = os.umask(0o177)
    try:
        _remove(path)
        name, fd = address(where)
        try:
            found.bind(name)
        finally:
            os.close(fd)
        found.listen(_MOST_CLIENTS)
    except OSError as error:
        found.close()
        raise SegmentDirectoryError(path, f"the agent can not listen there ({error.strerror or error})") from error
    finally:
        os.umask(before)
    return found


def _remove(path: str) -> None:
    """Remove the socket of the agent before us; never anything else."""
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return


def _is_ours(client: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the directory lets nobody else in
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(credentials)[1] in {os.geteuid(), 0}


class _Client:
    def __init__(self, connected: socket.socket) -> None:
        self.lines = Lines(connected, MOST_REQUEST, _MOST_ANSWER)
        self.deadline = time.monotonic() + _REQUEST_SECONDS
        self.asked = False
        self.answered = False

    def close(self) -> None:
        """Close the connection."""
        self.lines.close()


class Door:
    """Takes requests, and has ``answer(request, reply)`` called with each; ``reply`` takes the answer, at any time."""

    def __init__(
        self,
        where: str,
        answer: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], None],
        listen_to: Callable[..., None],
        forget: Callable[[int], None],
    ) -> None:
        """``listen_to(fd, called, write=False)`` and ``forget(fd)`` are the loop's.  Raises SegmentDirectoryError."""
        self._where = where
        self._answer = answer
        self._socket = listen(where)
        self._clients: Clients[_Client] = Clients(self._socket, self._accept, listen_to, forget)
        self.expire = self._clients.expire

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:  # gone again, or no file descriptor left
            return
        if len(self._clients) >= _MOST_CLIENTS or not _is_ours(client):
            client.close()
            return
        made = _Client(client)
        self._clients.add(made.lines.fileno(), made, self._ready)

    def _ready(self, fd: int) -> None:
        client = self._clients.get(fd)
        if client is None:
            return
        try:
            client.lines.flush()
            requests = client.lines.read()
            if client.asked:
                if client.answered and not client.lines.waiting:
                    self._clients.drop(fd)
                return
            if requests:
                client.asked = True
                client.deadline = time.monotonic() + _ANSWER_SECONDS
                self._answer(requests[0], lambda answer: self._reply(fd, client, answer))
        except GoneError:
            self._clients.drop(fd)

    def _reply(self, fd: int, client: _Client, answer: dict[str, Any]) -> None:
        if self._clients.get(fd) is not client or client.answered:
            return
        client.answered = True
        try:
            client.lines.send(answer)
        except GoneError:
            self._clients.drop(fd)
            return
        if client.lines.waiting:
            self._clients.listen_to(fd, lambda: self._ready(fd), write=True)
        else:
            self._clients.drop(fd)

    def close(self) -> None:
        """Listen no longer, and remove the socket."""
        self._clients.close()
        try:
            _remove(os.path.join(self._where, SOCKET))
        except OSError:
            return
