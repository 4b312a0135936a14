"""When a process has died, or hangs: its open spans end, a span tells why, a report is kept, an alert raised.

``record`` before the export, ``keep`` after it: so that what the process left behind is out within a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_trading import _layout as at
from otel_trading import faults, semconv
from otel_trading._backend import core
from otel_trading.forensics import archive, evidence, report
from otel_trading.forensics.causes import judge
from otel_trading.forensics.how_it_ended import ALIVE, EXIT, End, signal_name, with_told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_trading.alerts import Alert
    from otel_trading.config import Settings
    from otel_trading.forensics.causes import Verdict
    from otel_trading.forensics.evidence import Evidence
    from otel_trading.forensics.how_it_ended import Before

SPAN = evidence.DEATH_SPAN
_NEWEST = 2_000  # spans that are looked at before the export …
_SECONDS = 0.2  # … and the time that finding them may take
_LONGEST_NS = 3_600_000_000_000  # from the last sign of life to the death; what is longer is a clock that was set
_SYMBOLS = 10
_MEGABYTE = 1e6
_DEFAULT_QUOTA = 256.0


class Death:
    """A death that was looked into."""

    def __init__(self, path: str, end: End, found: Evidence | None, verdict: Verdict | None) -> None:
        """Take what is known."""
        self.path = path
        self.end = end
        self.found = found
        self.verdict = verdict
        self.interrupted = 0

    @property
    def orderly(self) -> bool:
        """Whether it ended as programs should: then there is no span, report or alert."""
        return self.end.orderly

    @property
    def cause(self) -> str:
        """The likely cause, or "unknown"."""
        return "unknown" if self.verdict is None else self.verdict.cause

    def keep(self, settings: Settings | None = None) -> dict[str, Any]:
        """Write report and segment into the archive, and raise an alert; never raises.

        Call it when the spans are out: packing the segment takes some 10 ms for each MB that is in it.  Gives
        ``cause``, ``confidence``, ``how``, ``report`` and ``segment`` (paths or None).
        """
        values = None if settings is None else settings.values
        told: dict[str, Any] = {
            "cause": self.cause,
            "confidence": 0.0 if self.verdict is None else self.verdict.confidence,
            "how": self.end.text,
            "report": None,
            "segment": None,
        }
        if self.orderly:
            return told
        try:
            told.update(self._archive(values))
        except Exception as error:  # noqa: BLE001 - the alert has to go out all the same
            faults.report("forensics.archive", f"the report of a death could not be kept: {error!r}")
        try:
            from otel_trading.alerts import raise_alert

            raise_alert(self.alert(told))
        except Exception as error:  # noqa: BLE001 - telemetry never breaks anything
            faults.report("forensics.alert", f"the alert of a death could not be raised: {error!r}")
        return told

    def _archive(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        found = evidence.gather(self.path, alive=False)
        if self.found is not None:  # of before its open spans were ended
            found.open_spans, found.memory_limit = self.found.open_spans, self.found.memory_limit
            found.pulses, found.vitals, found.life = self.found.pulses, self.found.vitals, self.found.life
        document = report.document(found, self.end, verdict=self.verdict)
        with archive.Archive(archive.directory_of(values), quota(values)) as where:
            kept = where.put(found.service, found.pid, self.end.unix_ns or found.seen_ns, document, self.path)
        return {"report": kept.report, "segment": kept.segment}

    def alert(self, told: Mapping[str, Any]) -> Alert:
        """Make the alert: critical; a warning for an exit code, information for an end that was asked for."""
        from otel_trading.alerts import CRITICAL, INFO, WARNING, Alert

        found, end = self.found, self.end
        severity = CRITICAL
        if end.requested:
            severity = INFO
        elif end.kind == EXIT and not end.exception and self.cause in {"exit", "unknown"}:
            severity = WARNING
        service = "unknown_service" if found is None else found.service
        pid = end.pid if found is None else found.pid
        cause = "cause unknown" if self.cause == "unknown" else f"likely cause {self.cause} ({told['confidence']:.0%})"
        details: dict[str, object] = {
            "how": end.text,
            "source": end.source,
            "confidence": told["confidence"],
            "evidence": [] if self.verdict is None else self.verdict.evidence,
            "report": told.get("report"),
            "segment": told.get("segment"),
            **self._counts(),
        }
        return Alert(
            "ProcessDied",
            severity,
            f"{service}, pid {pid}, died: {end.text}; {cause}",
            {"service": service, "pid": str(pid), "cause": self.cause},
            details,
            unix_ns=end.unix_ns or None,
        )

    def _counts(self) -> dict[str, object]:
        found = self.found
        if found is None:
            return {}
        opened = sum(order[3] < at.ORDER_FILLED for _, order in found.orders)
        return {"open_orders": opened, "open_spans": len(found.open_spans)}

    def attributes(self) -> dict[str, Any]:
        """Give the attributes of the span ``process.death``."""
        end, found, verdict = self.end, self.found, self.verdict
        told: dict[str, Any] = {semconv.DEATH_HOW: end.text, semconv.DEATH_CERTAINTY: end.certainty}
        if end.source:
            told[semconv.DEATH_SOURCE] = end.source
        if verdict is not None:
            told[semconv.DEATH_CAUSE] = verdict.cause
            told[semconv.DEATH_CONFIDENCE] = verdict.confidence
            told[semconv.DEATH_EVIDENCE] = "; ".join(verdict.evidence)
        if end.signal is not None:
            told["process.exit.signal"] = signal_name(end.signal)
        elif end.code is not None:
            told["process.exit.code"] = end.code
        if end.exception:
            told["exception.type"] = end.exception
        if found is not None:
            told["process.pid"] = found.pid
            told[semconv.DEATH_OPEN_SPANS] = len(found.open_spans)
            told[semconv.DEATH_OPEN_ORDERS] = sum(order[3] < at.ORDER_FILLED for _, order in found.orders)
            newest = sorted(found.markets, key=lambda one: int(one.get("received_ns") or 0), reverse=True)
            symbols = [evidence.plain(one.get("symbol") or "", 64) for one in newest[:_SYMBOLS]]
            if symbols:
                told[semconv.DEATH_SYMBOLS] = ", ".join(symbols)
        return told


def quota(values: Mapping[str, Any] | None) -> float:
    """Give what the archive may take, bytes."""
    told = (values or {}).get("forensics.quota_mb", _DEFAULT_QUOTA)
    return float(told) * _MEGABYTE


def record(path: str, end: End, before: Before | None = None, *, recorded: bool = False) -> Death:
    """Look into a death, end the open spans, and record ``process.death`` (not where it is ``recorded`` already).

    To be called where the segment at ``path`` is adopted, and its process has ended; the caller exports then, and calls
    ``Death.keep``.  Never raises.  Takes some 10 ms, at most 0.3 s.
    """
    found, verdict = None, None
    try:
        found = evidence.gather(path, spans=_NEWEST, alive=False, seconds=_SECONDS)
        if before is not None:
            limits = [limit for limit in (before.memory_limit, before.address_space_limit) if limit is not None]
            found.memory_limit = min(limits, default=None)
        end = with_told(end, found.life.get("ending"), closed=found.closed)
        end.pid = end.pid or found.pid
        verdict = judge(found, end)
    except Exception as error:  # noqa: BLE001 - a damaged segment; what is known is told all the same
        faults.report("forensics", f"{path} could not be looked into: {error!r}")
    death = Death(path, end, found, verdict)
    try:
        core.inherit()
        death.interrupted = core.interrupt_open(end.text if not end.orderly else "the process has ended", True)
        if not end.orderly and not recorded:
            _tell(death)
    except Exception as error:  # noqa: BLE001 - the drain goes on with what there is
        faults.report("forensics.death", f"the death could not be recorded in {path}: {error!r}")
    return death


def _tell(death: Death) -> None:
    """Record the span, in the trace of what the process was doing."""
    found, end = death.found, death.end
    start = stop = end.unix_ns
    parent = None
    if found is not None:
        stop = stop or found.last_word_ns
        start = found.last_word_ns if stop - _LONGEST_NS < found.last_word_ns <= stop else stop
        sampled = [span for span in found.open_spans if not span.flags & at.FLAG_UNSAMPLED]
        if sampled:
            parent = core.remote(sampled[-1].trace_id, sampled[-1].span_id, True, None)
    core.Probe(SPAN, 0).record(parent, start, stop, True, death.attributes())


def hang(path: str, settings: Settings | None = None) -> str | None:
    """Keep a report of a process that is alive, and may hang; reads its segment and /proc, and leaves it alone.

    Gives the report's path, or None where it could not be kept.  Never raises.
    """
    try:
        values = None if settings is None else settings.values
        found = evidence.gather(path)
        end = (
            End(ALIVE, pid=found.pid)
            if found.alive
            else with_told(End("gone", pid=found.pid), found.life.get("ending"))
        )
        with archive.Archive(archive.directory_of(values), quota(values)) as where:
            kept = where.put(found.service, found.pid, found.looked_ns, report.document(found, end), None)
    except Exception as error:  # noqa: BLE001 - the watchdog goes on
        faults.report("forensics.hang", f"the report of {path} could not be kept: {error!r}")
        return None
    return kept.report
