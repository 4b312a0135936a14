"""What process on what machine this is, and what it trades: resource attributes without secrets."""

from __future__ import annotations

import os
import platform
import re
import sys
from typing import TYPE_CHECKING
from urllib.parse import unquote

from opentelemetry.sdk.resources import Resource, ResourceDetector

if TYPE_CHECKING:
    from collections.abc import Sequence

_VARIABLE = "OTEL_TRADING_RESOURCE"
_PREFIX = "trading."
_MOST_ARGUMENTS = 64
_LONGEST = 1024
_LEFT_OUT = "…"

_SECRET = re.compile(
    r"secret|token|passw|pwd|passphrase|credential|auth|signature|private|apikey|access[-_.]?key|\bkey\b|[-_.]key",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+/_=-]{24,}")  # a key that stands alone
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*@")


class TradingResourceDetector(ResourceDetector):
    """The resource detector ``trading``: ``trading.*``, ``process.*``, ``host.*``, ``os.*``.

    ``OTEL_TRADING_RESOURCE`` has ``key=value,key=value`` as ``OTEL_RESOURCE_ATTRIBUTES`` does; each key is put under
    ``trading.`` where it is not: ``venue=gateio,strategy=maker``.  Of the command line, what looks like a secret is
    left out: the value of every ``name=value``, the argument after an option with a telling name, and the user in a
    URL.
    """

    def is_process_dependent(self) -> bool:
        """Tell that a forked child's resource is another one."""
        return True

    def detect(self) -> Resource:
        """Return what can be told without asking another program; some 0.1 ms."""
        version = sys.version_info
        attributes: dict[str, str | int | list[str]] = {
            "process.pid": os.getpid(),
            "process.executable.name": os.path.basename(sys.executable or ""),
            "process.executable.path": sys.executable or "",
            "process.command_args": command_line(getattr(sys, "orig_argv", None) or sys.argv),
            "process.runtime.name": sys.implementation.name,
            "process.runtime.version": f"{version[0]}.{version[1]}.{version[2]}",
            "process.runtime.description": sys.version,
            "host.name": platform.node(),
            "host.arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os.type": platform.system().lower(),
            "os.version": platform.release(),
        }
        if hasattr(os, "getppid"):
            attributes["process.parent_pid"] = os.getppid()
        attributes.update(trading_attributes(os.environ.get(_VARIABLE, "")))
        return Resource({key: value for key, value in attributes.items() if value not in ("", [])})


_ARCHITECTURES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}  # by the semantic conventions


def trading_attributes(text: str) -> dict[str, str]:
    """Read ``key=value,key=value``, values percent-encoded, without what is neither or is named like a secret."""
    found: dict[str, str] = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        key = key.strip()
        if key and equals and not _SECRET.search(key):
            found[key if key.startswith(_PREFIX) else _PREFIX + key] = unquote(value.strip())
    return found


def command_line(arguments: Sequence[str]) -> list[str]:
    """Give a command line without what may be secret, at most 64 arguments of 1,024 characters.

    Left out is the value of every ``name=value``, whatever its name: credentials have many; the argument that follows
    an option named like a secret; what follows ``-c``, a program of its own; long runs of letters and digits that are
    no file; and the user and password of a URL.
    """
    found: list[str] = []
    hide = False
    for argument in arguments[:_MOST_ARGUMENTS]:
        if hide and not argument.startswith("--"):
            found.append(_LEFT_OUT)
            hide = False
            continue
        name, equals, _ = argument.partition("=")
        hide = not equals and (argument == "-c" or (argument.startswith("-") and bool(_SECRET.search(argument))))
        if _TOKEN.fullmatch(argument) and not os.path.exists(argument):
            found.append(_LEFT_OUT)
            continue
        shown = f"{name}={_LEFT_OUT}" if equals else argument
        found.append(_USER_INFO.sub(_LEFT_OUT + "@", shown)[:_LONGEST])
    return found
