"""What a run gave: the figures behind both the page that is printed and the JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from otel_trading.demo import stages
from otel_trading.demo.options import Options
from otel_trading.demo.traces import Joiner, Trace

SCHEMA = "otel-trading/demo/2"
"""The JSON document's ``schema``; the number rises when a reader of the former one would be misled."""

OUTCOMES = ("exported", "sampled_out", "overwritten", "refused", "pending")

BUDGET = {"cpu_percent": 2.5, "memory_mb": 30.0, "added_us": 200.0}
"""What monitoring may cost in NORMAL mode, all processes together."""

_MB = 1e6


@dataclass(slots=True)
class Result:
    """Everything that the runner gathered.  ``reports`` is missing a process that did not live to give its own."""

    options: Options
    backend: str
    source: str
    lasted: float = 0.0
    interrupted: bool = False
    reports: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    joiner: Joiner = field(default_factory=lambda: Joiner(5))
    unread: dict[str, tuple[int, int]] = field(default_factory=dict)
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    import_bytes: int = 0

    def stages(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Give (process, stage document) of each stage that has spans, from the market to the fill."""
        found = {
            (process, stage["name"]): stage
            for process, report in self.reports.items()
            for stage in report["summary"]["stages"]
            if stage["count"]
        }
        for name in stages.SHOWN:
            for process in stages.PROCESSES:
                if stage := found.get((process, name)):
                    yield process, stage

    def instrument(self, process: str, name: str, attributes: str = "") -> Mapping[str, Any] | None:
        """Give the document of an instrument with these attributes, a JSON object."""
        report = self.reports.get(process)
        instruments = report["summary"]["instruments"] if report else []
        return next((one for one in instruments if (one["name"], one["attributes"]) == (name, attributes)), None)

    # ---- cost ----

    def cost(self) -> dict[str, dict[str, float]]:
        """Give each process's cost: CPU in percent of a core, memory in MB, and the sum of all under ``all``."""
        costs: dict[str, dict[str, float]] = {}
        for process in stages.PROCESSES:
            if (report := self.reports.get(process)) is None:
                continue
            lasted, cost = report["lasted_ns"], report["cost"]
            started = max(0, report["memory"]["configured"]) + self.import_bytes
            costs[process] = {
                "hot_path_cpu_percent": 100 * cost["hot_path_ns"] / lasted,
                "drain_cpu_percent": 100 * cost["drain_ns"] / lasted,
                "process_cpu_percent": 100 * report["cpu_ns"] / lasted,
                "import_and_configure_mb": started / _MB,
                "segment_resident_mb": cost["segment_resident_bytes"] / _MB,
                "cpu_percent": 100 * (cost["hot_path_ns"] + cost["drain_ns"]) / lasted,
                "memory_mb": (started + cost["segment_resident_bytes"]) / _MB,
                "order_us": sum(cost["operations_ns"][name] for name in cost["order_path"]) / 1e3,
                "order_spans": len(cost["order_path"]),
            }
        if costs:
            costs["all"] = {key: sum(cost[key] for cost in costs.values()) for key in next(iter(costs.values()))}
        return costs

    def update_us(self) -> float:
        """Give what recording adds to the handling of one market data update, in microseconds."""
        report = self.reports.get("bot")
        operations = report["cost"]["operations_ns"] if report else {}
        return float(sum(operations.get(name, 0.0) for name in stages.BEFORE) / 1e3)

    # ---- accounts ----

    def accounts(self) -> Iterator[tuple[str, str, Mapping[str, int]]]:
        """Give (process, tier, account) of each tier that recorded something."""
        for process in stages.PROCESSES:
            if report := self.reports.get(process):
                for tier, account in report["summary"]["accounts"].items():
                    if account["recorded"]:
                        yield process, tier, account

    @property
    def adds_up(self) -> bool:
        """Whether ``recorded`` is the sum of what became of the spans, in every account."""
        return all(account["recorded"] == sum(account[name] for name in OUTCOMES) for _, _, account in self.accounts())

    # ---- the document ----

    def document(self) -> dict[str, Any]:
        """Give everything as a JSON-able dict."""
        options, bot = self.options, self.reports.get("bot", {})
        names = ("sent", "acked", "filled", "partly", "unfilled", "rejected", "denied", "under_way")
        return {
            "schema": SCHEMA,
            "backend": self.backend,
            "source": self.source,
            "seconds": self.lasted,
            "interrupted": self.interrupted,
            "rate": None if options.replay else options.rate,
            "seed": None if options.replay else options.seed,
            "speed": options.speed if options.replay else None,
            "stages": [{"process": process, **_without_windows(stage)} for process, stage in self.stages()],
            "market_data": {
                "handled": bot.get("handled"),
                "backlog": self.joiner.backlog,
                "backlog_max": self.joiner.backlog_max,
            },
            "orders": {name: bot.get(name) for name in (*names, "reasons")},
            "traces": {
                **self.joiner.outcomes,
                "unfinished": len(self.joiner.unfinished),
                "given_up": self.joiner.given_up,
                "unread_spans": {process: sum(unread) for process, unread in self.unread.items()},
            },
            "slowest": [trace.document() for trace in self.slowest()],
            "cost": {**self.cost(), "update_us": self.update_us(), "budget": BUDGET},
            "governed": self.budgets,
            "accounts": [{"process": process, "tier": tier, **account} for process, tier, account in self.accounts()],
            "adds_up": self.adds_up,
            "processes": self.reports,
        }

    def slowest(self) -> list[Trace]:
        """Give the slowest acknowledged orders, the slowest first."""
        return self.joiner.slowest()


def _without_windows(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stage.items() if key not in ("windows", "exemplars")}
