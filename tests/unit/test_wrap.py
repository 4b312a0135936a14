"""Decorated functions of every kind: what callers and introspection see."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import pickle
import types
import weakref
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

import otel_trading as ot
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    from conftest import Recorder

ERROR = 2

PROBE = ot.probe("wrap.probe")
LEAF = ot.probe("wrap.leaf", leaf=True)
OUTER = ot.probe("wrap.outer")
KINDS = (PROBE, LEAF)


def plain(symbol: str, /, qty: float = 1.5, *more: int, side: str = "buy", **rest: object) -> tuple[object, ...]:
    """Return what it was given."""
    return symbol, qty, more, side, rest


async def coroutine(symbol: str, qty: float = 1.5) -> tuple[str, float]:
    """Return what it was given, later."""
    await asyncio.sleep(0)
    return symbol, qty


def generator(count: int) -> Generator[int, str, str]:
    """Count."""
    got = None
    for number in range(count):
        got = yield number
    return f"last got {got}"


async def async_generator(count: int) -> AsyncGenerator[int, str]:
    """Count, later."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


plain.venue = "gateio"  # type: ignore[attr-defined]
FUNCTIONS = (plain, coroutine, generator, async_generator)

importable = PROBE(plain)  # for pickle, which goes by name


# ---- introspection --------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", KINDS, ids=["context", "leaf"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_introspection_sees_the_original(probe: Any, function: Callable[..., Any]) -> None:
    """Name, docs, module, annotations, attributes, signature and kind are the original's."""
    wrapped = probe(function)
    assert wrapped is not function
    assert wrapped.__wrapped__ is function
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(wrapped, name) == getattr(function, name)
    assert inspect.signature(wrapped) == inspect.signature(function)
    assert inspect.unwrap(wrapped) is function
    assert inspect.getdoc(wrapped) == inspect.getdoc(function)
    assert inspect.getsource(wrapped) == inspect.getsource(function)
    for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert kind(wrapped) == kind(function)
    assert getattr(wrapped, "venue", None) == getattr(function, "venue", None)


def test_wrapped_functions_take_attributes_and_weak_references() -> None:
    """Frameworks may hang attributes and weak references on what was decorated."""
    wrapped = PROBE(plain)
    wrapped.route = "/orders"
    assert wrapped.route == "/orders"
    assert not hasattr(plain, "route")
    reference = weakref.ref(wrapped)
    assert reference() is wrapped
    assert callable(wrapped)
    assert "plain" in repr(wrapped)


def test_wrapped_functions_are_hashable_and_collected() -> None:
    """A decorated function can be a key, and goes away with its last reference, in cycles too."""
    wrapped = PROBE(lambda: None)
    assert {wrapped: 1}[wrapped] == 1
    wrapped.self = wrapped
    reference = weakref.ref(wrapped)
    del wrapped
    gc.collect()
    assert reference() is None


def test_decorated_twice(recorder: Recorder) -> None:
    """Two probes on one function make a span and its child."""
    wrapped = OUTER(PROBE(plain))
    assert wrapped("BTCUSDT")[0] == "BTCUSDT"
    inner, outer = recorder.records()
    assert (inner.name, outer.name) == ("wrap.probe", "wrap.outer")
    assert inner.parent_id == outer.span_id


def test_functools_wraps_on_top(recorder: Recorder) -> None:
    """Other decorators work on a decorated function."""
    cached = functools.lru_cache(PROBE(plain))
    assert cached("x") == cached("x")
    assert functools.wraps(PROBE(plain))(lambda: None).__name__ == "plain"
    assert len(recorder.records()) == 1


# ---- plain functions ------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", KINDS, ids=["context", "leaf"])
def test_arguments_and_results_pass_through(recorder: Recorder, probe: Any) -> None:
    """All kinds of arguments arrive, and the result comes back."""
    wrapped = probe(plain)
    assert wrapped("BTCUSDT", 2.0, 3, 4, side="sell", a=1) == ("BTCUSDT", 2.0, (3, 4), "sell", {"a": 1})
    assert wrapped("x") == plain("x")
    assert len(recorder.named(probe.name)) == 2


def test_wrong_arguments_are_the_originals_error(recorder: Recorder) -> None:
    """A call that does not fit raises the original's TypeError, inside the span."""
    with pytest.raises(TypeError, match="plain"):
        PROBE(plain)()
    assert recorder.only("wrap.probe").status == ERROR


class Venue:
    """A class with decorated methods."""

    @PROBE
    def method(self, value: int) -> tuple[object, int]:
        """Return itself and the value."""
        return self, value

    @LEAF
    def leaf(self, value: int) -> tuple[object, int]:
        """Return itself and the value."""
        return self, value

    @classmethod
    @PROBE
    def inside_classmethod(cls) -> type:
        """Return the class."""
        return cls

    @PROBE  # type: ignore[arg-type,unused-ignore]
    @classmethod
    def around_classmethod(cls) -> type:
        """Return the class."""
        return cls

    @staticmethod
    @PROBE
    def inside_staticmethod(value: int) -> int:
        """Return the value."""
        return value

    @PROBE  # type: ignore[arg-type,unused-ignore]
    @staticmethod
    def around_staticmethod(value: int) -> int:
        """Return the value."""
        return value

    @property
    @PROBE
    def spread(self) -> float:
        """Return a number."""
        return 0.5

    @PROBE
    async def later(self) -> Venue:
        """Return itself."""
        return self

    @PROBE
    def each(self) -> Iterator[Venue]:
        """Give itself."""
        yield self

    @PROBE
    def __call__(self) -> Venue:
        """Return itself."""
        return self


