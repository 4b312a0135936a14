"""The program whose load is measured, bare or instrumented: one block a process.

Run by its path, ``program.py TASK OPTIONS``: the bare program and that of the stock SDK import nothing of otel-trading
until they have been measured.  Prints JSON lines: ``{"progress": …}`` at the beginning and the end of what is
measured, ``{"result": …}`` at last.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    Tick = Callable[[float, float, bool], float]

_HERE = Path(__file__).resolve().parent
_LOOK = 0.25
"""Seconds for the parent to look at this process from outside."""
_DRAIN_S = 15.0
"""Seconds that an agent may take until it drains."""
TIERS = {"order.send": (0, "50ms"), "risk.check": (1, None), "signal.evaluate": (1, None), "candle.update": (2, None)}
"""Tier and SLA of the stages; the root of each trace is a detail of tier P2, the order is P0."""


def load(place: Path) -> ModuleType:
    """Import a file of this package, named without its suffix, without importing the package."""
    path = place.with_suffix(".py")
    name = f"impact_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None  # noqa: S101  it is a file of ours
        assert spec.loader is not None  # noqa: S101
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


trading = load(_HERE.parent / "bench" / "trading")
feeding = load(_HERE / "feed")
usage = load(_HERE / "usage")


def say(**line: Any) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Program:
    """A running program: its handlers, one a symbol, and what ends it."""

    def __init__(self, variant: str, endpoint: str, cpu: int | None, config: Mapping[str, Any] | None = None) -> None:
        """Set it up.  The trading thread alone is pinned to ``cpu``; threads of the variant are kept off it."""
        self.stop: Callable[[], object] = lambda: None
        everywhere = os.sched_getaffinity(0) if cpu is not None else set()
        if cpu is not None and everywhere != {cpu}:
            os.sched_setaffinity(0, everywhere - {cpu})
        self.recorder: Any = None
        wrap, note = trading.bare, None
        if variant == "sdk":
            wrap, self.stop = trading.sdk(endpoint)
        elif variant != "bare":
            import otel_trading as ot

            ot.configure(service="impact", config={"export.traces": "otlp", "export.metrics": "otlp", **(config or {})})
            self.recorder, self.stop = ot, ot.shutdown
            wrap, note = _ours, getattr(ot, "market_data", None)
            self._await_drain()
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        self.ticks = [trading.strategy(wrap, _noted(note, symbol)) for symbol in feeding.SYMBOLS]

    @property
    def segment(self) -> str | None:
        """The path of its segment."""
        if self.recorder is None:
            return None
        from otel_trading.lifecycle import own_segment

        return own_segment()

    def _await_drain(self) -> None:
        """Wait for the agent to drain, where one does: its start is not what is measured."""
        if os.environ.get("OTEL_TRADING_HOST") != "agent":
            return
        from otel_trading.segment import role

        deadline = time.monotonic() + _DRAIN_S
        while not role.is_held(str(self.segment)) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(_LOOK)

    def accounts(self) -> dict[str, int]:
        """What became of its spans so far, all tiers together; {} without a recorder."""
        if self.recorder is None:
            return {}
        total: dict[str, int] = {}
        for tier in self.recorder.accounts().values():
            for key, value in tier.items():
                total[key] = total.get(key, 0) + value
        return total

    def readings(self) -> dict[str, Any]:
        """What its own meter says; {} without one."""
        path = self.segment
        if path is None:
            return {}
        from otel_trading.budget.policy import Policy
        from otel_trading.budget.readings import Readings

        with Readings(path) as readings:
            found = readings.read()._asdict()
        with Policy(path) as policy:
            found["active"] = policy.active
            found["base_memory"] = policy.number("base_memory")
            found["exporter_memory"] = policy.number("exporter_memory")
            found["costs"] = policy.costs()
        found["usage"] = found["usage"]._asdict()
        return found

    def memory(self) -> dict[str, int] | None:
        """What it has taken of memory."""
        path = self.segment
        found = usage.memory(directory=None if path is None else os.path.dirname(path))
        return None if found is None else found._asdict()


def _ours(name: str) -> Callable[[Any], Any]:
    import otel_trading as ot

    tier, sla = TIERS[name]
    return ot.probe(name, tier, sla)


def _noted(note: Callable[..., object] | None, symbol: str) -> Callable[[float, float], object] | None:
    return None if note is None else functools.partial(note, symbol, int(time.time() * 1000))


def _settle() -> None:
    gc.collect()
    gc.freeze()


def measure_latency(
    program: Program, *, seconds: float, rate: int, orders: int, rejected: float, seed: int
) -> dict[str, Any]:
    """Waiting busily for each update; quantiles in nanoseconds of all updates, and of those that traded."""
    symbols = len(feeding.SYMBOLS)

    def ticks(length: float, number: int) -> Any:
        return trading.Load(length, rate, orders, number, symbols=symbols, rejected=rejected)

    trading.pace(program.ticks, ticks(min(0.5, seconds), seed + 1))
    measured = ticks(seconds, seed)
    _settle()
    late = trading.pace(program.ticks, measured)
    traded = [value for value, trade in zip(late, measured.trades, strict=True) if trade]
    return {
        "updates": measured.count,
        "orders": len(traded),
        "spans": measured.spans,
        "update_ns": late,
        "order_ns": traded or list(late),
    }


def measure_batches(
    program: Program, *, seconds: float, rate: int, orders: int, rejected: float, seed: int
) -> dict[str, Any]:
    """Asleep between deliveries; CPU seconds of the process, its memory at the end, and what its own meter said."""
    feed = feeding.Feed(rate, orders, seed, rejected=rejected)
    feeding.deliver(program.ticks, feed, min(1.5, seconds))
    _settle()
    late: list[int] = []
    before, accounts = program.readings(), program.accounts()
    say(progress={"pid": os.getpid(), "at": "begin"})
    wall, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
    updates, traded = feeding.deliver(program.ticks, feed, seconds, late)
    thread, cpu, wall = time.thread_time() - thread, time.process_time() - cpu, time.perf_counter() - wall
    say(progress={"pid": os.getpid(), "at": "end"})
    time.sleep(_LOOK)  # what follows, and the flush at the end, is not to be in what the parent sees now
    after, memory = program.readings(), program.memory()
    settled = program.accounts()
    return {
        "updates": updates,
        "orders": traded,
        "wall_s": wall,
        "cpu_s": cpu,
        "trading_thread_s": thread,
        "memory": memory,
        "backend": None if program.recorder is None else program.recorder.backend,
        "meter": _meter(before, after),
        "accounts": {key: settled[key] - accounts[key] for key in settled},
        "order_ns": late,
    }


def _meter(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the program's own meter says of the time between two looks at it; None where it has none."""
    if not before.get("active") or after["ticks"] == before["ticks"]:
        return None
    seconds = (after["unix_ns"] - before["unix_ns"]) * 1e-9
    cpu = (after["cpu_total_ns"] - before["cpu_total_ns"]) * 1e-9 / seconds
    return {
        "cpu": cpu,
        "network": (after["network_total"] - before["network_total"]) / seconds,
        "disk": (after["disk_total"] - before["disk_total"]) / seconds,
        "kept": [late - early for early, late in zip(before["kept"], after["kept"], strict=True)],
        "missed": [late - early for early, late in zip(before["missed"], after["missed"], strict=True)],
        **{key: after[key] for key in _SHOWN},
    }


