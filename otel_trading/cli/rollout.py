"""Record a share of the traces first, then more, step by step; and back where the application becomes slower.

    otel-trading rollout start --schedule "10% 10m,25% 10m,50% 10m,100%"
    otel-trading rollout to 50%
    otel-trading rollout back

start stays in the foreground.  It begins with a minute of P0 only, and compares the p99 of the application's P0
spans, which are recorded at every share, with that of the step before.  Where it is worse (by --worse), it goes back
to 10 %, and where it is still worse then, to P0 only.  Without enough spans it waits.

to sets a share and leaves it at that, stop ends a schedule wherever it runs, back goes back: to 10 %, and from there to
P0 only.  Without anything: status.

Exit codes: 0 fine, 1 it was rolled back, or some process could not be changed, 2 could not run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from otel_trading.budget import rollout as rollouts
from otel_trading.cli import targets
from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading.segment import Control, FoundSegment

_SCHEDULE = "10% 10m,25% 10m,50% 10m,100%"
_LOOK_EVERY = 1.0  # seconds
_ACTIONS = ("status", "start", "to", "stop", "back")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value <= 1e6:  # noqa: PLR2004  beyond it, it is a mistake
        message = f"{text!r} is no number above 0"
        raise argparse.ArgumentTypeError(message)
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", nargs="?", default="status", choices=_ACTIONS, help="default: status")
    parser.add_argument("share", nargs="?", metavar="SHARE", help="of to: a percentage")
    parser.add_argument("--schedule", default=_SCHEDULE, metavar="STEPS", help="of start (default: '%(default)s')")
    parser.add_argument("--probe", metavar="NAME", help="of start: whose p99 counts (default: the busiest P0 probe)")
    parser.add_argument(
        "--worse",
        type=_positive,
        default=rollouts.WORSE,
        metavar="X",
        help="of start: so many times the p99 of the step before is too much (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=_positive,
        default=rollouts.WINDOW,
        metavar="S",
        help="of start: seconds over which a p99 is measured (default: %(default)g)",
    )
    parser.add_argument(
        "--spans",
        type=_positive,
        default=rollouts.LEAST,
        metavar="N",
        help="of start: a p99 needs so many (default: %(default)s)",
    )
    targets.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON; of start: one object a line")


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    if (arguments.share is not None) != (arguments.action == "to"):
        told = "to what share? Write: otel-trading rollout to 50%"
        raise OtelTradingError(told if arguments.action == "to" else f"{arguments.action} takes no share")
    if arguments.action == "start":
        return _start(arguments)
    setting: Callable[[Control], float] | None = None
    if arguments.action == "to":
        share = rollouts.share_of(arguments.share)
        setting = lambda _: share  # noqa: E731
    elif arguments.action == "stop":
        setting = lambda control: rollouts.nudged(control.rollout)  # noqa: E731
    elif arguments.action == "back":
        setting = lambda control: rollouts.behind(control.rollout)  # noqa: E731
    return _set_and_show(arguments, setting)


def _set_and_show(arguments: argparse.Namespace, setting: Callable[[Control], float] | None) -> int:
    from otel_trading.segment import Control

    shown: list[dict[str, Any]] = []
    for found in targets.chosen(arguments):
        one: dict[str, Any] = {"pid": found.pid, "service": found.service}
        try:
            with Control(found.path) as control:
                if setting is not None:
                    control.rollout = setting(control)
                one["share"] = round(control.rollout, 6)
                one["rates"] = {f"P{tier}": control.tier_rate(tier) for tier in range(4)}
        except OtelTradingError as error:
            one["error"] = str(error)
        shown.append(one)
    if arguments.json:
        sys.stdout.write(json.dumps({"processes": shown}, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join([*_lines(shown), "", f"Next: {_next(shown)}"]) + "\n")
    return 1 if any("error" in one for one in shown) else 0


def _lines(shown: list[dict[str, Any]]) -> list[str]:
    from otel_trading.budget import overview

    rows = [("pid", "service", "rollout", "P0", "P1", "P2", "P3")]
    for one in shown:
        if "error" in one:
            rows.append((str(one["pid"]), one["service"][:24], one["error"], "", "", "", ""))
            continue
        rates = [rollouts.percent(rate) if rate else "off" for rate in one["rates"].values()]
        rows.append((str(one["pid"]), one["service"][:24], rollouts.percent(one["share"]), *rates))
    return overview.columns(rows)


def _next(shown: list[dict[str, Any]]) -> str:
    partial = any(one.get("share", 1.0) < 1.0 for one in shown)
    return "otel-trading rollout to 100%" if partial else "otel-trading mode"


# ---- start -----------------------------------------------------------------------------------------


class _Target:
    """One process under rollout."""

    def __init__(self, found: FoundSegment, steps: tuple[rollouts.Step, ...], arguments: argparse.Namespace) -> None:
        from otel_trading.budget.latencies import Latencies
        from otel_trading.segment import Control

        self.found = found
        self.latencies = Latencies(found.path, arguments.probe)
        self.control = Control(found.path)
        self.put = self.control.rollout
        self.rollout = rollouts.Rollout(
            steps,
            self.latencies.figure,
            worse=arguments.worse,
            window=arguments.window,
            least=max(1, int(arguments.spans)),
            share=self.put,
        )

    def close(self) -> None:
        self.control.close()
        self.latencies.close()

    def step(self, now: float) -> list[rollouts.Change]:
        """Look, decide, put in force; gives what has changed."""
        self.latencies.look()
        if rollouts.taken_over(self.control.rollout, self.put):
            self.rollout.stop()
        else:
            share = self.rollout.step(now)
            if share is not None:
                self.control.rollout = share
                self.put = self.control.rollout
        return self.rollout.take()

    @property
    def ended(self) -> bool:
        from otel_trading.segment import files

        found = files.find(self.found.path)
        return found is None or not found.alive


def _start(arguments: argparse.Namespace) -> int:
    steps = rollouts.parse(arguments.schedule)
    running = [_Target(found, steps, arguments) for found in targets.chosen(arguments)]
    every = list(running)
    try:
        while running:
            for target in list(running):
                _tell(arguments, target, target.step(time.monotonic()))
                if target.ended and not target.rollout.over:
                    target.rollout.stop()
                    _tell(arguments, target, target.rollout.take())
                if target.rollout.over:
                    running.remove(target)
            if running:
                time.sleep(min(_LOOK_EVERY, arguments.window / 4))
    finally:
        for target in every:
            target.close()
    rolled_back = any(target.rollout.rolled_back for target in every)
    if not arguments.json:
        following = "rollout status, when it is mended: otel-trading rollout start" if rolled_back else "rollout status"
        sys.stdout.write(f"Next: otel-trading {following}\n")
    return 1 if rolled_back else 0


def _tell(arguments: argparse.Namespace, target: _Target, changes: list[rollouts.Change]) -> None:
    for change in changes:
        if arguments.json:
            figures = {
                key: None if isinstance(value, float) and math.isnan(value) else value
                for key, value in change._asdict().items()
            }
            document = {"unix_ns": time.time_ns(), "pid": target.found.pid, "service": target.found.service, **figures}
            sys.stdout.write(json.dumps(document) + "\n")
        else:
            clock = time.strftime("%H:%M:%S")
            sys.stdout.write(f"{clock} {target.found.service} (pid {target.found.pid}): {change}\n")
        sys.stdout.flush()
