"""Which spans a tracer takes: the SDK's samplers, by their decisions, in the recorder where it knows them.

The standard samplers become numbers that the recorder looks at itself; no SDK is imported for them, and none is called.
Any other sampler, and any id generator, is asked for each span, as the SDK asks it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.trace import SpanKind, get_current_span

from otel_trading.api.hooks import KINDS
from otel_trading.faults import report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import Link

    Decision = tuple[int, int, int, str | None, Mapping[str, Any] | None, bool]
    Decide = Callable[[Context | None, int, str, Any, Mapping[str, Any] | None, Sequence[Link] | None], Decision]

_TAKE, _DROP, _RATIO = 0, 1, 2
_RANGE = 1 << 64
_MOST_TRACE_ID = (1 << 128) - 1
_MOST_SPAN_ID = _RANGE - 1


class Rule(NamedTuple):
    """A sampler that the recorder knows: ``core.Tracer``'s ``sampler``, ``bound`` and ``parent_based``."""

    sampler: int = _TAKE
    bound: int = 0
    parent_based: bool = True


DEFAULT = Rule()


def ratio(rate: float, *, parent_based: bool) -> Rule:
    """Give the rule that takes a share of traces, by the trace id's low 64 bits.  ``rate`` is from 0 to 1."""
    bound = round(rate * _RANGE)
    if bound >= _RANGE:
        return Rule(_TAKE, 0, parent_based)
    return Rule(_RATIO, bound, parent_based) if bound else Rule(_DROP, 0, parent_based)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        report("sampler", f"OTEL_TRACES_SAMPLER_ARG={text!r} is not a number from 0 to 1: 1 is taken")
        return 1.0
    return rate


def from_environment() -> Rule | Sampler:
    """Give the sampler that ``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG`` ask for.

    The standard names, or an entry point of ``opentelemetry_traces_sampler``.  What cannot be had is a fault, and
    ``parentbased_always_on`` is taken.
    """
    asked = os.environ.get("OTEL_TRACES_SAMPLER", "").strip()
    name = asked.lower()
    parent_based = name.startswith("parentbased_")
    root = name.removeprefix("parentbased_")
    if root == "always_on":
        return Rule(_TAKE, 0, parent_based)
    if root == "always_off":
        return Rule(_DROP, 0, parent_based)
    if root == "traceidratio":
        return ratio(_rate(os.environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()), parent_based=parent_based)
    if not name:
        return DEFAULT
    try:
        factory = _entry_point("opentelemetry_traces_sampler", asked)
        from opentelemetry.sdk.trace.sampling import Sampler

        made = factory(os.environ.get("OTEL_TRACES_SAMPLER_ARG"))
        if not isinstance(made, Sampler):
            raise TypeError(f"its factory made a {type(made).__name__}, which is no Sampler")
    except Exception as error:  # noqa: BLE001  a factory of anyone's may fail in any way
        report("sampler", f"OTEL_TRACES_SAMPLER={asked!r} cannot be had ({error!r}): parentbased_always_on is taken")
        return DEFAULT
    return made


def generator_from_environment() -> IdGenerator | None:
    """Give the id generator that ``OTEL_PYTHON_ID_GENERATOR`` asks for; None is the recorder's own, which is random."""
    name = os.environ.get("OTEL_PYTHON_ID_GENERATOR", "").strip()
    if name in ("", "random", "otel_trading"):
        return None
    try:
        made: IdGenerator = _entry_point("opentelemetry_id_generator", name)()
    except Exception as error:  # noqa: BLE001  anyone's
        report("ids", f"OTEL_PYTHON_ID_GENERATOR={name!r} cannot be had ({error!r}): ids are random")
        return None
    return made


def _entry_point(group: str, name: str) -> Any:
    from opentelemetry.util._importlib_metadata import entry_points

    for point in entry_points(group=group, name=name):
        return point.load()
    raise LookupError(f"no installed package has an entry point {name!r} in {group}")


