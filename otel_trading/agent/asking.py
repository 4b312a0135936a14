"""Asking the agent of a directory: for programs, and for the command line."""

from __future__ import annotations

import os
import socket
import time

from otel_trading.errors import OtelTradingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_MOST = 64 << 20  # bytes of an answer


class NoAgentError(OtelTradingError):
    """There is no agent, or it does not answer."""


def ask(where: str, request: Mapping[str, Any], timeout: float = 5.0) -> dict[str, Any]:
    """Ask the agent of a directory of segments; its answer.

    Raises NoAgentError where there is none, or no answer within ``timeout`` seconds.
    """
    import json

    from otel_trading.agent.door import address

    deadline = time.monotonic() + timeout
    answer = bytearray()
    try:
        name, fd = address(where)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(max(0.01, timeout))
                connection.connect(name)
                connection.sendall(json.dumps(dict(request)).encode() + b"\n")
                while not answer.endswith(b"\n"):
                    connection.settimeout(max(0.001, deadline - time.monotonic()))
                    piece = connection.recv(1 << 16)
                    if not piece or len(answer) > _MOST:
                        break
                    answer += piece
        finally:
            os.close(fd)
    except TimeoutError:
        raise NoAgentError(
            f"the agent of {where} does not answer within {timeout:g} s; see: otel-trading agent --status"
        ) from None
    except OSError as error:
        raise NoAgentError(
            f"there is no agent for {where} ({error.strerror or error}); start one: otel-trading agent"
        ) from error
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NoAgentError(f"the agent of {where} ended while it was asked")
    return found
