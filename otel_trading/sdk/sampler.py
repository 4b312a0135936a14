"""Head sampling by tier, with consistent probability: a trace that a tier of 0.1 takes, one of 0.5 takes too.

The probability of a sampled span is in its ``tracestate`` as OpenTelemetry's threshold (``ot=th:``), so that whoever
gets the spans can tell how many each one stands for.  The randomness is that of the trace id, or what ``ot=rv:`` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import TraceState, get_current_span

from otel_trading.api.names import tier_by_rule, tier_number
from otel_trading.sdk import thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext, SpanKind

_TIERS = 4
_NEVER_LESS = (
    "tier P0 can not be sampled, its share is always 1: order latency, market data, rejects and risk breaches are in"
    " it. Give shares to P1, P2 and P3, and put what is worth less into one of those (trading.tier, or the"
    " configuration's tiers)"
)


class TradingTierSampler(Sampler):
    """Takes a share of the traces, by the tier of their root.

    ``rates`` are four probabilities, P0 to P3, that of P0 being 1.  A root's tier is its attribute ``trading.tier``, or
    by the rules of the configuration's ``tiers``, else P1.  A span with a parent follows its parent's sampled flag, and
    keeps its threshold. Some 5 µs a root.  Raises ValueError for what is no probability, and for less than all of P0.
    """

    def __init__(self, rates: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        """Take the share of each tier's traces."""
        if len(rates) != _TIERS or not all(0.0 <= rate <= 1.0 for rate in rates):
            raise ValueError(f"rates {tuple(rates)!r} are not four numbers from 0 to 1, one for each of P0 to P3")
        if rates[0] < 1.0:
            raise ValueError(f"rates {tuple(rates)!r}: {_NEVER_LESS}")
        self._rates = tuple(float(rate) for rate in rates)
        self._thresholds = tuple(thresholds.of_rate(rate) for rate in self._rates)

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
            return followed(parent, trace_id, attributes)
        return decided(trace_id, self._thresholds[tier_of(name, attributes)], attributes)

    def get_description(self) -> str:
        """Return the sampler's name and rates."""
        return "TradingTierSampler{" + ",".join(f"P{tier}={rate:g}" for tier, rate in enumerate(self._rates)) + "}"


def tier_sampler(argument: str | None = None) -> TradingTierSampler:
    """Make the sampler of ``OTEL_TRACES_SAMPLER=trading_tiers`` from ``OTEL_TRACES_SAMPLER_ARG``.

    ``argument`` is one share for P1, P2 and P3 ("0.1"), or shares of some, the others being 1: "P1=0.5,P2=0.1,P3=0.01".
    P0 is always taken.  Raises ValueError for anything else.
    """
    rates = [1.0] * _TIERS
    text = "" if argument is None else str(argument).strip()
    if not text:
        return TradingTierSampler(rates)
    if "=" not in text:
        return TradingTierSampler([1.0, *[_rate(text, text)] * (_TIERS - 1)])
    for item in text.split(","):
        name, equals, value = item.partition("=")
        tier = tier_number(name)
        if tier is None or not equals:
            raise ValueError(f"OTEL_TRACES_SAMPLER_ARG={text!r}: {item.strip()!r} is not of the form P1=0.5")
        rates[tier] = _rate(value, text)
    if rates[0] < 1.0:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG={text!r}: {_NEVER_LESS}")
    return TradingTierSampler(rates)


def _rate(value: str, text: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG={text!r}: {value.strip()!r} is not a number from 0 to 1")
    return rate


def tier_of(name: str, attributes: Mapping[str, Any] | None) -> int:
    """Return the tier of a root: its attribute's, or its name's by the configuration, else P1."""
    tier = tier_number(attributes.get("trading.tier")) if attributes else None
    return tier_by_rule(name) if tier is None else tier


def decided(trace_id: int, threshold: int, attributes: Mapping[str, Any] | None) -> SamplingResult:
    """Decide on a root by a threshold, and say it in the trace's state."""
    if trace_id & thresholds.MASK < threshold:
        return SamplingResult(Decision.DROP)
    state = TraceState([(thresholds.KEY, f"th:{thresholds.written(threshold)}")])
    return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)


def followed(parent: SpanContext, trace_id: int, attributes: Mapping[str, Any] | None) -> SamplingResult:
    """Decide as the parent's trace was decided, whose threshold holds where it agrees with that."""
    state = parent.trace_state
    sampled = parent.trace_flags.sampled
    found = state.get(thresholds.KEY) if state else None
    if found is not None:
        fields = thresholds.fields(found)
        threshold = thresholds.threshold(fields.get("th"))
        if "th" in fields and (threshold is None or not sampled or thresholds.randomness(fields, trace_id) < threshold):
            # A threshold that the decision contradicts would make counts wrong: it goes, the rest stays.
            del fields["th"]
            rest = ";".join(text if value is None else f"{text}:{value}" for text, value in fields.items())
            state = state.update(thresholds.KEY, rest) if rest else state.delete(thresholds.KEY)
    if not sampled:
        return SamplingResult(Decision.DROP, None, state)
    return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)
