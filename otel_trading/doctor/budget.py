"""Whether the budget can be kept here: the governor ticks, the system's pressure can be read, processes can agree."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from otel_trading._backend import core
from otel_trading.doctor.check import FAIL, OK, WARN, Check
from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.budget.readings import Reading, Readings
    from otel_trading.doctor.check import Situation

_TICKS = 3  # a load is a difference of two
_PATIENCE = 3.0  # seconds
_GROUPS, _PRESSURE = "/proc/self/cgroup", "/proc/pressure/cpu"


def checks(situation: Situation) -> Iterator[Check]:
    """Let a governor tick in a segment of its own, and look at what it reads."""
    if not situation.settings.values["budget.enabled"]:
        source = situation.settings.sources["budget.enabled"]
        yield Check("budget", WARN, f"switched off by {source}: nothing bounds what is recorded", "set budget.enabled")
        return
    yield shared(situation.directory)
    try:
        reading = tried(situation)
    except (OtelTradingError, OSError, RuntimeError) as error:
        yield Check("budget", FAIL, f"it could not be tried: {error}", "correct what the check of the directory says")
        return
    if reading.ticks < _TICKS:
        told = f"the governor has ticked {reading.ticks} times in {_PATIENCE:g} s"
        yield Check("budget", FAIL, told, "look whether the machine is overloaded; else report this")
        return
    yield Check("budget", OK, f"the governor ticks, every {situation.settings.values['engine.period']} s")
    yield from pressure(reading)
    yield groups()


def tried(situation: Situation) -> Reading:
    """Give what a governor reads in a few ticks; in this process, which must not record yet.

    Raises OtelTradingError, OSError or RuntimeError where there can be none.
    """
    from otel_trading import segment
    from otel_trading.budget import policy, readings

    settings = situation.settings
    fd, path = segment.create("otel-trading-doctor", situation.directory)
    try:
        resource = segment.resource_json("otel-trading-doctor")
        core.open(fd, resource, 1024, 1024, 16, 4096, 64, 16, settings.limits)
        try:
            with policy.Policy(path) as page:
                page.write(policy.values_of(settings.values))
                page.active = True
            core.govern_start()
            try:
                with readings.Readings(path) as own:
                    return _ticked(own)
            finally:
                core.govern_stop()
        finally:
            core.close()
    finally:
        os.close(fd)
        os.unlink(path)


def _ticked(readings: Readings) -> Reading:
    deadline = time.monotonic() + _PATIENCE
    stalls = os.path.exists(_PRESSURE)  # they come some ticks later than the loads
    while True:
        reading = readings.read()
        known = not stalls or not math.isnan(reading.cpu_stall + reading.memory_stall)
        if (reading.ticks >= _TICKS and known) or time.monotonic() >= deadline:
            return reading
        time.sleep(0.01)


def pressure(reading: Reading) -> Iterator[Check]:
    """Judge what a reading says of the system."""
    loads = {"CPU load": reading.cpu_load, "memory": reading.memory_load}
    missing = [name for name, load in loads.items() if math.isnan(load)]
    if missing:
        remedy = "force a mode where it matters: otel-trading mode stressed"
        yield Check("pressure", WARN, f"{' and '.join(missing)} can not be read: modes do not follow it", remedy)
    else:
        yield Check("pressure", OK, ", ".join(f"{name} {load:.0%}" for name, load in loads.items()))
    stalls = {"CPU": reading.cpu_stall, "memory": reading.memory_stall}
    if any(math.isnan(stall) for stall in stalls.values()):
        told = f"pressure stall information is not there ({_PRESSURE}); modes follow the loads alone"
        yield Check("pressure stalls", OK, told)
    else:
        told = ", ".join(f"waiting for {name} {stall:.0%}" for name, stall in stalls.items())
        yield Check("pressure stalls", OK, told)


def groups(path: str = _GROUPS) -> Check:
    """Tell which control groups there are; without any, the loads are the machine's."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split(":", 2) for line in file.read(65_536).splitlines()]
    except OSError:
        lines = []
    controllers = {name for line in lines if len(line) == 3 for name in line[1].split(",") if name}  # noqa: PLR2004
    name = "control groups"
    if controllers & {"cpu", "memory"}:
        return Check(name, OK, "v1: loads are held against the limits of this process's groups")
    if any(len(line) == 3 and line[0] == "0" for line in lines):  # noqa: PLR2004
        return Check(name, OK, "v2: loads are held against the limits of this process's group")
    return Check(name, OK, "none: loads are the machine's")


def shared(directory: str) -> Check:
    """Tell whether the processes of the directory can agree on traces."""
    from otel_trading.segment.shared import shared_file

    name = "shared verdicts"
    try:
        fd = shared_file(directory)
    except OtelTradingError as error:
        remedy = getattr(error, "remedy", "correct it")
        told = str(error).partition(" Remedy:")[0].rstrip(".")
        return Check(name, WARN, f"{told}: each process decides alone which traces are kept", remedy)
    try:
        core.share(fd)
        core.share(-1)
    except (OSError, ValueError) as error:
        told = f"the file traces.shared in {directory} can not be used ({error}): each process decides alone"
        return Check(name, WARN, told, f"remove {os.path.join(directory, 'traces.shared')}")
    finally:
        os.close(fd)
    return Check(name, OK, f"traces.shared in {directory}")
