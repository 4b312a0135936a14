"""Those who are connected to the agent, in its loop: each has a deadline, and is closed when it has passed."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class Client(Protocol):
    """What is known of one."""

    deadline: float
    """When it is closed, by ``time.monotonic``."""

    def close(self) -> None:
        """Close the connection."""


C = TypeVar("C", bound=Client)


class Clients(Generic[C]):
    """A listening socket and who came by it.

    ``listen_to(fd, called, write=False)`` and ``forget(fd)`` are the loop's.
    """

    def __init__(
        self,
        listening: socket.socket,
        accept: Callable[[], None],
        listen_to: Callable[..., None],
        forget: Callable[[int], None],
    ) -> None:
        """Have ``accept`` called when somebody comes."""
        self.listen_to = listen_to
        self._forget = forget
        self._socket = listening
        self._there: dict[int, C] = {}
        listen_to(listening.fileno(), accept)

    def __len__(self) -> int:
        """Tell how many there are."""
        return len(self._there)

    def get(self, fd: int) -> C | None:
        """Give one by its file descriptor; None where it is gone."""
        return self._there.get(fd)

    def add(self, fd: int, client: C, ready: Callable[[int], None]) -> None:
        """Take one up; ``ready`` is called with ``fd`` when it has something to say."""
        self._there[fd] = client
        self.listen_to(fd, lambda: ready(fd))

    def drop(self, fd: int) -> None:
        """Close the connection of one, if it is there."""
        client = self._there.pop(fd, None)
        if client is not None:
            self._forget(fd)
            client.close()

    def expire(self, now: float) -> None:
        """Close the connections of those who take too long."""
        for fd in [fd for fd, client in self._there.items() if client.deadline <= now]:
            self.drop(fd)

    def close(self) -> None:
        """Close all of them, and listen no longer."""
        for fd in list(self._there):
            self.drop(fd)
        self._forget(self._socket.fileno())
        self._socket.close()
