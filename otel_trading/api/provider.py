"""The tracer provider: OpenTelemetry's spans, written by the recorder."""

from __future__ import annotations

import atexit
import os
from _thread import allocate_lock
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from opentelemetry.trace import NoOpTracer, Tracer
from opentelemetry.trace import TracerProvider as Base

from otel_trading._backend import core
from otel_trading.api import context, hooks, sampling
from otel_trading.api.configuration import configure
from otel_trading.api.names import make_probe
from otel_trading.api.scopes import providers, scope_json
from otel_trading.faults import report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import (
        ConcurrentMultiSpanProcessor,
        SpanLimits,
        SpanProcessor,
        SynchronousMultiSpanProcessor,
    )
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler

    from otel_trading._backend import Span
    from otel_trading._native import SpanState


class TracerProvider(Base):
    """Gives tracers whose spans are spans of the recorder.

    The entry point ``otel_trading`` of ``opentelemetry_tracer_provider``.

    Takes what the SDK's provider takes.  ``sampler`` and ``id_generator`` default to what the environment asks for; the
    SDK's own samplers run inside the recorder, others are called for each span.  ``resource`` and ``span_limits`` hold
    where this provider is what configures the recorder: these are a process' own, so a later provider's only reach
    its span processors.  ``meter_provider`` is not used: the recorder counts for itself.

    Making one configures the recorder (``otel_trading.configure``) unless that has been done, and from then on
    OpenTelemetry's current context is the recorder's.  It raises nothing: what is wrong with the configuration is
    logged, and spans are then not recorded, but pass their context on.
    """

    def __init__(
        self,
        sampler: Sampler | None = None,
        resource: Resource | None = None,
        shutdown_on_exit: bool = True,  # noqa: FBT001, FBT002  the SDK's signature
        active_span_processor: SynchronousMultiSpanProcessor | ConcurrentMultiSpanProcessor | None = None,
        id_generator: IdGenerator | None = None,
        span_limits: SpanLimits | None = None,
        *,
        meter_provider: MeterProvider | None = None,  # noqa: ARG002
        _tracer_configurator: Callable[[Any], Any] | None = None,
    ) -> None:
        """Configure the recorder unless it is; some 10 ms the first time."""
        self._disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        self._given_resource = resource
        self._sampler = sampler
        self._id_generator = id_generator
        self._rule: sampling.Rule | None = None
        self._decide: sampling.Decide | None = None
        self._processor = active_span_processor
        self._tracer_configurator = _tracer_configurator
        self._lock = allocate_lock()
        self._tracers: dict[tuple[str, str, str, str], Tracer] = {}
        self._atexit_handler: Callable[[], None] | None = None
        if self._disabled:
            return
        hooks.install()
        configure(resource, span_limits)
        context.install()
        self._choose()
        if shutdown_on_exit:
            self._atexit_handler = atexit.register(self._at_exit)
        if hasattr(os, "register_at_fork"):
            import weakref

            renew = weakref.WeakMethod(self._renew)
            os.register_at_fork(after_in_child=lambda: (method := renew()) and method())

    def _renew(self) -> None:
        self._lock = allocate_lock()  # its holder may not exist in the child

    def _choose(self) -> None:
        """Find the rule that the recorder can apply, or what it has to ask."""
        if self._sampler is None:
            found = sampling.from_environment()
            if isinstance(found, sampling.Rule):
                self._rule = found
            else:
                self._sampler = found
        if self._sampler is not None:
            self._rule = sampling.rule_of(self._sampler)
        if self._id_generator is None:
            self._id_generator = sampling.generator_from_environment()
        if self._rule is None or (self._id_generator is not None and not _is_random(self._id_generator)):
            self._decide = sampling.decider(self.sampler, self.id_generator)

    # ---- what the SDK's provider lets one read ----

    @property
    def resource(self) -> Resource:
        """The resource: as given, else what the SDK makes of the environment and its detectors."""
        if self._given_resource is None:
            from opentelemetry.sdk.resources import Resource

            self._given_resource = Resource.create({})
        return self._given_resource

    @property
    def sampler(self) -> Sampler:
        """The sampler, as an object of the SDK's."""
        if self._sampler is None:
            self._sampler = sampling.sampler_of(self._rule or sampling.DEFAULT)
        return self._sampler

    @property
    def id_generator(self) -> IdGenerator:
        """The id generator, as an object of the SDK's."""
        if self._id_generator is None:
            from otel_trading.sdk.ids import RecorderIdGenerator

            self._id_generator = RecorderIdGenerator()
        return self._id_generator

    @property
    def _active_span_processor(self) -> SynchronousMultiSpanProcessor | ConcurrentMultiSpanProcessor:
        if self._processor is None:
            from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor

            self._processor = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        return self._processor

    # ---- tracers ----

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Tracer:
        """Return the tracer of an instrumentation scope; the same one for equal arguments.

        A NoOpTracer where ``OTEL_SDK_DISABLED`` is true.
        """
        if self._disabled:
            return NoOpTracer()
        if not instrumenting_module_name:
            import logging

            instrumenting_module_name = ""
            logging.getLogger("otel_trading").error("get_tracer was called without the name of a module")
        scope = (instrumenting_module_name, instrumenting_library_version or "", schema_url or "")
        text = scope_json(*scope, attributes) if attributes else ""
        key = (*scope, text)
        found = self._tracers.get(key)
        if found is None:
            with self._lock:
                found = self._tracers.get(key)
                if found is None:
                    found = self._tracers[key] = self._make(text or scope_json(*scope, None))
        return found

    def _make(self, scope: str) -> Tracer:
        rule = self._rule or sampling.DEFAULT
        tracer = core.Tracer(
            scope, partial(make_probe, scope), rule.sampler, rule.bound, rule.parent_based, self._decide
        )
        providers[scope] = self
        self._connect(tracer)
        self._set_enabled(tracer)
        return tracer  # type: ignore[return-value]  # registered with the ABC

    def _connect(self, tracer: Any) -> None:
        """Have a tracer's spans go through the span processors, where there are any."""
        if self._processor is None:
            return
        tracer.on_start = self._on_start
        tracer.on_end = self._on_end

    def _on_start(self, span: Span, parent_context: Context | None) -> None:
        from otel_trading.api import readable

        try:
            readable.started(span)
            self._active_span_processor.on_start(span, parent_context=parent_context)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001  a processor of anyone's may fail in any way
            report("on_start", f"a span processor failed at a span's start: {error!r}")

    def _on_end(self, span: Span, state: SpanState) -> None:
        from otel_trading.api import readable

        try:
            made = readable.ended(span, state, self.resource)
            processor = self._active_span_processor
            processor._on_ending(span)  # type: ignore[arg-type]  # noqa: SLF001  the SDK's interface for it
            processor.on_end(made)
        except Exception as error:  # noqa: BLE001  a processor of anyone's may fail in any way
            report("on_end", f"a span processor failed at a span's end: {error!r}")

    def _set_enabled(self, tracer: Any) -> None:
        if self._tracer_configurator is None:
            return
        from otel_trading.api.readable import scope

        try:
            tracer.enabled = bool(self._tracer_configurator(scope(tracer.scope)).is_enabled)
        except Exception as error:  # noqa: BLE001  a configurator of anyone's may fail in any way
            report("configurator", f"the tracer configurator failed, the tracer stays enabled: {error!r}")

    def _set_tracer_configurator(self, *, tracer_configurator: Callable[[Any], Any]) -> None:
        """Apply a tracer configurator to all tracers, those to come and those there are."""
        with self._lock:
            self._tracer_configurator = tracer_configurator
            for tracer in self._tracers.values():
                self._set_enabled(tracer)

    # ---- span processors ----

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Have a span processor told of each span that is recorded from now on, at its start and its end.

        Costs each span what the processor costs, and some 20 µs for the ReadableSpan that it gets.  The recorder goes
        on exporting as configured: a processor that exports to the same place sends each span twice.
        """
        if self._disabled:
            return
        processor = self._active_span_processor
        with self._lock:
            processor.add_span_processor(span_processor)
            for tracer in self._tracers.values():
                self._connect(tracer)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the span processors, then drain and export what is recorded; False where the time was too short."""
        if self._disabled:
            return True
        deadline = monotonic() + timeout_millis / 1000.0
        done = True
        if self._processor is not None:
            done = bool(self._processor.force_flush(timeout_millis))
        from otel_trading import lifecycle

        return lifecycle.flush(max(0.0, deadline - monotonic())) and done

    def shutdown(self) -> None:
        """Shut the span processors down, and flush the recorder, which goes on: it is the process'."""
        if self._disabled:
            return
        self._at_exit()
        from otel_trading import lifecycle

        lifecycle.flush()

    def _at_exit(self) -> None:
        # The recorder flushes itself at the exit.
        if self._atexit_handler is not None:
            atexit.unregister(self._atexit_handler)
            self._atexit_handler = None
        if self._processor is not None:
            self._processor.shutdown()


def _is_random(generator: IdGenerator) -> bool:
    """Tell whether a generator does what the recorder does by itself."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    from otel_trading.sdk.ids import RecorderIdGenerator

    return type(generator) in (RandomIdGenerator, RecorderIdGenerator)
