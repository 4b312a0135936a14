"""What the runner is made of: the live picture, the segments' directory, and the processes it looks after."""

from __future__ import annotations

import io
import os
import re
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from otel_trading.demo import footprint, segments
from otel_trading.demo.children import ChildDiedError, Process, family
from otel_trading.demo.errors import DemoError
from otel_trading.demo.screen import Screen
from otel_trading.demo.traces import Joiner

if TYPE_CHECKING:
    from otel_trading._native import SpanState

pytest.importorskip("websockets", reason="the demo needs websockets")


def joiner() -> Joiner:
    """Make one that has seen some spans."""
    made = Joiner(1)
    span: SpanState = (0, 2, 1, 1, 0, 1_000, 31_000, 0, 0, None, None, {}, 0, None, None, [], [], 0, 0)
    made.backlog = 7
    made.add("bot", ["market_data.handle"], [span] * 1234)
    return made


def console(*, terminal: bool) -> Console:
    """Make a console of 80 columns that writes into memory."""
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, color_system=None)


def shown(on: Console) -> str:
    """Give what was written."""
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


class TestScreen:
    """The live picture."""

    def test_it_shows_stages_rates_orders_and_backlog(self) -> None:
        """On a terminal, the latest figures are drawn."""
        on = console(terminal=True)
        screen = Screen(on, 10.0, joiner())
        with screen.shown():
            screen.update({"handled": 10, "sent": 1})
            screen.update({"handled": 20, "sent": 42, "filled": 40, "partly": 1, "rejected": 1})
        drawn = shown(on)
        for text in ("market_data.handle", "1,234", "orders 42", "filled 41", "backlog 7", "of 10.0 s"):
            assert text in drawn
        assert re.search(r"(29\.[89]|30\.[012]) µs", drawn)

    def test_in_a_pipe_it_is_nothing(self) -> None:
        """Without a terminal, nothing is drawn."""
        on = console(terminal=False)
        screen = Screen(on, 10.0, joiner())
        with screen.shown():
            screen.update({"handled": 10})
        assert shown(on) == ""

    def test_before_the_first_figures_it_is_empty(self) -> None:
        """A picture without figures has no rates, and does not fail."""
        on = console(terminal=True)
        screen = Screen(on, 10.0, Joiner(1))
        with screen.shown():
            screen.update(screen._bot)
        assert "orders" not in shown(on)


class TestDirectory:
    """Where the segments of a run are."""

    def test_it_is_where_the_environment_says(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """``OTEL_TRADING_DIR`` is made if need be; the run's own directory in it is for its user alone."""
        monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path / "new"))
        made = segments.directory()
        assert made.parent == tmp_path / "new"
        assert stat.S_IMODE(made.stat().st_mode) == 0o700

    @pytest.mark.parametrize("needed", [0, 1 << 62])
    def test_small_shared_memory_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int
    ) -> None:
        """Where /dev/shm has no room for the segments, they go to the directory for temporary files."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr(segments, "_NEEDED", needed)
        made = segments.directory()
        in_shared_memory = made.parent == Path("/dev/shm")  # noqa: S108  where shared memory is
        made.rmdir()
        assert in_shared_memory == (needed == 0 and Path("/dev/shm").is_dir())  # noqa: S108

    def test_an_impossible_one_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A directory that can not be made is told with the remedy."""
        (tmp_path / "file").touch()
        monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path / "file" / "below"))
        with pytest.raises(DemoError, match="name another with OTEL_TRADING_DIR"):
            segments.directory()

    def test_a_process_without_a_segment_is_an_error(self, tmp_path: Path) -> None:
        """A process that records nothing can not be shown."""
        with pytest.raises(DemoError, match="the bot process records nothing"):
            segments.attach("bot", os.getpid(), tmp_path)


class TestProcess:
    """A child process."""

    def test_one_that_can_not_start_shows_its_errors(self, tmp_path: Path) -> None:
        """The end of its standard error is in the message."""
        with family() as started:
            process = started["exchange"] = Process("exchange", ["--nonsense"], tmp_path)
            with pytest.raises(ChildDiedError) as caught:
                process.wait_ready()
        assert str(caught.value).startswith("the exchange process ended with status 2:\n")
        assert "--nonsense" in str(caught.value)

    def test_one_that_was_killed_is_told_from_one_that_ended(self, tmp_path: Path) -> None:
        """The signal is named, and a command to the dead process says the same."""
        with family() as started:
            process = started["exchange"] = Process("exchange", [], tmp_path)
            process.wait_ready()
            process.check()
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(ChildDiedError, match="killed by signal 9"):
                process.ask("status")
            with pytest.raises(ChildDiedError, match="killed by signal 9"):
                process.check()
            assert process.ended == -signal.SIGKILL

    def test_one_that_does_not_answer_is_given_up(self, tmp_path: Path) -> None:
        """Waiting for an answer has an end."""
        with family() as started:
            process = started["exchange"] = Process("exchange", [], tmp_path)
            process.wait_ready()
            with pytest.raises(DemoError, match="did not answer 'report' within 0 s"):
                process.answer("report", 0.05)

    def test_a_lost_connection_is_one_line(self, tmp_path: Path) -> None:
        """A process that can not reach another one says so without a traceback."""
        arguments = ["--exchange", "ws://127.0.0.1:1", "--symbols", "A_B"]
        with family() as started:
            process = started["gateway"] = Process("gateway", arguments, tmp_path)
            with pytest.raises(ChildDiedError, match=r"status 2:\n  lost the connection to the exchange: [^\n]*\Z"):
                process.wait_ready()


def test_memory_is_told_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resident size is a plausible number of bytes, from /proc or without it."""
    assert 1e6 < footprint.private_bytes() < 1e11
    monkeypatch.setattr(footprint, "_STATUS", Path("/nonexistent"))
    assert 1e6 < footprint.private_bytes() < 1e11
