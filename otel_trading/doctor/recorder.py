"""The recorder itself: a segment of the configured size is made where the program would, and a span goes through it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from otel_trading._backend import core
from otel_trading.doctor.check import FAIL, OK, WARN, Check
from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.config import Settings
    from otel_trading.doctor.check import Situation

_SERVICE = "otel-trading-doctor"
_PROBE = "doctor"
_ROOM = 4  # segments for which there should be space
_KERNELS = "/sys/devices/system/clocksource/clocksource0/current_clocksource"


class Trial(NamedTuple):
    """What one span through a segment has shown."""

    clock: str
    size: int
    seen: bool


def checks(situation: Situation) -> Iterator[Check]:
    """Make a segment, record, read, and remove it."""
    directory = situation.directory
    try:
        trial = tried(situation.settings, directory)
    except OtelTradingError as error:
        remedy = getattr(error, "remedy", "correct it")
        yield Check("directory", FAIL, str(error).partition(" Remedy:")[0].rstrip("."), remedy)
        return
    except (OSError, RuntimeError) as error:
        yield Check(
            "directory",
            FAIL,
            f"{directory}: a segment could not be laid out ({error})",
            "free some space there, name another directory with OTEL_TRADING_DIR, or make ring.slots smaller",
        )
        return
    status = os.stat(directory)
    yield Check("directory", OK, f"{directory} (mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid})")
    yield _space(directory, trial.size)
    if trial.seen:
        yield Check("recorder", OK, "a span was recorded and read back")
    else:
        yield Check("recorder", FAIL, "a span was recorded, and could not be read back", "report this")
    yield _clock(trial.clock)


def tried(settings: Settings, directory: str | None) -> Trial:
    """Record a span in a segment of its own in this process, which must not record yet.

    Raises OtelTradingError, OSError or RuntimeError where there can be none.
    """
    from otel_trading import segment

    fd, path = segment.create(_SERVICE, directory)
    try:
        core.open(
            fd,
            segment.resource_json(_SERVICE),
            settings.ring_slots,
            settings.ring_thread_slots,
            settings.ring_open_spans,
            settings.ring_arena_bytes,
            settings.names_max,
            settings.orders_max,
            settings.limits,
        )
        try:
            probe = core.Probe(_PROBE)
            with probe:
                pass
            reader = core.Reader(fd)
            try:
                seen = any(True for _ in reader.read(16))
                clock = str(reader.info()["clock"])
            finally:
                reader.close()
            return Trial(clock, os.fstat(fd).st_size, seen)
        finally:
            core.close()
    finally:
        os.close(fd)
        os.unlink(path)


def _space(directory: str, size: int) -> Check:
    system = os.statvfs(directory)
    free = system.f_bavail * system.f_frsize
    text = f"{free / 1e6:,.0f} MB free in {directory}; a segment takes {size / 1e6:,.1f} MB"
    if free >= _ROOM * size:
        return Check("space", OK, text)
    return Check(
        "space",
        WARN,
        f"{text}: there is room for fewer than {_ROOM} more processes",
        "free some space there, name another directory with OTEL_TRADING_DIR, or make ring.slots smaller",
    )


def _clock(clock: str) -> Check:
    kernel = ""
    try:
        with open(_KERNELS, encoding="ascii") as file:
            kernel = file.read(64).strip()
    except OSError:
        pass
    said = f"{clock}{f', the kernel has {kernel}' if kernel else ''}"
    if "tsc" in clock.lower() or "cntvct" in clock.lower():
        return Check("clock", OK, said)
    from otel_trading._backend import backend

    if backend == "pure" or kernel in {"", "tsc", "arch_sys_counter"}:
        return Check("clock", OK, said)
    return Check(
        "clock",
        WARN,
        f"{said}: each reading of the clock is a call of the kernel's",
        "where the machine has a stable counter, boot with tsc=reliable; in a virtual machine, ask its host for one",
    )
