"""What a program gives as an order's id, side, quantity or price, brought into form; what is none of these is a fault.

Values of the usual types do not come here: this is off the usual way.
"""

from __future__ import annotations

from math import isfinite, nan

from otel_trading import _layout as at
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIDES = {"buy": at.SIDE_BUY, "sell": at.SIDE_SELL}
"""Sides as programs write them: their numbers in the order table."""


def key_of(order_id: object) -> tuple[str, str]:
    """Give an order id as the tables have it, and as text.

    One that does not fit is hashed; what is no id is "" to the tables, which do not have it then.
    """
    try:
        text = order_id.decode("utf-8", "backslashreplace") if isinstance(order_id, bytes) else str(order_id)
    except Exception:  # noqa: BLE001  whatever a foreign type's __str__ raises
        text = ""
    if not text or order_id is None or isinstance(order_id, (bool, float)):
        report("orders:id", f"order: {type(order_id).__name__} {text!r:.100} is no order id; give text")
        return "", "invalid"
    text = text.encode("utf-8", "backslashreplace").decode()  # of surrogates, which no table or exporter takes
    encoded = text.encode()
    if len(encoded) <= at.ORDER_KEY_BYTES:
        return text, text
    from hashlib import blake2b

    return "blake2b:" + blake2b(encoded, digest_size=28).hexdigest(), text


def _shown(value: object) -> str:
    try:
        return f"{value!r:.100}"
    except Exception:  # noqa: BLE001  whatever a foreign type's __repr__ raises
        return f"of type {type(value).__name__}"


def text_of(what: str, value: object, order_id: str) -> str:
    """Give "" for what is no text; it is a fault unless nothing was given."""
    if value is None:
        return ""
    report(f"orders:{what}", f"order {order_id!r:.100}: {what} {_shown(value)} is not text")
    return ""


def side_of(value: object, order_id: str) -> int:
    """Give the number of a side in the order table, 0 for none."""
    number = SIDES.get(value.strip().lower(), 0) if isinstance(value, str) else 0
    if not number and value is not None:
        report("orders:side", f"order {order_id!r:.100}: side {_shown(value)} is neither buy nor sell")
    return number


def quantity_of(value: object, order_id: str) -> float | None:
    """Read a number greater than 0, None where it is not one."""
    number = number_of("qty", value, order_id)
    if number is None or number > 0.0:
        return number
    report("orders:qty", f"order {order_id!r:.100}: qty {_shown(value)} is not greater than 0")
    return None


def number_of(what: str, value: Any, order_id: str) -> float | None:
    """Read a finite number (of any type that ``float`` takes, text included), None where it is not one."""
    try:
        number = nan if isinstance(value, bool) else float(value)
    except Exception:  # noqa: BLE001  whatever a foreign type's __float__ raises
        number = nan
    if isfinite(number):
        return number
    report(f"orders:{what}", f"order {order_id!r:.100}: {what} {_shown(value)} is not a finite number")
    return None
