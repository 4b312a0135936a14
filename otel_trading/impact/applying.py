"""The five kinds of pressure, put on and taken off.

What takes CPU, memory, or packets is a process of its own, bounded in time and memory; it ends with this one, however
that ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from otel_trading.impact.attendants import Attendant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from otel_trading.impact.subject import Subject

_FILLING = 120.0
"""Seconds that taking memory may take: a machine with much of it is filled slowly."""
_NO_LIMIT = 1 << 62


class Begun(NamedTuple):
    """A pressure that was put on."""

    unix_ns: int
    reached: bool
    """Whether it is as strong as it should be."""
    told: dict[str, Any]
    """What else there is to say of it."""


class Applied(ABC):
    """A kind of pressure; usable as ``with``, and taken off at its end."""

    def __init__(self) -> None:
        """Prepare it; ``begin`` puts it on."""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Applied:  # noqa: PYI034  Self is younger than Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def endpoint(self) -> str | None:
        """Where the program is to send to, where that is not the receiver itself."""
        return None

    @abstractmethod
    def begin(self, subject: Subject) -> Begun:
        """Put it on."""

    @abstractmethod
    def end(self, subject: Subject) -> int:
        """Take it off; gives the Unix time in ns."""


class Cpu(Applied):
    """Every processor that we may use busy for a share of the time, beside what the program takes."""

    def __init__(self, share: float, seconds: float) -> None:
        """Start one process a processor; at most ``seconds`` from now they end."""
        super().__init__()
        self._burners = [
            self._stack.enter_context(Attendant("pressure", seconds, "cpu", str(share))) for _ in range(_processors())
        ]
        for burner in self._burners:
            burner.hear("ready")

    def begin(self, subject: Subject) -> Begun:  # noqa: ARG002  the others need it
        """Have all of them work; it begins when the last one does."""
        for burner in self._burners:
            burner.tell("go")
        begun = max(burner.hear("applied_ns")["applied_ns"] for burner in self._burners)
        return Begun(begun, True, {"processes": len(self._burners)})

    def end(self, subject: Subject) -> int:  # noqa: ARG002
        """Have all of them rest."""
        for burner in self._burners:
            burner.tell("rest")
        return max(int(burner.hear("released_ns")["released_ns"]) for burner in self._burners)


class Memory(Applied):
    """Memory in use up to a level of what the machine, or a control group, has; never beyond."""

    def __init__(self, level: float, limit: int | None, seconds: float, group: Path | None) -> None:
        """``limit``: bytes that may be taken at most; ``group``: where the program is."""
        super().__init__()
        self._group = group
        arguments = ("memory", str(level), str(_NO_LIMIT if limit is None else limit), str(group or ""))
        self._taker = self._stack.enter_context(Attendant("pressure", seconds, *arguments))
        self._taker.hear("ready")
        if group is not None:
            from otel_trading.impact import groups

            groups.join(group, self._taker.pid)

    def begin(self, subject: Subject) -> Begun:  # noqa: ARG002
        """Take memory; begun is when the level is reached, and the engine may have seen it coming."""
        self._taker.tell("go")
        said = self._taker.hear("applied_ns", _FILLING)
        return Begun(
            int(said["applied_ns"]),
            bool(said["reached"]),
            {"load": said["load"], "bytes": said["bytes"], "in_a_group": self._group is not None},
        )

    def end(self, subject: Subject) -> int:  # noqa: ARG002
        """Give all of it back."""
        self._taker.tell("rest")
        return int(self._taker.hear("released_ns")["released_ns"])


class BadConnection(Applied):
    """A relay between the program and the receiver that delays, and stalls as lost segments do."""

    def __init__(self, loss: float, delay: float, endpoint: str, seconds: float) -> None:
        """``loss``: share of the segments; ``delay``: seconds each way."""
        super().__init__()
        self._bad = {"loss": loss, "delay": delay}
        self._relay = self._stack.enter_context(Attendant("relay", seconds, str(urlsplit(endpoint).port)))
        self._port = self._relay.hear("port")["port"]

    @property
    def endpoint(self) -> str | None:
        """The relay's."""
        return f"http://127.0.0.1:{self._port}"

    def begin(self, subject: Subject) -> Begun:  # noqa: ARG002
        """Make it bad."""
        self._relay.tell(self._bad)
        said = self._relay.hear("lost")
        return Begun(time.time_ns(), True, {**self._bad, "bytes_before": said["bytes"]})

    def end(self, subject: Subject) -> int:  # noqa: ARG002
        """Make it good again."""
        self._relay.tell({"loss": 0.0, "delay": 0.0})
        self._relay.hear("lost")
        return time.time_ns()


class OtherLoad(Applied):
    """The program's own load, changed."""

    def __init__(self, load: Mapping[str, float], usual: Mapping[str, float]) -> None:
        """``load`` while it is on, ``usual`` afterwards; as ``Subject.set`` takes them."""
        super().__init__()
        self._load, self._usual = load, usual

    def begin(self, subject: Subject) -> Begun:
        """Change it."""
        subject.set(self._load)
        return Begun(time.time_ns(), True, dict(self._load))

    def end(self, subject: Subject) -> int:
        """As it was."""
        subject.set(self._usual)
        return time.time_ns()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
