"""A bad connection: what comes in goes out late, and every so often a segment is lost and has to be sent again.

Run as ``python -m otel_trading.impact.relay PARENT SECONDS PORT``: relays a port of its own, which it prints, to PORT
of the loopback address.  ``{"loss": 0.05, "delay": 0.1}`` on its standard input makes it bad, each way; zeros make it
good again.  A lost segment holds up all that is behind it until TCP would have sent it again.  Bounded as
``pressure`` is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from typing import TYPE_CHECKING

from otel_trading.impact.bounds import bound

if TYPE_CHECKING:
    from collections.abc import Sequence

SEGMENT = 1460
"""Bytes that are lost together."""
RETRANSMISSION = 0.2
"""Seconds after which TCP sends again at the earliest, doubled each time; the round trip comes on top."""
_MOST_IN_FLIGHT = 1 << 20


class Relay:
    """The state of the connection, and the bytes that went through it."""

    def __init__(self, port: int, seed: int = 1) -> None:
        """Begin with a good one to ``port``."""
        self.port = port
        self.loss = 0.0
        self.delay = 0.0
        self.lost = 0
        self.bytes = 0
        self._draw = random.Random(seed)  # noqa: S311  a bad line, not a secret

    def held_up(self, size: int) -> float:
        """Seconds that so many bytes take from one end to the other."""
        delay = self.delay
        for _ in range(0, size, SEGMENT):
            wait = RETRANSMISSION + 2.0 * self.delay
            while self.loss and self._draw.random() < self.loss:
                self.lost += 1
                delay += wait
                wait *= 2.0
        return delay

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side ends it."""
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(self._one_way(reader, back), self._one_way(there, writer))
        finally:
            back.close()
            writer.close()

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_IN_FLIGHT // SEGMENT)

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - clock()))
                if not data:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        sending = asyncio.ensure_future(deliver())
        last = 0.0
        with contextlib.suppress(OSError):
            while True:
                data = await reader.read(SEGMENT)
                self.bytes += len(data)
                last = max(last, clock() + self.held_up(len(data)))  # in order: TCP gives nothing before it
                await queue.put((last, data))
                if not data:
                    break
        with contextlib.suppress(OSError):
            await sending

    async def run(self) -> None:
        """Serve until standard input ends."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        _say(port=server.sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            told = json.loads(line)
            self.loss, self.delay = float(told["loss"]), float(told["delay"])
            _say(lost=self.lost, bytes=self.bytes)


def _say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Relay."""
    parent, seconds, port = arguments
    bound(int(parent), float(seconds))
    asyncio.run(Relay(int(port)).run())


if __name__ == "__main__":
    main(sys.argv[1:])
