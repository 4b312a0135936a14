"""A segment as the agent sees it: what is kept of a process to judge its end, and hosts that do not come to theirs."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from otel_trading import config, segment
from otel_trading.agent import watched as watched_module
from otel_trading.agent.watched import Watched
from otel_trading.forensics import oom

if TYPE_CHECKING:
    from conftest import Recorder

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the agent needs Linux")


class Agent:
    """An agent that does nothing."""

    once = False

    def __init__(self, *, forensics: bool = False, timeout: float = 5.0) -> None:
        self.settings = config.resolve(config={"forensics.enabled": forensics, "shutdown.timeout": timeout})
        self.alerts: list[str] = []

    def listen(self, fd: int, called: object) -> None:
        """Listen to nothing."""

    def unlisten(self, fd: int) -> None:
        """Nor this."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def alert(self, *alert: object) -> None:
        """Keep its name."""
        self.alerts.append(str(alert[0]))


class Host:
    """A drain host that takes what it is told, and never ends by itself."""

    lines = SimpleNamespace(fileno=lambda: -1)
    pid = -1
    running = lean = killed = False
    leaves_by = None

    def __init__(self, *_: object, **__: object) -> None:
        self.began = 0.0

    @property
    def leaving(self) -> bool:
        """Whether it was told to leave."""
        return self.leaves_by is not None

    def tell(self, message: object) -> None:
        """Hear it."""

    def expire(self, now: float) -> None:
        """Nobody waits."""

    def kill(self) -> None:
        """End it."""
        self.killed = True

    def wait(self) -> int:
        """Give how it was ended."""
        return -9


def test_what_was_killed_for_memory_before_was_another_one(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's counts are taken anew once a second while the process lives, and not more often."""
    kills = [5]
    monkeypatch.setattr(oom, "cgroup_kills", lambda _: None)
    monkeypatch.setattr(oom, "system_kills", lambda: kills[0])
    (found,) = segment.segments(recorder.directory)
    watched = Watched(found, Agent(forensics=True))
    try:
        watched.tick(1e9)
        kills[0] = 6
        watched.tick(1e9 + 0.5)
        assert watched._before.killed_for_memory() is not None
        watched.tick(1e9 + 1.0)
        assert watched._before.killed_for_memory() is None
    finally:
        watched.close()


def test_without_forensics_nothing_is_kept(recorder: Recorder) -> None:
    """Nobody asks for it then."""
    (found,) = segment.segments(recorder.directory)
    watched = Watched(found, Agent(forensics=False))
    try:
        watched.tick(1e9)
        assert watched._before is None
    finally:
        watched.close()


@pytest.mark.parametrize(("timeout", "once"), [(0.0, False), (5.0, True), (60.0, False)])
def test_hosts_that_hang_when_their_process_has_ended(
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float,
    once: bool,  # noqa: FBT001 - a case
) -> None:
    """Each is ended when its time is over; after three of them the segment is set aside, however long they took."""
    now = [1e9]
    monkeypatch.setattr(watched_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(watched_module, "Child", Host)
    monkeypatch.setattr(watched_module.role, "is_held", lambda _: False)
    (found,) = segment.segments(recorder.directory)
    agent = Agent(timeout=timeout)
    agent.once = once
    watched = Watched(found, agent)
    watched.ended = True
    hosts = 0
    try:
        while not watched.aside:
            watched.tick(now[0])
            assert watched.child is not None
            watched._heard({"is": "running"})
            hosts += 1
            now[0] += timeout + watched_module._ENDING - 0.1
            watched.tick(now[0])
            assert not watched.child.killed
            now[0] += 0.2
            watched.tick(now[0])
            assert watched.child.killed
            watched._child_has_ended()
            now[0] = max(now[0], watched._retry)
        assert (hosts, watched.restarts, agent.alerts) == (3, 3, ["MonitoringSegmentSetAside"])
        assert watched.done is once
    finally:
        watched.close()
