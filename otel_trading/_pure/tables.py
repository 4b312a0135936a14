"""Whose names, probes and instruments the drained records speak of: this process's own, or an adopted segment's."""

from __future__ import annotations

from otel_trading._pure.names import instruments, names, probes
from otel_trading._pure.recorder import recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class ProbeEntry(Protocol):
        """What the drain has to know of a probe."""

        name: str
        tier: int
        sla_ns: int
        kind: int
        scope: str
        id: int

    class InstrumentEntry(Protocol):
        """What the drain has to know of an instrument."""

        name: str
        unit: str
        description: str
        attributes: str
        kind: int
        tier: int
        id: int

    class Tables(Protocol):
        """The tables of a segment."""

        @property
        def probes(self) -> Sequence[ProbeEntry]:
            """By id."""

        @property
        def instruments(self) -> Sequence[InstrumentEntry]:
            """By id."""

        @property
        def limits(self) -> tuple[int, int, int]:
            """Attributes, events and links of a span that count."""

        def name(self, number: int) -> str:
            """Give the text of a name's id, "other" for an unknown one."""

        def refresh(self) -> None:
            """Take in what has been registered since."""


class _Own:
    """Those of the segment that this process records into."""

    probes = probes
    instruments = instruments

    @property
    def limits(self) -> tuple[int, int, int]:
        attributes, events, links = recorder.limits[:3]
        return attributes, events, links

    def name(self, number: int) -> str:
        return names.text(number)

    def refresh(self) -> None:
        """They are there."""


OWN = _Own()
