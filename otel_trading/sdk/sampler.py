"""Head sampling by tier, with consistent probability: a trace that a tier of 0.1 takes, one of 0.5 takes too.

The probability of a sampled span is in its ``tracestate`` as OpenTelemetry's threshold (``ot=th:``), so that whoever
gets the spans can tell how many each one stands for.  The randomness is that of the trace id, or what ``ot=rv:`` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import TraceState, get_current_span

from otel_trading.api.names import tier_by_rule, tier_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext, SpanKind

_BITS = 56
_ALL = 1 << _BITS  # the threshold that nothing reaches
_MASK = _ALL - 1
_DIGITS = 14
_KEY = "ot"
_LONGEST = 256
_HEX = frozenset("0123456789abcdef")
_TIERS = 4


class TradingTierSampler(Sampler):
    """Takes a share of the traces, by the tier of their root.

    ``rates`` are four probabilities, P0 to P3.  A root's tier is its attribute ``trading.tier``, or by the rules of the
    configuration's ``tiers``, else P1.  A span with a parent follows its parent's sampled flag, and keeps its
    threshold. Some 5 µs a root.  Raises ValueError for what is no probability.
    """

    def __init__(self, rates: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        """Take the share of each tier's traces."""
        if len(rates) != _TIERS or not all(0.0 <= rate <= 1.0 for rate in rates):
            raise ValueError(f"rates {tuple(rates)!r} are not four numbers from 0 to 1, one for each of P0 to P3")
        self._rates = tuple(float(rate) for rate in rates)
        self._thresholds = tuple(_ALL - round(rate * _ALL) for rate in self._rates)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,  # noqa: ARG002  the SDK's signature
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
        trace_state: TraceState | None = None,  # noqa: ARG002  the SDK passes none: the parent's counts
    ) -> SamplingResult:
        """Decide on a span; see the class."""
        parent = get_current_span(parent_context).get_span_context()
        if parent is not None and parent.is_valid:
            return _followed(parent, trace_id, attributes)
        tier = tier_number(attributes.get("trading.tier")) if attributes else None
        threshold = self._thresholds[tier_by_rule(name) if tier is None else tier]
        if trace_id & _MASK < threshold:
            return SamplingResult(Decision.DROP)
        return SamplingResult(
            Decision.RECORD_AND_SAMPLE, attributes, TraceState([(_KEY, f"th:{_threshold_text(threshold)}")])
        )

    def get_description(self) -> str:
        """Return the sampler's name and rates."""
        return "TradingTierSampler{" + ",".join(f"P{tier}={rate:g}" for tier, rate in enumerate(self._rates)) + "}"


def tier_sampler(argument: str | None = None) -> TradingTierSampler:
    """Make the sampler of ``OTEL_TRACES_SAMPLER=trading_tiers`` from ``OTEL_TRACES_SAMPLER_ARG``.

    ``argument`` is one share for all tiers ("0.1"), or shares of some, the others being 1: "P1=0.5,P2=0.1,P3=0.01".
    Raises ValueError for anything else.
    """
    rates = [1.0] * _TIERS
    text = "" if argument is None else str(argument).strip()
    if not text:
        return TradingTierSampler(rates)
    if "=" not in text:
        return TradingTierSampler([_rate(text, text)] * _TIERS)
    for item in text.split(","):
        name, equals, value = item.partition("=")
        tier = tier_number(name)
        if tier is None or not equals:
            raise ValueError(f"OTEL_TRACES_SAMPLER_ARG={text!r}: {item.strip()!r} is not of the form P1=0.5")
        rates[tier] = _rate(value, text)
    return TradingTierSampler(rates)


def _rate(value: str, text: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG={text!r}: {value.strip()!r} is not a number from 0 to 1")
    return rate


def _followed(parent: SpanContext, trace_id: int, attributes: Mapping[str, Any] | None) -> SamplingResult:
    """Decide as the parent's trace was decided, whose threshold holds where it agrees with that."""
    state = parent.trace_state
    sampled = parent.trace_flags.sampled
    found = state.get(_KEY) if state else None
    if found is not None:
        fields = _fields(found)
        threshold = _threshold(fields.get("th"))
        if "th" in fields and (threshold is None or not sampled or _randomness(fields, trace_id) < threshold):
            # A threshold that the decision contradicts would make counts wrong: it goes, the rest stays.
            del fields["th"]
            rest = ";".join(text if value is None else f"{text}:{value}" for text, value in fields.items())
            state = state.update(_KEY, rest) if rest else state.delete(_KEY)
    if not sampled:
        return SamplingResult(Decision.DROP, None, state)
    return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)


def _fields(text: str) -> dict[str, str | None]:
    """Take OpenTelemetry's member of a tracestate apart: ``th:8;rv:…``; {} where it is longer than it may be."""
    if len(text) > _LONGEST:
        return {}
    fields: dict[str, str | None] = {}
    for part in text.split(";"):
        key, colon, value = part.partition(":")
        fields[key] = value if colon else None
    return fields


def _threshold(text: str | None) -> int | None:
    """Read a threshold: up to 14 digits, without the zeros at the end."""
    if not text or len(text) > _DIGITS or not _HEX.issuperset(text):
        return None
    return int(text.ljust(_DIGITS, "0"), 16)


def _randomness(fields: Mapping[str, str | None], trace_id: int) -> int:
    """Read a trace's randomness, 56 bits: what it says itself, else the low bits of its id."""
    text = fields.get("rv")
    if text is not None and len(text) == _DIGITS and _HEX.issuperset(text):
        return int(text, 16)
    return trace_id & _MASK


def _threshold_text(threshold: int) -> str:
    return f"{threshold:014x}".rstrip("0") or "0"
