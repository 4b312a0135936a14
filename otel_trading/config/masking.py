"""What is shown of values that may be secret: that they are there, and nothing else."""

from __future__ import annotations

MASK = "***"
_SECRET = ("secret", "token", "password", "passwd", "passphrase", "credential", "authorization", "signature", "apikey")
_LIST = ("OTEL_RESOURCE_ATTRIBUTES",)


def is_secret(name: str) -> bool:
    """Tell whether what has this name is better not shown."""
    plain = "".join(character for character in name.lower() if character.isalnum())
    return any(word in plain for word in _SECRET)


def masked(name: str, value: object) -> object:
    """Give what may be shown of a variable's or an attribute's value: no header, no secret, no user in a URL."""
    if isinstance(value, dict):
        return {key: masked(str(key), item) for key, item in value.items()}
    if is_secret(name):
        return MASK
    if isinstance(value, (list, tuple)) and name == "alerts.command":
        return [*value[:1], *([MASK] if value[1:] else [])]  # who may call is often an argument
    return _masked_text(name, value) if isinstance(value, str) else value


def _masked_text(name: str, text: str) -> str:
    if name == "alerts.webhook":  # its path is the key to it
        scheme, separator, rest = _without_user(text).partition("://")
        return f"{scheme}{separator}{rest.partition('/')[0]}/{MASK}"
    if name.upper().endswith("HEADERS"):
        return ",".join(f"{item.partition('=')[0].strip()}={MASK}" for item in text.split(",") if item.strip())
    if name in _LIST:
        pairs = [item.partition("=") for item in text.split(",")]
        return ",".join(f"{key}{equals}{masked(key.strip(), item)}" for key, equals, item in pairs)
    return _without_user(text) if "://" in text else text


def _without_user(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    user, at, place = host.rpartition("@")
    path, question, _ = path.partition("?")
    return f"{scheme}://{MASK if user else ''}{at}{place}{slash}{path}{question}{MASK if question else ''}"
