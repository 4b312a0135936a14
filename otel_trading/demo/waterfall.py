"""One order's trace, drawn over its processes: each span where it was, as long as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from otel_trading.drain import units

if TYPE_CHECKING:
    from otel_trading.demo.traces import Piece, Trace

COLOURS = {"bot": "cyan", "gateway": "magenta", "exchange": "green"}
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NARROWEST = 12
_PROCESS, _TIMES = 10, 22
_INDENT = 2
_END = {"filled": "fill", "acked": "ack"}


def bar(start: float, end: float, width: int) -> str:
    """Draw a bar from ``start`` to ``end``, both as shares of ``width`` cells; never nothing at all.

    Blocks that grow from the left come in eighths, from the right in halves: so its end is exact to an eighth of a
    cell, and its beginning to a half.
    """
    eighths = width * 8
    first = max(0, min(round(start * eighths), eighths - 1))
    last = max(first + 1, min(round(end * eighths), eighths))
    begin, inside = divmod(first, 8)
    cell, rest = divmod(last - 1, 8)  # of the last eighth that is drawn
    right = inside >= 4  # noqa: PLR2004  nearer to the middle of the cell than to its left
    if begin == cell:
        cells = "▕" if right else _EIGHTHS[last - first]
    else:
        cells = ("▐" if right else "█") + "█" * (cell - begin - 1) + _EIGHTHS[rest + 1]
    return (" " * begin + cells).ljust(width)


class Waterfall:
    """The whole picture, as wide as the console lets it be."""

    def __init__(self, trace: Trace) -> None:
        """Take the trace."""
        self.trace = trace

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw a line a span: process, stage, bar, offset from the start, duration."""
        rows = self.trace.ordered()
        names = max(len(piece.stage) + _INDENT * depth for depth, piece in rows) + 1
        width = max(_NARROWEST, min(options.max_width, 140) - _PROCESS - names - _TIMES)
        yield self._head(width + names + _PROCESS)
        for depth, piece in rows:
            yield self._row(depth, piece, names, width)
        gap = self.trace.gap()
        if gap and gap[0] > self.trace.duration_ns / 10:
            took = units.seconds(gap[0] / 1e9)
            yield Text(f"{took} from {gap[1].stage} to {gap[2].stage}: socket, and wait for its reader", "dim")

    def _head(self, width: int) -> Text:
        trace = self.trace
        took = units.seconds(trace.duration_ns / 1e9)
        head = Text(
            f"{trace.order_id} {trace.symbol}: {took} from tick to {_END.get(trace.outcome() or '', 'end')}".ljust(
                width
            ),
            "dim",
        )
        return head + Text("     after       took", style="bold")

    def _row(self, depth: int, piece: Piece, names: int, width: int) -> Text:
        start, whole = self.trace.start_ns, max(1, self.trace.duration_ns)
        colour = COLOURS.get(piece.process, "white")
        row = Text(piece.process.ljust(_PROCESS), style=colour)
        row.append(" " * (_INDENT * depth) + piece.stage.ljust(names - _INDENT * depth), style="default")
        line = bar((piece.start_ns - start) / whole, (piece.end_ns - start) / whole, width)
        row.append_text(Text(line, colour))
        row.append(f"{units.seconds((piece.start_ns - start) / 1e9):>11}", style="dim")
        row.append(f"{units.seconds((piece.end_ns - piece.start_ns) / 1e9):>11}", style="default")
        return row
