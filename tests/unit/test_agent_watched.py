"""What the agent keeps of a process while it lives, to judge its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from otel_trading import config, segment
from otel_trading.agent.watched import Watched
from otel_trading.forensics import oom

if TYPE_CHECKING:
    from conftest import Recorder

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the agent needs Linux")


class Agent:
    """An agent that does nothing."""

    once = False

    def __init__(self, *, forensics: bool) -> None:
        self.settings = config.resolve(config={"forensics.enabled": forensics})

    def listen(self, fd: int, called: object) -> None:
        """Listen to nothing."""

    def unlisten(self, fd: int) -> None:
        """Nor this."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def alert(self, name: str, severity: str, summary: str, labels: dict[str, str]) -> None:
        """Nor this."""


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
