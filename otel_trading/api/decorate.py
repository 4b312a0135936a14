"""``start_as_current_span`` as a decorator."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from otel_trading._native import Scope


def decorate(scope: Scope, function: Any) -> Any:
    """Wrap a function so that each call runs in a span of its own, with the arguments that ``scope`` was made with.

    A coroutine function's span ends with the coroutine.  Any other function's ends when the call returns, for a
    generator function before its body runs, as with the SDK.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with scope.again():
                return await function(*args, **kwargs)

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with scope.again():
            return function(*args, **kwargs)

    return call
