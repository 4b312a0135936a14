"""The name table, and the tables of probes and instruments that refer to it."""

from __future__ import annotations

import struct
from _thread import RLock

from otel_trading import _layout as at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.instruments import Instrument
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.probes import Probe

_SHORT = 64  # bytes up to which an attribute's text is worth a name
_OTHER = "other"
_PROBE = struct.Struct(at.FORMAT_PROBE)
_INSTRUMENT = struct.Struct(at.FORMAT_INSTRUMENT)

probes: list[Probe] = []
"""All probes of the process, by id."""
instruments: list[Instrument] = []
"""All instruments of the process, by id."""


class Names:
    """The names of the present segment, or after its end of the last one."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._file: SegmentFile | None = None
        self.ids: dict[str, int] = {}
        self.texts: list[str] = []
        self._count = 0
        self._used = 0

    def open(self, file: SegmentFile) -> None:
        """Begin the tables of a new segment with what is registered."""
        self.ids, self.texts = {}, []
        self._count = self._used = 0
        self._file = file
        self._append("")
        self._append(_OTHER)
        for number, probe in enumerate(probes):
            self.write_probe(number, probe)
        for number, instrument in enumerate(instruments):
            self.write_instrument(number, instrument)

    def inherit(self, file: SegmentFile, texts: list[str]) -> None:
        """Go on with the tables of a process that has ended: probes and instruments are those that it registered."""
        self.texts = texts
        self.ids = {}
        for number, text in enumerate(texts):
            self.ids.setdefault(text, number)
        self._count = len(texts)
        self._used = min(file.words[at.OFF_HEADER_TEXT_USED // 8], file.words[at.OFF_HEADER_TEXT_BYTES // 8])
        self._file = file

    def close(self) -> None:
        """Let the file go; the texts stay."""
        self._file = None

    def forked(self) -> None:
        """Forget, in a child, the parent's file, and who held the lock there."""
        self._lock = RLock()
        self._file = None

    def _append(self, text: str) -> int:
        """Give the new name's id, or NAME_NONE where it has no room."""
        try:
            data = text.encode()
        except UnicodeEncodeError:  # lone surrogates
            return at.NAME_NONE
        size = len(data)
        with self._lock:
            file = self._file
            if file is None:
                return at.NAME_NONE
            found = self.ids.get(text)
            if found is not None:
                return found
            most = file.settings.max_names
            room = file.words[at.OFF_HEADER_TEXT_BYTES // 8]
            # A signal's handler may come in between and append too: number and place are taken in one go.
            number, offset = self._count, self._used
            if number >= most or size > at.NAME_BYTES or size > room - offset:
                return at.NAME_NONE
            self._count, self._used = number + 1, offset + size
            self.texts.append(text)
            file.map[file.text + offset : file.text + offset + size] = data
            halves, entry = file.halves, (file.names + at.SIZE_NAME * number) // 4
            halves[entry] = offset
            halves[entry + 1] = size
            file.words[at.OFF_HEADER_TEXT_USED // 8] = self._used
            halves[at.OFF_HEADER_NAME_COUNT // 4] = self._count
            self.ids[text] = number
        return number

    def name(self, text: str) -> int:
        """Give the id of a name; NAME_OTHER, counted, where the table is full."""
        number = self.ids.get(text) if text else at.NAME_NONE
        if number is None:
            number = self._append(text)
            if number == at.NAME_NONE:
                self._refused()
                return at.NAME_OTHER
        return number

    def key(self, text: str) -> int:
        """Give the id of an attribute's key; NAME_NONE, counted, where it has no room."""
        number = self._append(text) if text else at.NAME_NONE
        if number == at.NAME_NONE:
            self._refused()
        return number

    def value(self, text: str) -> int:
        """Give the id of a text that is worth one, else NAME_NONE; values find room in its first half."""
        if len(text) > _SHORT:
            return at.NAME_NONE
        number = self.ids.get(text)
        if number is not None:
            return number
        if not text.isascii() and len(text.encode(errors="replace")) > _SHORT:
            return at.NAME_NONE
        return self.tracestate(text)

    def tracestate(self, text: str) -> int:
        """Give the id of a text of any length that is no name, by the same rule; NAME_NONE where it has no room."""
        number = self.ids.get(text)
        if number is not None:
            return number
        file = self._file
        if file is None or self._count >= file.settings.max_names // 2:
            return at.NAME_NONE
        if self._used >= file.words[at.OFF_HEADER_TEXT_BYTES // 8] // 2:
            return at.NAME_NONE
        return self._append(text)

    def text(self, number: int) -> str:
        """Give the text of an id, "other" for an unknown one."""
        texts = self.texts
        return texts[number] if number < len(texts) else _OTHER

    def _refused(self) -> None:
        if self._file is not None:
            self._file.count(at.OFF_HEADER_NAMES_REFUSED)

    # ---- probes and instruments: as long as the process lives; their ids are positions in the lists ----

    def write_probe(self, number: int, probe: Probe) -> None:
        """Enter a probe in the file's table."""
        file = self._file
        if file is None:
            return
        scope = self.name(probe.scope)
        entry = (self.name(probe.name), probe.tier, probe.leaf, probe.kind, 0, probe.sla_ns, scope, 0)
        _PROBE.pack_into(file.map, file.probes + at.SIZE_PROBE * number, *entry)
        file.halves[at.OFF_HEADER_PROBE_COUNT // 4] = number + 1

    def write_instrument(self, number: int, instrument: Instrument) -> None:
        """Enter an instrument in the file's table."""
        file = self._file
        if file is None:
            return
        texts = (instrument.name, instrument.unit, instrument.description, instrument.attributes)
        entry = (*map(self.name, texts), instrument.kind, instrument.tier, instrument.off_cpu, 0, b"", 0, 0, 0, 0, 0)
        _INSTRUMENT.pack_into(file.map, file.instruments + at.SIZE_INSTRUMENT * number, *entry)
        file.halves[at.OFF_HEADER_INSTRUMENT_COUNT // 4] = number + 1

    def register_probe(self, probe: Probe) -> int:
        """Give a new probe its id; past the last one they all share the probe "other", counted."""
        last = at.MAX_PROBES - 1
        with self._lock:
            if len(probes) < last:
                return self._enter(probe)
            if len(probes) == last:
                self._enter(probe.catch_all(_OTHER, last))
        self._refused()
        return last

    def _enter(self, probe: Probe) -> int:
        number = len(probes)
        probes.append(probe)
        self.write_probe(number, probe)
        return number

    def register_instrument(self, instrument: Instrument) -> int:
        """Give a new instrument its id; -1 where the table is full: it records nothing."""
        with self._lock:
            number = len(instruments)
            if number >= at.MAX_INSTRUMENTS:
                return -1
            instruments.append(instrument)
            self.write_instrument(number, instrument)
        return number


names = Names()
