"""What is installed, and what is recording now: the facts of ``otel-trading info``."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from typing import Any

from otel_trading import _backend
from otel_trading import _layout as at
from otel_trading._version import __version__
from otel_trading.agent import files
from otel_trading.budget import overview
from otel_trading.config.effective import Effective, plain_settings
from otel_trading.errors import OtelTradingError
from otel_trading.segment import attach, default_directory, role, segments
from otel_trading.segment.files import open_segment


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
    found["agent"] = _agent(where)
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


def _agent(where: str) -> dict[str, Any] | None:
    """Say which agent drains a directory's segments; None where there is none."""
    try:
        if not files.is_running(where):
            return None
    except OtelTradingError:  # the directory is not safe, which is told
        return None
    words = files.words(where)
    return {
        "pid": words.pid,
        "age_s": round(max(0.0, time.time() - words.started_ns / 1e9), 1),
        "beat_age_s": round(max(0, time.monotonic_ns() - words.beat_ns) / 1e9, 1),
        "segments": words.segments,
        "watchdog": words.watchdog_pid or None,
    }


def _host(path: str) -> str:
    """Say who drains a segment: the process itself, the agent, or nobody."""
    fd = open_segment(path, os.O_RDONLY)
    try:
        asked = role.hosts(fd, path)
    finally:
        os.close(fd)
    if not role.is_held(path):
        return "nobody"
    return "agent" if asked.host_now == at.HOST_AGENT else "embedded"


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
        found["host"] = _host(one.path)
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
    if found["agent"] is not None:
        agent = found["agent"]
        beside = f", watchdog {agent['watchdog']}" if agent["watchdog"] else ""
        told.append(f"  agent      pid {agent['pid']}{beside}, drains {agent['segments']} segments")
    alive, dead = found["segments"], found["dead_segments"]
    told += [
        "",
        f"{len(alive)} process{'es' if len(alive) != 1 else ''} recording; segments of {dead} dead ones are kept",
    ]
    if alive:
        told.append(f"  {'pid':>8}  {'service':<24}  {'spans':>12}  {'open':>6}  {'drained by':<10}  age")
    for one in alive:
        name = f"  {one['pid']:>8}  {one['service'][:24]:<24}"
        counts = (
            one.get("error") or f"{one['spans']:>12,}  {one['open_spans']:>6,}  {one['host']:<10}  {_age(one['age_s'])}"
        )
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