def test_methods(recorder: Recorder) -> None:
    """Methods of every sort bind as they would undecorated."""
    venue = Venue()
    assert venue.method(1) == (venue, 1)
    assert Venue.method(venue, 2) == (venue, 2)
    assert venue.leaf(3) == (venue, 3)
    bound = venue.method
    assert bound(4) == (venue, 4)
    assert bound.__self__ is venue
    assert bound.__name__ == "method"
    assert list(inspect.signature(bound).parameters) == ["value"]
    assert venue.inside_classmethod() is Venue.around_classmethod() is Venue
    assert (Venue.inside_staticmethod(5), venue.around_staticmethod(6)) == (5, 6)
    assert venue.spread == 0.5
    assert asyncio.run(venue.later()) is venue
    assert list(venue.each()) == [venue]
    assert venue() is venue
    assert len(recorder.records()) == 12


def test_methods_in_subclasses(recorder: Recorder) -> None:
    """``super()`` reaches a decorated method from a decorated override."""

    class Gateio(Venue):
        @OUTER
        def method(self, value: int) -> tuple[object, int]:
            """Add one."""
            return super().method(value + 1)

    gateio = Gateio()
    assert gateio.method(1) == (gateio, 2)
    inner, outer = recorder.records()
    assert inner.parent_id == outer.span_id


def test_other_callables(recorder: Recorder) -> None:
    """Built-in functions, partials, bound methods, callable objects and classes can be traced."""
    venue = Venue()
    assert PROBE(len)([1, 2]) == 2
    assert PROBE(functools.partial(plain, "x"))(2.0)[:2] == ("x", 2.0)
    assert PROBE(venue.inside_staticmethod)(3) == 3
    assert PROBE(operator_like())(4) == 4
    assert isinstance(PROBE(Venue)(), Venue)
    assert PROBE(mock.Mock(return_value=5))() == 5
    assert len(recorder.named("wrap.probe")) == 7


def operator_like() -> Callable[[int], int]:
    """Make an object with ``__call__``."""

    class Callable_:  # noqa: N801
        def __call__(self, value: int) -> int:
            return value

    return Callable_()


@pytest.mark.parametrize("thing", [None, 5, "name"])
def test_what_cannot_be_called_is_a_fault(recorder: Recorder, thing: object) -> None:
    """Decorating what is no function gives it back and counts a fault."""
    assert PROBE(thing) is thing
    recorder.faults_expected = 1


def test_pickle_by_name() -> None:
    """A decorated module-level function pickles as the name it has."""
    module = types.ModuleType("wrap_pickle_module")
    with mock.patch.dict("sys.modules", {module.__name__: module}):
        module.function = PROBE(types.FunctionType(plain.__code__, {}, "function"))  # type: ignore[attr-defined]
        function = module.function
        function.__module__ = module.__name__
        function.__qualname__ = "function"
        assert pickle.loads(pickle.dumps(function)) is function  # noqa: S301  our own bytes


# ---- coroutine functions --------------------------------------------------------------------------


@pytest.mark.parametrize("probe", KINDS, ids=["context", "leaf"])
def test_coroutine_function(recorder: Recorder, probe: Any) -> None:
    """The span lasts from the first step to the result, and not from the call."""
    wrapped = probe(coroutine)

    async def main() -> tuple[str, float]:
        waiting = wrapped("BTCUSDT", qty=2.0)
        assert recorder.open_spans() == []
        with OUTER:
            return await waiting

    assert asyncio.run(main()) == ("BTCUSDT", 2.0)
    inner, outer = recorder.records()
    assert (inner.name, inner.parent_id) == (probe.name, outer.span_id)


@pytest.mark.parametrize("probe", KINDS, ids=["context", "leaf"])
def test_coroutine_function_that_fails(recorder: Recorder, probe: Any) -> None:
    """An exception in a coroutine is recorded and goes on."""

    @probe
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(fail())
    record = recorder.only(probe.name)
    assert (record.status, record.error) == (ERROR, "LookupError")


def test_coroutine_that_is_closed(recorder: Recorder) -> None:
    """A coroutine that is closed while it waits ends its span."""
    waiting = PROBE(coroutine)("x")
    waiting.send(None)
    waiting.close()
    assert recorder.only("wrap.probe").status == 0
    assert core.current() is None


def test_callables_that_give_coroutines(recorder: Recorder) -> None:
    """Partials of coroutine functions, async ``__call__``, marked functions and AsyncMock are awaited in the span."""

    class Async:
        async def __call__(self) -> int:
            return 1

    @types.coroutine
    def old() -> Generator[Any, Any, int]:
        yield from asyncio.sleep(0).__await__()
        return 1

    marked = [lambda: Async()()]  # noqa: PLW0108  a plain function that gives a coroutine
    if hasattr(inspect, "markcoroutinefunction"):
        inspect.markcoroutinefunction(marked[0])
    else:
        marked.clear()
    functions = [functools.partial(coroutine, "x"), Async(), Async().__call__, old, mock.AsyncMock(), *marked]
    for function in functions:
        wrapped = PROBE(function)
        assert inspect.iscoroutinefunction(wrapped), function
        asyncio.run(wrapped())
    assert len(recorder.named("wrap.probe")) == len(functions)