_SHOWN = (
    "usage", "cpu_hot", "cpu_drain", "cpu_export", "cpu_governor", "memory_segment", "memory_heap", "base_memory",
    "exporter_memory", "costs", "mode", "rates", "steps", "violations", "horizon",
)  # fmt: skip


def measure_throughput(
    program: Program, *, seconds: float, rate: int, orders: int, rejected: float, seed: int, levels: int
) -> dict[str, Any]:
    """Updates one right after the other, each as much work as fills a core at the load's rate; updates a second."""
    feed = feeding.Feed(rate, orders, seed, rejected=rejected, levels=levels)
    updates = max(1, round(seconds * rate))
    feeding.saturate(program.ticks, feed, max(1, updates // 8))
    _settle()
    return {"updates": updates, "seconds": feeding.saturate(program.ticks, feed, updates)}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "latency": measure_latency,
    "batches": measure_batches,
    "throughput": measure_throughput,
}


def main(arguments: Sequence[str]) -> None:
    """Run one block."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]
    task, options = arguments[0], json.loads(arguments[1])
    program = Program(options.pop("variant"), options.pop("endpoint"), options.pop("cpu"), options.pop("config", None))
    found = TASKS[task](program, **options)
    for key in ("update_ns", "order_ns"):
        if key in found:
            found[key] = trading.summarise(found[key]) if found[key] else None
    program.stop()
    say(result=found)


if __name__ == "__main__":
    main(sys.argv[1:])
