"""What there is to look into: segments where programs record, and the archive; and which of them is meant."""

from __future__ import annotations

import difflib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_trading.errors import OtelTradingError, SegmentError
from otel_trading.forensics import archive, evidence
from otel_trading.forensics.how_it_ended import ALIVE, GONE, End, look, with_told
from otel_trading.segment import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.forensics.evidence import Evidence

LIVES, DIED, ENDED, ARCHIVED = "alive", "died", "ended", "archived"


class Candidate(NamedTuple):
    """A segment that can be looked into."""

    path: str
    service: str = ""
    pid: int = 0
    state: str = DIED
    """"alive", "died", "ended" (orderly), or "archived"."""
    unix_ns: int = 0
    """Its last sign of life, or when it was kept; of a live one when it was made."""
    cause: str | None = None
    """As its report has it."""
    report: str | None = None
    """Path of the report that is beside it."""


def candidates(directory: str, crashes: str) -> list[Candidate]:
    """List what there is, oldest first.  Raises SegmentDirectoryError where a directory is not safe."""
    found = [_recorded(one) for one in files.segments(directory)]
    for kept in archive.kept(crashes):
        told = archive.read_report(kept.report) if kept.report else None
        service, pid = _named(kept.stem)
        process = _table(told, "process")
        when = process.get("end_ns")
        cause = _table(told, "cause").get("name")
        if kept.segment is None:
            continue
        found.append(
            Candidate(
                kept.segment,
                evidence.plain(process.get("service") or service, 255),
                pid,
                ARCHIVED,
                when if isinstance(when, int) and 0 < when < 1 << 63 else kept.unix_ns,
                evidence.plain(cause) if isinstance(cause, str) else None,
                kept.report,
            )
        )
    return sorted(found, key=lambda one: (one.unix_ns, one.path))


def _table(told: dict[str, Any] | None, name: str) -> dict[str, Any]:
    value = (told or {}).get(name)
    return value if isinstance(value, dict) else {}


def _named(stem: str) -> tuple[str, int]:
    """Read service and pid out of SERVICE-PID-TIME."""
    parts = stem.rsplit("-", 2)
    if len(parts) == 3 and parts[1].isdigit():  # noqa: PLR2004
        return parts[0], int(parts[1])
    return stem, 0


def _recorded(one: files.FoundSegment) -> Candidate:
    state = LIVES if one.alive else ENDED if one.closed else DIED
    when = one.created_ns
    if not one.alive:
        try:
            when = evidence.gather(one.path, spans=0, alive=False).last_word_ns
        except SegmentError:  # gone meanwhile, or damaged: when it was made has to do
            when = one.created_ns
    return Candidate(one.path, evidence.plain(one.service, 255), one.pid, state, when)


def choose(what: str | None, directory: str, crashes: str) -> Candidate:
    """Find what is meant: a path, a pid, a service, or None for the process that died last.

    Of several processes of a service the one with the newest sign of life is meant.  Raises OtelTradingError where
    there is none, SegmentDirectoryError where a directory is not safe.
    """
    if what is not None and (os.sep in what or os.path.lexists(what)):
        return _by_path(what)
    found = candidates(directory, crashes)
    if what is None:
        died = [one for one in found if one.state in {DIED, ARCHIVED}]
        if died:
            return died[-1]
        living = [one.service for one in found if one.state == LIVES]
        more = f"; alive are {', '.join(living[-5:])}: name one" if living else ""
        raise OtelTradingError(f"no process has died that recorded in {directory}, nor is one in {crashes}{more}")
    meant = [one for one in found if what in {str(one.pid), one.service, os.path.basename(one.path)}]
    if meant:  # what an orderly end has left, or an agent that has archived it, has little in it
        return next((one for one in reversed(meant) if one.state != ENDED), meant[-1])
    near = difflib.get_close_matches(what, {one.service for one in found}, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise OtelTradingError(
        f"there is no segment of a pid or a service {what!r} in {directory}, nor in {crashes}{hint} See otel-trading "
        "forensics --list"
    )


def _by_path(path: str) -> Candidate:
    beside = path.removesuffix(archive.PACKED) + archive.REPORT
    report = beside if path.endswith(archive.PACKED) and os.path.isfile(beside) else None
    return Candidate(path, report=report)


@contextmanager
def opened(one: Candidate) -> Iterator[int]:
    """Open a candidate's file, unpacked where it is packed.  Raises a SegmentError where it can not be."""
    fd = archive.unpack(one.path) if one.path.endswith(".gz") else files.open_segment(one.path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def look_into(one: Candidate, fd: int) -> tuple[Evidence, End]:
    """Gather the evidence, and say how it ended: by its report, by the kernel, or by what it told itself.

    Raises a SegmentError where the file is no segment, or another format's.
    """
    found = evidence.gather(fd, name=one.path, alive=False if _is_copy(one) else None)
    if found.alive:
        return found, End(ALIVE, pid=found.pid)
    told = found.life.get("ending")
    kept = _kept_end(one)
    if kept is not None:
        return found, kept
    if not found.same_boot or _is_copy(one):
        return found, with_told(End(GONE, pid=found.pid), told, closed=found.closed)
    end = look(found.pid, told=told, process_start=found.process_start, closed=found.closed)
    if end.source.startswith("the kernel (z"):
        end.unix_ns = 0  # it is still there, and died when it last wrote
    return found, end


def _is_copy(one: Candidate) -> bool:
    return one.path.endswith((archive.PACKED, archive.FLIGHT))


def _kept_end(one: Candidate) -> End | None:
    """Give the end as the report beside it has it: whoever was there asked the kernel."""
    told = archive.read_report(one.report) if one.report else None
    if told is None:
        return None
    try:
        end = End.unpack(_table(told, "end"))
        return end if _sound(end) else None
    except (KeyError, TypeError, ValueError):
        return None


def _sound(end: End) -> bool:
    """Tell whether an end from a file has values of the kinds that it must have."""
    numbers = all(value is None or type(value) is int for value in (end.pid, end.code, end.signal, end.unix_ns))
    texts = all(value is None or isinstance(value, str) for value in (end.exception, end.oom, end.source, end.kind))
    return numbers and texts and isinstance(end.certainty, (int, float)) and isinstance(end.unix_ns, int)
