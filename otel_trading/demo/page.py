"""What is printed at the end: stages, the slowest order, cost, accounts, and what to do next; fits 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from otel_trading import semconv
from otel_trading.budget import overview
from otel_trading.budget.modes import BUDGETS
from otel_trading.demo import result as results
from otel_trading.demo.options import CONFIG
from otel_trading.demo.waterfall import COLOURS, Waterfall
from otel_trading.drain import units

if TYPE_CHECKING:
    from otel_trading.demo.result import Result


_WIDE = 96  # columns, from which on there is room between the tables' columns
_LATE = 0.005  # seconds; a timer may be a millisecond or two late without a word
_BUSY = 1000  # updates a second


def time_text(value: float | None) -> str:
    """Write a duration in seconds; a dash for none."""
    return units.seconds(math.nan if value is None else value)


def plain_table(*heads: str, left: int = 2, gap: int = 1) -> Table:
    """Give a table without lines; the first ``left`` columns to the left, the others to the right."""
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="bold", pad_edge=False)
    for position, head in enumerate(heads):
        table.add_column(head, justify="left" if position < left else "right", no_wrap=True)
    return table


class Page:
    """The whole page, for the width that the console has."""

    def __init__(self, result: Result) -> None:
        """Take the figures."""
        self.result = result

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Give section by section."""
        gap = 2 if options.max_width >= _WIDE else 1
        for title, part in _sections(self.result, gap):
            yield Text()
            yield Text(title, style="bold underline")
            yield part


def _sections(result: Result, gap: int) -> Iterator[tuple[str, RenderableType]]:
    yield "Stages", Group(stage_table(result, gap), Text("\n".join(_market_lines(result)), style="dim"))
    if slowest := result.slowest():
        yield "The slowest order", Waterfall(slowest[0])
    yield "What monitoring cost", Group(cost_table(result), Text("\n".join(_cost_lines(result)), style="dim"))
    if budgets := _governed(result):
        told = Text("\n".join(_kept_lines(result, budgets)), style="dim")
        yield "What monitoring may use, and which traces were kept", Group(budget_table(budgets), told)
    accounts = Group(accounts_table(result, gap), Text("\n".join(_account_lines(result)), style="dim"))
    yield "Accounts: every span recorded, and what became of it", accounts
    yield "Next", _next(result)


# ---- stages ---------------------------------------------------------------------------------------


def stage_table(result: Result, gap: int) -> Table:
    """Give the stages with their quantiles."""
    table = plain_table("process", "stage", "count", "p50", "p95", "p99", "p99.9", "SLA", "over", gap=gap)
    for process, stage in result.stages():
        sla, breaches = stage["sla_ns"], stage["sla_breaches"]
        table.add_row(
            Text(process, style=COLOURS[process]),
            stage["name"],
            f"{stage['count']:,}",
            *(time_text(stage[f"{name}_ns"] / 1e9) for name in ("p50", "p95", "p99", "p999")),
            f"{sla / 1e6:g} ms" if sla else "",
            Text(f"{breaches:,}", style="bold red" if breaches else "green") if sla else "",
        )
    return table


def _market_lines(result: Result) -> Iterator[str]:
    bot = result.reports["bot"]
    rate = bot["handled"] / max(result.lasted, 1e-9)
    yield f"{bot['handled']:,} updates in {result.lasted:.1f} s ({rate:,.0f}/s), with those of the bot's own trades"
    backlog = f"backlog at most {result.joiner.backlog_max:,}, at the end {result.joiner.backlog:,}"
    wait = result.instrument("bot", semconv.WEBSOCKET_QUEUE_LAG, f'{{"{semconv.VENUE}":"paper"}}')
    late = result.instrument("exchange", "market_data.late")
    if wait and wait["count"]:
        backlog += f"; each waited {time_text(wait['p50'])}, p99 {time_text(wait['p99'])}"
    yield backlog
    if late and late["count"] and late["p99"] > _LATE:
        yield f"the exchange was behind its time: p99 of its updates {time_text(late['p99'])} late"
    yield (
        f"{bot['sent']:,} orders: {bot['filled']:,} filled, {bot['partly']:,} in part, {bot['unfilled']:,} not"
        f", {bot['rejected']:,} rejected"
    )
    if bot["denied"] or bot["under_way"]:
        yield f"{bot['denied']:,} more denied by the risk check; {bot['under_way']:,} still under way at the end"
    if bot["reasons"]:
        yield ", ".join(f"{reason} ({count:,})" for reason, count in bot["reasons"].items())
    cost = result.instrument("bot", "slippage")
    if cost and cost["count"]:
        yield f"slippage p50 {cost['p50']:.2f} bps, p99 {cost['p99']:.2f} bps"


# ---- cost -----------------------------------------------------------------------------------------