_MODULE = "opentelemetry.sdk.trace.sampling"
# By exact type: a subclass of the application's may decide otherwise.
_PARENT_BASED = frozenset({"ParentBased", "ParentBasedTraceIdRatio", "_ParentBasedAlwaysOn", "_ParentBasedAlwaysOff"})
_STATIC = frozenset({"StaticSampler", "_AlwaysOn", "_AlwaysOff"})


def rule_of(sampler: Any) -> Rule | None:
    """Give the rule of a sampler of the SDK's own kinds; None for any other, and for what a later SDK has changed."""
    try:
        if _kind(sampler) not in _PARENT_BASED:
            return _plain(sampler)
        usual = (
            _static(sampler._remote_parent_sampled),  # noqa: SLF001
            _static(sampler._remote_parent_not_sampled),  # noqa: SLF001
            _static(sampler._local_parent_sampled),  # noqa: SLF001
            _static(sampler._local_parent_not_sampled),  # noqa: SLF001
        )
        root = _plain(sampler._root)  # noqa: SLF001
    except AttributeError:
        return None
    return root._replace(parent_based=True) if root is not None and usual == (_TAKE, _DROP, _TAKE, _DROP) else None


def _kind(sampler: Any) -> str:
    kind = type(sampler)
    return kind.__name__ if kind.__module__ == _MODULE else ""


def _static(sampler: Any) -> int | None:
    if _kind(sampler) not in _STATIC:
        return None
    return {"RECORD_AND_SAMPLE": _TAKE, "DROP": _DROP}.get(sampler._decision.name)  # noqa: SLF001


def _plain(sampler: Any) -> Rule | None:
    if _kind(sampler) == "TraceIdRatioBased":
        return ratio(sampler.rate, parent_based=False)
    number = _static(sampler)
    return None if number is None else Rule(number, 0, parent_based=False)


def sampler_of(rule: Rule) -> Sampler:
    """Make the SDK's sampler of a rule."""
    from opentelemetry.sdk.trace import sampling

    root: Sampler
    if rule.sampler == _RATIO:
        root = sampling.TraceIdRatioBased(rule.bound / _RANGE)
    else:
        root = sampling.ALWAYS_ON if rule.sampler == _TAKE else sampling.ALWAYS_OFF
    return sampling.ParentBased(root) if rule.parent_based else root


def decider(sampler: Sampler, generator: IdGenerator) -> Decide:
    """Give the function that asks a sampler and an id generator of any kind, in the SDK's order; it never raises.

    Where one of them does, the span is recorded and sampled, with random ids.
    """

    def decide(
        context: Context | None,
        trace_id: int,
        name: str,
        kind: Any,
        attributes: Mapping[str, Any] | None,
        links: Sequence[Link] | None,
    ) -> Decision:
        root = not trace_id
        try:
            if root:
                trace_id = generator.generate_trace_id()
            kind = kind if isinstance(kind, SpanKind) else KINDS[kind]
            result = sampler.should_sample(context, trace_id, name, kind, attributes, links or ())
            state = result.trace_state
            if root:
                random = generator.is_trace_id_random()
            else:
                random = get_current_span(context).get_span_context().trace_flags.random_trace_id
            span_id = generator.generate_span_id()
            if not (0 < trace_id <= _MOST_TRACE_ID and 0 < span_id <= _MOST_SPAN_ID):
                raise ValueError(f"trace id {trace_id!r} or span id {span_id!r} is not a positive number of its size")
            return (
                trace_id,
                span_id,
                result.decision.value,
                state.to_header() if state else None,
                result.attributes,
                bool(random),
            )
        except Exception as error:  # noqa: BLE001  a sampler of anyone's may fail in any way
            report("decide", f"sampler {type(sampler).__name__} or its ids failed, the span is taken: {error!r}")
            return _taken(0 if root else trace_id, attributes)

    return decide


def _taken(trace_id: int, attributes: Mapping[str, Any] | None) -> Decision:
    from otel_trading.sdk.ids import random_span_id, random_trace_id

    return trace_id or random_trace_id(), random_span_id(), 2, None, attributes, True
