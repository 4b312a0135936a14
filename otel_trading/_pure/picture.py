"""``snapshot()``: the aggregates as Python objects."""

from __future__ import annotations

import struct
import time

from otel_trading import _layout as at
from otel_trading._pure.aggregate import EMPTY, Aggregate
from otel_trading._pure.host import instrument_table
from otel_trading._pure.instruments import double
from otel_trading._pure.passes import drain
from otel_trading._pure.writer import ATTRIBUTES_DROPPED, HEAD, META, OPEN, STATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.tables import InstrumentEntry, ProbeEntry
    from otel_trading._pure.writer import Writer

_INSTRUMENT = struct.Struct(at.FORMAT_INSTRUMENT)
_UPDATES, _SUM, _VALUE = 9, 10, 11  # in an unpacked one
_WORDS = at.SIZE_SLOT // 8


def snapshot() -> dict[str, Any]:
    """After a pass, all aggregates: see ``_native.pyi``."""
    drain.run()
    with drain.lock:
        file = drain.file
        table = drain.last_instruments if file is None else instrument_table(file)
        table = table or bytes(at.SIZE_INSTRUMENT * at.MAX_INSTRUMENTS)
        writers = list(drain.writers) if file is not None else []
        rings = [_ring(writer) for writer in writers]  # before a garbage collection on the way adds its pause
        return {
            "unix_ns": time.time_ns(),
            "start_unix_ns": drain.start_unix_ns,
            "probes": [_probe(probe) for probe in list(drain.tables.probes)],
            "instruments": [_instrument(instrument, table) for instrument in list(drain.tables.instruments)],
            "rings": rings,
            "drain": {"passes": drain.passes, "cpu_ns": drain.cpu_ns, "period_ms": drain.period_ms},
            "segment": _segment(file, writers),
        }


def _distribution(aggregate: Aggregate | None) -> dict[str, Any]:
    if aggregate is None:
        return {"total": EMPTY, "windows": {"1s": EMPTY, "5s": EMPTY, "1m": EMPTY}, "exemplars": []}
    exemplars = [aggregate.exemplars[power] for power in sorted(aggregate.exemplars)]
    return {"total": aggregate.all(), "windows": aggregate.windows(drain.second), "exemplars": exemplars}


def _probe(probe: ProbeEntry) -> dict[str, Any]:
    aggregate = drain.probes.get(probe.id)
    distribution = _distribution(aggregate)
    return {
        "name": probe.name,
        "tier": probe.tier,
        "sla_ns": probe.sla_ns,
        "count": distribution["total"][1],
        "kind": probe.kind,
        "scope": probe.scope,
        "errors": 0 if aggregate is None else aggregate.errors,
        "sla_breaches": 0 if aggregate is None else aggregate.sla_breaches,
        **distribution,
    }


def _instrument(instrument: InstrumentEntry, table: bytes) -> dict[str, Any]:
    entry = _INSTRUMENT.unpack_from(table, at.SIZE_INSTRUMENT * instrument.id)
    value: float | None = None
    if instrument.kind == at.INSTRUMENT_COUNTER:
        value = entry[_SUM] + double(entry[_VALUE]) if entry[_VALUE] else entry[_SUM]
    elif instrument.kind == at.INSTRUMENT_GAUGE and entry[_UPDATES]:
        value = double(entry[_VALUE])
    result = {
        "name": instrument.name,
        "unit": instrument.unit,
        "description": instrument.description,
        "attributes": instrument.attributes,
        "kind": instrument.kind,
        "tier": instrument.tier,
        "updates": entry[_UPDATES],
        "value": value,
    }
    if instrument.kind == at.INSTRUMENT_HISTOGRAM:
        result.update(_distribution(drain.instruments.get(instrument.id)))
    return result


def _ring(writer: Writer) -> dict[str, int]:
    ring = writer.ring
    head, tail = ring[HEAD], ring[at.OFF_RING_TAIL // 8]
    return {
        "thread_id": ring[at.OFF_RING_THREAD_ID // 8],
        "capacity": writer.capacity,
        "head": head,
        "tail": tail,
        "backlog": head - tail,
        "backlog_max": ring[at.OFF_RING_BACKLOG_MAX // 8],
    }


def _open_spans(writer: Writer) -> int:
    total = 0
    for piece, start, count in writer.tables:
        first = start // 8 + META
        states = piece.words[first : first + _WORDS * count : _WORDS].tolist()
        total += sum(word & STATE == OPEN for word in states)
    return total


def _segment(file: SegmentFile | None, writers: list[Writer]) -> dict[str, Any]:
    words = None if file is None else file.words

    def word(offset: int) -> int:
        return 0 if words is None else words[offset // 8]

    return {
        "bytes": word(at.OFF_HEADER_FILE_BYTES),
        "ring_bytes": sum(writer.capacity * at.SIZE_SLOT for writer in writers),
        "resident_bytes": 0 if file is None else file.resident_bytes(),
        "names_refused": word(at.OFF_HEADER_NAMES_REFUSED),
        "faults": word(at.OFF_HEADER_FAULTS),
        "text_overwritten": drain.text_overwritten,
        "values_overwritten": drain.values_overwritten,
        "attributes_dropped": sum(writer.ring[ATTRIBUTES_DROPPED] for writer in writers),
        "rings_damaged": drain.adopted.rings_damaged() if drain.adopted is not None else 0,
        "open_spans": sum(map(_open_spans, writers)),
        "clock": "monotonic" if drain.clock.is_plain else "tsc",
    }
