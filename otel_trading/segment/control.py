"""The control page: steer a recording process from any process, without touching anything else of it."""

from __future__ import annotations

import time

from otel_trading import _layout as at
from otel_trading.errors import ControlError
from otel_trading.segment.pages import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

_SCALE = 1 << at.SAMPLE_BITS
_HALF = (_SCALE >> 1) << 8 | at.TIER_ON
_TIER_WORD = at.OFF_CONTROL_TIER_WORD // 8
_ASKED = at.OFF_CONTROL_ASKED // 8
_SHED = at.OFF_CONTROL_SHED // 8
_ALL_ON = (at.TIER_ON,) * at.TIERS
_SHED_IN = (_ALL_ON, _ALL_ON, (at.TIER_ON, at.TIER_ON, _HALF, 0), (at.TIER_ON, 0, 0, 0))
"""What a mode leaves of the tiers, by OT_MODE_*."""


class Control(Page):
    """The switches of a recording process; what is set is in force at its next record.

    Two processes that steer at once may undo each other's change of the same word (``record`` and ``export`` share
    one); the last one wins.  Usable as ``with``, which closes it at the end.

    Tier P0 can not be switched off or thinned out, whatever is in the page: its word is not even read.

    Raises SegmentNotFoundError, SegmentForeignError, SegmentVersionError, SegmentTruncatedError or SegmentDamagedError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map the header and the control page, and nothing else."""
        super().__init__(path, "control page", at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL)
        self._path = path

    def __enter__(self) -> Control:  # noqa: PYI034  Self is younger than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, offset: int) -> int:
        return self.words[offset // 8]

    def _set(self, offset: int, value: int) -> None:
        self.words[offset // 8] = value
        self._changed()

    def _changed(self) -> None:
        generation = self.words[at.OFF_CONTROL_GENERATION // 8]
        self.words[at.OFF_CONTROL_GENERATION // 8] = (generation + 1) % (1 << 64)

    def _switch(self, bit: int, on: bool) -> None:  # noqa: FBT001  private, and always by position
        switches = self._get(at.OFF_CONTROL_SWITCHES)
        self._set(at.OFF_CONTROL_SWITCHES, switches | bit if on else switches & ~bit)

    @property
    def generation(self) -> int:
        """How many changes there have been."""
        return self._get(at.OFF_CONTROL_GENERATION)

    @property
    def record(self) -> bool:
        """The master switch: off, nothing at all is recorded."""
        return bool(self._get(at.OFF_CONTROL_SWITCHES) & at.SWITCH_RECORD)

    @record.setter
    def record(self, on: bool) -> None:
        self._switch(at.SWITCH_RECORD, on)

    @property
    def export(self) -> bool:
        """Whether spans go to the exporters; off, they still count in the metrics."""
        return bool(self._get(at.OFF_CONTROL_SWITCHES) & at.SWITCH_EXPORT)

    @export.setter
    def export(self, on: bool) -> None:
        self._switch(at.SWITCH_EXPORT, on)

    @property
    def sampling_rate(self) -> float:
        """The share of traces that is exported, 0 to 1; a trace is taken or left as a whole.  ControlError beyond.

        While the keep rules are at work it is the most that is taken of plain traces of P1 to P3.
        """
        return _share(self._get(at.OFF_CONTROL_THRESHOLD))

    @sampling_rate.setter
    def sampling_rate(self, rate: float) -> None:
        if not 0.0 <= rate <= 1.0:  # refuses NaN too
            raise ControlError(f"sampling rate {rate!r}: give a number from 0 to 1")
        # Traces whose random bits are below it are sampled out.
        self._set(at.OFF_CONTROL_THRESHOLD, _threshold(rate))

    # ---- tiers ----

    def tier(self, number: int) -> bool:
        """Tell whether a tier, 0 to 3, records.  ControlError for any other number."""
        return self.tier_rate(number) > 0.0

    def tier_rate(self, number: int) -> float:
        """Tell the share of its traces that a tier records: the least that people, mode, budget and rollout leave."""
        _check(number)
        return _rate(self.words[_TIER_WORD + number]) if number else 1.0

    def asked_rate(self, number: int) -> float:
        """Tell the share of a tier that was asked for, whatever is in force; 0 where it was switched off."""
        _check(number)
        return _rate(self.words[_ASKED + number]) if number else 1.0

    def set_tier(self, number: int, on: bool) -> None:  # noqa: FBT001  as enable(): one obvious argument
        """Switch a tier on or off.  ControlError for one that there is not, and for switching P0 off.

        On, it records as far as mode, budget and rollout let it.
        """
        _check(number)
        if number == 0 and not on:
            raise ControlError("tier P0 can not be switched off; to record nothing at all, switch `record` off")
        word = self.words[_ASKED + number]  # the sampling threshold is in it too, and stays
        self._ask(number, word | at.TIER_ON if on else word & ~at.TIER_ON)

    def set_tier_rate(self, number: int, rate: float) -> None:
        """Have a share of a tier's traces recorded, above 0 and up to 1.

        ControlError for another number, for a tier that there is not, and for anything less than all of P0.
        """
        _check(number)
        if not 0.0 < rate <= 1.0:  # refuses NaN too
            raise ControlError(
                f"tier P{number}: rate {rate!r} is not a number above 0 and up to 1; to switch it off, use set_tier"
            )
        if number == 0 and rate < 1.0:
            raise ControlError(f"tier P0 can not be thinned out to {rate!r}: all of it is always recorded")
        self._ask(number, min(_threshold(rate), _SCALE - 1) << 8 | self.words[_ASKED + number] & at.TIER_ON)

    @property
    def rollout(self) -> float:
        """The share of traces, 0 to 1, of which P1 to P3 are recorded; P0 always is.  ControlError beyond."""
        return _share(self._get(at.OFF_CONTROL_ROLLOUT))

    @rollout.setter
    def rollout(self, share: float) -> None:
        if not 0.0 <= share <= 1.0:  # refuses NaN too
            raise ControlError(f"rollout {share!r}: give a share from 0 to 1")
        self.words[at.OFF_CONTROL_ROLLOUT // 8] = min(_threshold(share), _SCALE - 1)
        self._put_in_force()

    def _ask(self, number: int, word: int) -> None:
        self.words[_ASKED + number] = word
        self._put_in_force()

    def _put_in_force(self) -> None:
        """Work the tier words out again: the governor does the same at its next tick."""
        words, rollout = self.words, self.words[at.OFF_CONTROL_ROLLOUT // 8]
        for tier in range(at.TIERS):
            asked, shed = words[_ASKED + tier], words[_SHED + tier]
            threshold = max(asked >> 8, shed >> 8, rollout if tier else 0)
            on = asked & shed & at.TIER_ON
            words[_TIER_WORD + tier] = min(threshold, _SCALE - 1) << 8 | on if tier else at.TIER_ON
        self._changed()

    # ---- modes ----

    @property
    def mode(self) -> int:
        """The mode in force, OT_MODE_*; ``budget.modes.name_of`` gives its name."""
        return self._get(at.OFF_CONTROL_MODE)

    @property
    def forced(self) -> int | None:
        """The mode that somebody asked for; None: the engine decides."""
        number = self._get(at.OFF_CONTROL_FORCED)
        return number - 1 if number else None

    @property
    def buffers_fit(self) -> bool:
        """Whether the rings have the size that the governor asks for (``core.fit_buffers`` gives it to them)."""
        return self._get(at.OFF_CONTROL_BUFFERS) == self._get(at.OFF_CONTROL_BUFFERS_NOW)

    def force(self, mode: int | str | None) -> None:
        """Put a mode in force, by number or name, until it is released with None: then the engine decides again.

        What monitoring may cost holds in a forced mode as well.  ControlError for a mode that there is not.
        """
        if mode is None:
            self.words[at.OFF_CONTROL_FORCED // 8] = 0
            if self._governed():
                self._changed()
            else:  # nobody else would
                self._enter(at.MODE_NORMAL, at.REASON_RECOVERED)
            return
        from otel_trading.budget.modes import MODES, number_of

        try:
            number = MODES.index(MODES[mode]) if isinstance(mode, int) and mode >= 0 else number_of(mode)
        except (ValueError, IndexError):
            raise ControlError(
                f"{mode!r:.100} is no mode: the modes are {', '.join(MODES)}, and P0 is recorded in each"
            ) from None
        self.words[at.OFF_CONTROL_FORCED // 8] = number + 1
        self._enter(number, at.REASON_FORCED)

    def _enter(self, mode: int, reason: int) -> None:
        if self.mode != mode:
            self.words[at.OFF_CONTROL_MODE // 8] = mode
            self.words[at.OFF_CONTROL_MODE_SINCE_NS // 8] = time.time_ns()
        self.words[at.OFF_CONTROL_MODE_REASON // 8] = reason
        for tier, word in enumerate(_SHED_IN[mode]):
            self.words[_SHED + tier] = word
        self._put_in_force()

    def _governed(self) -> bool:
        """Tell whether a governor is at work there."""
        policy = Page(self._path, "policy page", at.OFF_HEADER_POLICY_OFFSET, at.SIZE_POLICY)
        try:
            return policy.words[at.OFF_POLICY_ACTIVE // 8] == 1
        finally:
            policy.close()


def _check(number: int) -> None:
    if not 0 <= number < at.TIERS:
        raise ControlError(f"there is no tier {number!r}: the tiers are 0 (P0) to {at.TIERS - 1}")


def _threshold(rate: float) -> int:
    return round((1.0 - rate) * _SCALE)


def _share(threshold: int) -> float:
    return 1.0 - min(threshold, _SCALE) / _SCALE


def _rate(word: int) -> float:
    return _share(word >> 8) if word & at.TIER_ON else 0.0
