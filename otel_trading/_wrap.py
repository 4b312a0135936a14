"""Decorating functions of every kind.

A plain function is the backend's business (``core.traced``).  A coroutine function, a generator function and an
async generator function each get a wrapper of their own kind, so that introspection (``inspect``, frameworks
that choose by kind) sees what it saw before.

The kind is read from the code's flags; ``inspect`` is too slow to import for it.
"""

from __future__ import annotations

import sys

from otel_trading._backend import core
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import Any

    from otel_trading._backend import Probe

# inspect.CO_GENERATOR and so on: part of the language's documented interface, the same in all versions.
_GENERATOR = 0x20
_COROUTINE = 0x80
_ITERABLE_COROUTINE = 0x100
_ASYNC_GENERATOR = 0x200

# __annotate__ comes first where it is (3.14): to copy __annotations__ would evaluate them.
_COPIED = ("__module__", "__name__", "__qualname__", "__doc__", "__type_params__")


def wrap(probe: Probe, function: Any) -> Any:
    """Wrap ``function`` so that each call is a span of ``probe``.

    ``staticmethod`` and ``classmethod`` objects are wrapped inside.  What cannot be called is given back as it is
    and counts as a fault.  The wrapper has the original's name, docs, annotations, attributes and signature.
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(wrap(probe, function.__func__))
    if not callable(function):
        report("wrap", f"probe {probe.name!r}: {function!r} cannot be called, so it is not traced")
        return function
    flags = _flags(function)
    if flags & (_COROUTINE | _ITERABLE_COROUTINE):
        return _alike(_coroutine(probe, function), function)
    if flags & _ASYNC_GENERATOR:
        return _alike(_async_generator(probe, function), function)
    if flags & _GENERATOR:
        return _alike(_generator(probe, function), function)
    return core.traced(probe, function)


def _flags(function: Any) -> int:
    """The code flags of what a call runs in the end: through partials, bound methods and callable objects."""
    for _ in range(32):  # a bound against objects that point at themselves
        if isinstance(function, type):
            return 0
        if _marked(function):
            return _COROUTINE
        code = getattr(function, "__code__", None)
        if code is not None:
            return int(getattr(code, "co_flags", 0))
        inner = getattr(function, "__func__", None)
        if inner is None and hasattr(function, "keywords"):
            inner = getattr(function, "func", None)  # functools.partial
        if inner is None:
            inner = getattr(type(function).__call__, "__code__", None) and type(function).__call__
        if inner is None:
            return 0
        function = inner
    return 0


def _marked(function: Any) -> bool:
    """Tell whether ``inspect.markcoroutinefunction``, or asyncio's mark before it, was put on the function."""
    for module, mark, name in (
        ("inspect", "_is_coroutine_mark", "_is_coroutine_marker"),
        ("asyncio.coroutines", "_is_coroutine", "_is_coroutine"),
    ):
        found = getattr(sys.modules.get(module), mark, None)  # who marks has imported the module
        if found is not None and getattr(function, name, None) is found:
            return True
    return False


def _alike(wrapper: Any, function: Any) -> Any:
    """Do what ``functools.wraps`` does."""
    for name in (*_COPIED, "__annotate__" if hasattr(function, "__annotate__") else "__annotations__"):
        try:
            setattr(wrapper, name, getattr(function, name))
        except (AttributeError, TypeError):  # partials and callable objects lack some
            continue
    wrapper.__dict__.update(getattr(function, "__dict__", ()))
    wrapper.__wrapped__ = function
    return wrapper


def _coroutine(probe: Probe, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with probe:
            return await function(*args, **kwargs)

    async def call_leaf(*args: Any, **kwargs: Any) -> Any:
        token = probe.start()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            probe.stop(token, error)
            raise
        probe.stop(token)
        return result

    return call_leaf if probe.leaf else call


def _generator(probe: Probe, function: Callable[..., Any]) -> Callable[..., Any]:
    current = not probe.leaf

    def iterate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        span, result = probe.span(), None
        span.begin()
        try:
            generator = function(*args, **kwargs)
            step, value = generator.send, None
            while True:
                # Current while the body runs, and not while its consumer does.
                if current:
                    span.resume()
                try:
                    item = step(value)
                except StopIteration as stop:
                    result = stop.value
                    break
                finally:
                    value = None  # an exception that was thrown in must not be kept alive by its own traceback
                    if current:
                        span.suspend()
                try:
                    value = yield item
                except BaseException as error:  # noqa: BLE001  forwarded, whatever it is
                    # GeneratorExit too: what the body makes of it is then what close() would have met.
                    step, value = generator.throw, error
                else:
                    step = generator.send
        except BaseException as error:
            span.finish(error)
            raise
        span.finish()
        return result

    return iterate


def _untracked(generator: AsyncGenerator[Any, Any]) -> Callable[[Any], Any]:
    """Give ``generator.asend`` for the first step, with no event loop told that the generator has begun.

    The loop has the wrapper to close.  At its own end it would close all generators that it knows of at once, the
    inner one while the wrapper is closing it, which is a RuntimeError.
    """

    def first(value: Any) -> Any:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            return generator.asend(value)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return first


def _async_generator(probe: Probe, function: Callable[..., Any]) -> Callable[..., Any]:
    current = not probe.leaf

    async def iterate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        span = probe.span()
        span.begin()
        try:
            generator = function(*args, **kwargs)
            step, value = _untracked(generator), None
            while True:
                if current:
                    span.resume()
                try:
                    item = await step(value)
                except StopAsyncIteration:
                    break
                finally:
                    value = None
                    if current:
                        span.suspend()
                try:
                    value = yield item
                except BaseException as error:  # noqa: BLE001  forwarded, whatever it is
                    step, value = generator.athrow, error
                else:
                    step = generator.asend
        except BaseException as error:
            span.finish(error)
            raise
        span.finish()

    return iterate
