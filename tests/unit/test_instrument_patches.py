"""Replacing and restoring functions of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_trading.instrument.patches import Patches, restore_copies


def louder(original: Callable[..., str]) -> Callable[..., str]:
    """Wrap a method of the classes below."""

    def speak(self: Any) -> str:
        return original(self) + "!"

    return speak


class Parent:
    """Has a method."""

    def speak(self) -> str:
        """Say it."""
        return "hello"


class Child(Parent):
    """Inherits it."""


def test_replacing_twice_is_replacing_once() -> None:
    """The same place is wrapped once, keeps its name and docstring, and is whole again afterwards."""
    before = vars(Parent)["speak"]
    patches = Patches()
    assert patches.replace(Parent, "speak", louder)
    assert patches.replace(Parent, "speak", louder)
    assert Parent().speak() == "hello!"
    assert (Parent.speak.__name__, Parent.speak.__doc__) == ("speak", "Say it.")
    patches.restore()
    assert vars(Parent)["speak"] is before


def test_an_inherited_method_is_replaced_in_the_class_alone_and_wrapped_once() -> None:
    """The child gets one of its own, on the parent's original; afterwards it inherits again."""
    patches = Patches()
    patches.replace(Parent, "speak", louder)
    patches.replace(Child, "speak", louder)
    assert Child().speak() == "hello!"
    patches.restore()
    assert "speak" not in vars(Child)
    assert Child().speak() == "hello"


def test_what_is_not_there_is_left_alone() -> None:
    """A name that the class has not is no error."""
    assert not Patches().replace(Parent, "sing", louder)
    assert not hasattr(Parent, "sing")


def test_another_ones_replacement_stays() -> None:
    """What someone else has put on top meanwhile is not taken away."""
    patches = Patches()
    before = vars(Parent)["speak"]
    patches.replace(Parent, "speak", louder)
    theirs = louder(Parent.speak)
    Parent.speak = theirs  # type: ignore[method-assign]
    try:
        patches.restore()
        assert vars(Parent)["speak"] is theirs
    finally:
        Parent.speak = before  # type: ignore[method-assign]


def test_second_names_lead_to_the_replacement_and_back() -> None:
    """An alias of the class is replaced too, and copies that others made are found."""

    class Exchange:
        def create_order(self) -> str:
            return "sent"

        createOrder = create_order  # noqa: N815

    original = vars(Exchange)["create_order"]
    patches = Patches()
    patches.replace(Exchange, "create_order", louder, alias="createOrder")
    assert Exchange().createOrder() == "sent!"
    Exchange.copied = Exchange.create_order  # type: ignore[attr-defined]
    patches.restore()
    restore_copies(Exchange)
    assert {name: vars(Exchange)[name] for name in ("create_order", "createOrder", "copied")} == dict.fromkeys(
        ("create_order", "createOrder", "copied"), original
    )
