"""What is installed, and what is recording now: the facts of ``otel-trading info``."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from typing import Any

from otel_trading import _backend
from otel_trading._version import __version__
from otel_trading.budget import overview
from otel_trading.config.effective import Effective, plain_settings
from otel_trading.errors import OtelTradingError
from otel_trading.segment import attach, default_directory, segments


def document(directory: str | None = None) -> dict[str, Any]:
    """Look at everything; nothing is raised for what can not be read."""
    effective = Effective()
    where = directory or (effective.settings and effective.settings.directory) or default_directory()
    found: dict[str, Any] = {
        "version": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "backend": _backend.backend,
        "backend_reason": _backend.reason,
        "clock": clock(),
        "directory": where,
    }
    try:
        every = segments(where)
        found["segments"] = [_segment(one) for one in every if one.alive and not one.closed]
        found["dead_segments"] = len(every) - len(found["segments"])
    except OtelTradingError as error:
        found.update(segments=[], dead_segments=0, directory_error=str(error))
    found["configuration"] = effective.document()
    return found


def clock() -> str:
    """Name the clock that a recorder takes here."""
    from otel_trading.doctor.recorder import tried

    settings = plain_settings()
    settings.ring_slots = settings.ring_thread_slots = settings.names_max = settings.orders_max = 16
    settings.ring_open_spans, settings.ring_arena_bytes = 1, 4096
    try:
        with tempfile.TemporaryDirectory(prefix="otel-trading-info-") as directory:
            return tried(settings, directory).clock
    except (OtelTradingError, OSError, RuntimeError) as error:
        return f"not known ({error})"


def _segment(one: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "pid": one.pid,
        "service": one.service,
        "path": one.path,
        "age_s": round(max(0.0, time.time() - one.created_ns / 1e9), 1),
    }
    try:
        reader = attach(one.path)
    except OtelTradingError as error:
        return {**found, "error": str(error)}
    try:
        found["spans"] = sum(account["recorded"] for account in reader.accounts())
        found["open_spans"] = len(reader.open_spans())
        found["budget"] = overview.document(one.path)
    except OtelTradingError as error:  # it has ended meanwhile
        return {**found, "error": str(error)}
    finally:
        reader.close()
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """Give the same as text."""
    told = [
        f"otel-trading {found['version']}",
        f"  backend    {found['backend']}: {found['backend_reason']}",
        f"  clock      {found['clock']}",
        f"  python     {found['python']}",
        f"  system     {found['system']}",
        f"  directory  {found['directory']}",
    ]
    if "directory_error" in found:
        told.append(f"             {found['directory_error']}")
    alive, dead = found["segments"], found["dead_segments"]
    told += [
        "",
        f"{len(alive)} process{'es' if len(alive) != 1 else ''} recording; segments of {dead} dead ones are kept",
    ]
    if alive:
        told.append(f"  {'pid':>8}  {'service':<24}  {'spans':>12}  {'open':>6}  age")
    for one in alive:
        name = f"  {one['pid']:>8}  {one['service'][:24]:<24}"
        counts = one.get("error") or f"{one['spans']:>12,}  {one['open_spans']:>6,}  {_age(one['age_s'])}"
        told.append(f"{name}  {counts}")
        if "error" not in one:
            told += [f"            {line}" for line in _budget(one["budget"])]
    configuration = found["configuration"]
    changed = {key: item for key, item in configuration["values"].items() if item["source"] != "default"}
    told += ["", f"Configuration: {configuration['file'] or 'no file'}"]
    told += [f"  {key} = {item['value']}  ({item['source']})" for key, item in changed.items()]
    told += [f"  mistake: {one['key']}: {one['message']}" for one in configuration["problems"]]
    if not changed and not configuration["problems"]:
        told.append("  all defaults")
    following = "otel-trading config check" if configuration["problems"] else "otel-trading doctor"
    return [*told, "", f"Next: {following}"]


def _budget(found: dict[str, Any]) -> list[str]:
    """Give mode, budget and keep rules of a process."""
    if not found["governed"]:
        return [f"mode {overview.mode_text(found)}; no budget, every trace is kept"]
    usage = "; ".join(f"{name} {overview.used_text(name, **pair)}" for name, pair in found["usage"].items())
    return [
        f"mode   {overview.mode_text(found)}",
        f"uses   {usage}",
        f"keeps  {overview.rules_text(found)}",
        f"kept   {overview.kept_text(found)}",
    ]


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
