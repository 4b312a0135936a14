"""JSON objects, one a line, over a socket that never blocks, in bounded memory."""

from __future__ import annotations

import json
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_AT_ONCE = 65_536  # bytes of one read


class GoneError(Exception):
    """The other end is gone, or says what can not be."""


class Lines:
    """One end of a conversation; the socket is made non-blocking, and is this object's from then on."""

    def __init__(self, connected: socket.socket, most_in: int, most_out: int) -> None:
        """``most_in``: bytes of the longest line that is read; ``most_out``: bytes that may wait to be sent."""
        connected.setblocking(False)
        self._socket = connected
        self._most_in = most_in
        self._most_out = most_out
        self._in = bytearray()
        self._out = bytearray()

    def fileno(self) -> int:
        """Give the socket's, for selectors."""
        return self._socket.fileno()

    @property
    def waiting(self) -> bool:
        """Whether something waits until the socket takes more."""
        return bool(self._out)

    def read(self) -> list[dict[str, Any]]:
        """Give the objects that have come.  Raises GoneError at the end, and for rubbish."""
        try:
            piece = self._socket.recv(_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise GoneError(str(error)) from error
        if not piece:
            raise GoneError("it has closed the connection")
        self._in += piece
        if b"\n" not in piece:
            if len(self._in) > self._most_in:
                raise GoneError("a line is too long")
            return []
        *lines, rest = self._in.split(b"\n")
        if max((len(rest), *map(len, lines))) > self._most_in:
            raise GoneError("a line is too long")
        self._in = bytearray(rest)
        return [_object(line) for line in lines]

    def send(self, message: Mapping[str, Any]) -> None:
        """Send an object, now or as soon as the socket takes it.  Raises GoneError, also where too much waits."""
        self._out += json.dumps(message, separators=(",", ":"), default=str).encode("utf-8", "replace") + b"\n"
        if len(self._out) > self._most_out:
            raise GoneError("it does not read what it is sent")
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it.  Raises GoneError."""
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise GoneError(str(error)) from error
            del self._out[:sent]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _object(line: bytes | bytearray) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GoneError("a line is no JSON") from error
    if not isinstance(found, dict):
        raise GoneError("a line is no JSON object")
    return found