def cost_table(result: Result) -> Table:
    """Give what monitoring cost each process and all together, beside what it may cost."""
    costs = result.cost()
    table = plain_table("", *costs, "budget", left=1, gap=2)
    budget = results.BUDGET

    def row(label: str, key: str, form: str, limit: float | None = None, style: str = "") -> None:
        cells = [Text(format(cost[key], form), style=style) for cost in costs.values()]
        if limit is not None:
            cells[-1].stylize("bold green" if costs["all"][key] <= limit else "bold red")
        table.add_row(Text(label, style=style), *cells, "" if limit is None else f"≤ {limit:g}")

    row("CPU, % of one core", "cpu_percent", ".2f", budget["cpu_percent"])
    row("  hot path (events × cost)", "hot_path_cpu_percent", ".2f", style="dim")
    row("  drain (its own CPU time)", "drain_cpu_percent", ".2f", style="dim")
    row("memory, MB", "memory_mb", ".1f", budget["memory_mb"])
    row("  segment, resident", "segment_resident_mb", ".1f", style="dim")
    row("  import and configure", "import_and_configure_mb", ".1f", style="dim")
    row("added to an order, µs", "order_us", ".2f", budget["added_us"])
    row("  spans an order", "order_spans", ".0f", style="dim")
    return table


def _cost_lines(result: Result) -> Iterator[str]:
    yield f"added to a market data update: {result.update_us():.2f} µs (two spans and three metrics)"
    slots, default = CONFIG["ring.slots"], 65_536
    yield f"a ring holds {slots:,} records here; the default of {default:,} is 6 MB more a process"
    yield f"for comparison, all that the processes did: {result.cost()['all']['process_cpu_percent']:.0f} % of a core"


# ---- budget ---------------------------------------------------------------------------------------


def _governed(result: Result) -> dict[str, Mapping[str, Any]]:
    found = {process: result.budgets.get(process, {}) for process in COLOURS}
    return {process: budget for process, budget in found.items() if budget.get("governed")}


def budget_table(budgets: Mapping[str, Mapping[str, Any]]) -> Table:
    """Give each process's mode, and what it used in the last second beside its limits."""
    table = plain_table("", *budgets, left=1, gap=2)

    def row(label: str, cells: Iterator[str]) -> None:
        table.add_row(label, *cells)

    row("mode", (f"{found['mode']}{', forced' if found['forced'] else ''}" for found in budgets.values()))
    for name in BUDGETS:
        row(name, (overview.used_text(name, **found["usage"][name]) for found in budgets.values()))
    row("over a limit", (f"{sum(found['violations'].values()):,} times" for found in budgets.values()))
    return table


def _kept_lines(result: Result, budgets: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if result.backend == "pure" and all(found["usage"]["cpu"]["limit"] is None for found in budgets.values()):
        yield "no limit for CPU and latency: the pure backend costs more, and the traces here"
        yield "are to be whole; with OTEL_TRADING_MODE=auto they are held to, as in a program"
    if not _exported(result):
        yield "no trace was kept, as no exporter is configured (OTEL_TRACES_EXPORTER=otlp);"
        yield "with one, rejects, errors, SLA breaches come first, others as the bucket allows"
        return
    for process, found in budgets.items():
        kept, *others = overview.kept_parts(found)
        yield f"{process}: {kept}"
        if others:
            yield f"{'':{len(process)}}  {'; '.join(others)}"
    limit = max((found["usage"]["network"]["limit"] or 0.0) for found in budgets.values())
    if limit:
        yield f"one bucket for all, {limit * 8e-3:g} kbit/s; rejects, errors, SLA breaches come first"


def _exported(result: Result) -> bool:
    return any(account["exported"] or account["pending"] for _, _, account in result.accounts())


# ---- accounts -------------------------------------------------------------------------------------


def accounts_table(result: Result, gap: int) -> Table:
    """Give the accounts; each line must add up."""
    table = plain_table(
        "process", "tier", "recorded", *(name.replace("_", " ") for name in results.OUTCOMES), "", gap=gap
    )
    total: dict[str, int] = dict.fromkeys(("recorded", *results.OUTCOMES), 0)
    for process, tier, account in result.accounts():
        table.add_row(Text(process, style=COLOURS[process]), tier, *_account(account, total))
    table.add_row("all", "", *_account(total, dict(total)), style="bold")
    return table


def _account(account: Mapping[str, int], total: dict[str, int]) -> Iterator[str | Text]:
    for name in total:
        total[name] += account[name]
        yield f"{account[name]:,}"
    adds_up = account["recorded"] == sum(account[name] for name in results.OUTCOMES)
    yield Text("✓", style="green") if adds_up else Text("does not add up", style="bold red")


def _account_lines(result: Result) -> Iterator[str]:
    if not _exported(result):
        yield "no exporter is configured: all are in the metrics, none has left the machine"
    joiner = result.joiner
    whole = sum(joiner.outcomes[name] for name in ("filled", "acked", "rejected"))
    broken = len(joiner.unfinished) + joiner.given_up
    lost = sum(sum(unread) for unread in result.unread.values())
    yield f"joined over the three processes: {whole:,} order traces whole, {broken:,} not; {lost:,} spans unread"


# ---- next -----------------------------------------------------------------------------------------


def _next(result: Result) -> Text:
    options = result.options
    if options.replay:
        command, what = "demo --rate 2000", "the generated market, at four times its usual pace"
    elif options.rate >= _BUSY:
        command, what = "demo --replay FILE --speed 10", "a recorded session, ten times as fast"
    else:
        command, what = "demo --rate 2000", "four times the load: watch the backlog, and the cost"
    return Text.assemble((f"{options.command} {command}", "bold"), "\n", (what, "dim"))
