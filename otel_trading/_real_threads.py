"""Threads of the system, also where gevent or eventlet has put green ones in their place.

A thread of ours waits in C for most of its life.  As a green thread it would hold up the program's whole loop there.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

_made: ModuleType | None = None


def real_threading() -> ModuleType:
    """Give the module ``threading``: the one that is imported, or an unpatched copy where that one is patched."""
    global _made  # noqa: PLW0603  one copy is enough
    saved = _saved_by_gevent()
    if saved:
        if _made is None:
            _made = _copy(saved)
        return _made
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        unpatched: ModuleType = patcher.original("threading")
        return unpatched
    import threading

    return threading


def real_ident() -> int:
    """Give the system's thread that calls, as ``pthread_self``; a green thread has another number."""
    import _thread

    saved = _saved_by_gevent().get("get_ident", _thread.get_ident)
    number: int = saved()  # type: ignore[operator]
    return number


def _saved_by_gevent() -> dict[str, object]:
    """Give what gevent has replaced in ``_thread``, as it was before."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return {}
    import _thread

    names = [name for name in vars(_thread) if not name.startswith("__")]
    return dict(zip(names, monkey.get_original("_thread", names), strict=True))


def _copy(saved: dict[str, object]) -> ModuleType:
    import _thread
    import importlib.util
    from types import ModuleType

    spec = importlib.util.find_spec("threading")
    if spec is None or spec.loader is None:
        raise ImportError("the module threading has no source")
    original = ModuleType("_thread")
    vars(original).update(vars(_thread))
    vars(original).update(saved)
    copy = importlib.util.module_from_spec(spec)
    sys.modules["_thread"] = original  # the copy takes what it needs from there, and keeps it
    try:
        spec.loader.exec_module(copy)
    finally:
        sys.modules["_thread"] = _thread
    return copy
