"""How far a long measurement is, on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from types import TracebackType


class Progress:
    """A bar; usable as ``with``.  Where standard error is no terminal it says nothing."""

    def __init__(self, seconds: float) -> None:
        """``seconds``: of all steps together."""
        console = Console(stderr=True)
        columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("starting …", total=max(seconds, 1e-6))
        self._pending = 0.0

    def __enter__(self) -> Progress:  # noqa: PYI034  Self is younger than Python 3.10
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, what: str, seconds: float) -> None:
        """Say what comes next, and how many seconds of it; what came before is done."""
        self._bar.update(self._task, advance=self._pending, description=what)
        self._pending = seconds
