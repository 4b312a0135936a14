"""What is seen while the demo runs: the stages with their latencies so far, the rates, the orders, the backlog."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from otel_trading.demo import stages
from otel_trading.demo.page import plain_table, time_text
from otel_trading.demo.waterfall import COLOURS

if TYPE_CHECKING:
    from otel_trading.demo.traces import Joiner

_FRAMES_A_SECOND = 8
_RATE_WINDOW = 2.0  # seconds that the shown rate is taken over


class Screen:
    """The live picture; in a pipe or a file it is nothing, and the page at the end is all."""

    def __init__(self, console: Console, seconds: float, joiner: Joiner) -> None:
        """Draw on ``console`` for about ``seconds``."""
        self._console = console
        self._seconds = seconds
        self._joiner = joiner
        self._live: Live | None = None
        self._started = time.monotonic()
        self._bot: Mapping[str, Any] = {}
        self._history: list[tuple[float, int]] = []

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw until the block ends; then the picture is taken away, to make room for the page."""
        self._started = time.monotonic()
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def update(self, bot: Mapping[str, Any]) -> None:
        """Take the bot's latest figures and draw."""
        now = time.monotonic()
        if bot is not self._bot:
            self._bot = bot
            self._history.append((now, int(bot.get("handled", 0))))
            while len(self._history) > 1 and now - self._history[0][0] > _RATE_WINDOW:
                self._history.pop(0)
        if self._live is not None:
            self._live.update(self._picture(now - self._started), refresh=True)

    def _rate(self) -> float:
        (first, before), (last, after) = self._history[0], self._history[-1]
        return (after - before) / (last - first) if last > first else 0.0

    def _picture(self, lasted: float) -> RenderableType:
        bot = self._bot
        progress = Table.grid(padding=(0, 2, 0, 0))
        progress.add_row(
            ProgressBar(total=self._seconds, completed=min(lasted, self._seconds), width=30),
            Text(f"{min(lasted, self._seconds):4.1f} of {self._seconds:.1f} s", style="dim"),
        )
        figures = Text()
        if self._history:
            backlog = self._joiner.backlog
            for label, value, style in (
                ("updates/s", f"{self._rate():,.0f}", "bold"),
                ("orders", f"{bot.get('sent', 0):,}", "bold"),
                ("filled", f"{bot.get('filled', 0) + bot.get('partly', 0):,}", "bold"),
                ("rejected", f"{bot.get('rejected', 0):,}", "bold"),
                ("backlog", f"{backlog:,}", "bold red" if backlog > self._rate() / 10 else "bold"),
            ):
                figures.append(f"{label} ", "dim").append(f"{value}   ", style)
        return Group(Text(), progress, Text(), self._table(), Text(), figures)

    def _table(self) -> Table:
        table = plain_table("process", "stage", "count", "p50", "p99", "p99.9")
        for name in stages.SHOWN:
            if live := self._joiner.live.get(name):
                quantiles = (time_text(value) for value in live.quantiles(0.5, 0.99, 0.999))
                table.add_row(Text(live.process, style=COLOURS[live.process]), name, f"{live.count:,}", *quantiles)
        return table


FRAME = 1 / _FRAMES_A_SECOND
"""Seconds between pictures."""
