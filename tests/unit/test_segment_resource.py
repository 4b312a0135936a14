"""The resource that a segment and the exports carry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_trading import _layout as at
from otel_trading import segment


def test_the_resource_says_who_it_is() -> None:
    """Service, instance, process and this package are in it, and two calls tell of one instance."""
    resource = json.loads(segment.resource_json("bot"))
    assert resource["service.name"] == "bot"
    assert resource["process.pid"] == os.getpid()
    assert resource["telemetry.distro.name"] == "otel-trading"
    assert resource["telemetry.distro.version"]
    assert len(resource["service.instance.id"]) == 36
    assert json.loads(segment.resource_json("bot")) == resource


def test_a_forked_child_is_another_instance() -> None:
    """Parent and child are told apart by their instance ids, not only by their pids."""
    mine = json.loads(segment.resource_json("bot"))["service.instance.id"]
    code = (
        "import json, os, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from otel_trading import segment\n"
        "mine = json.loads(segment.resource_json('bot'))['service.instance.id']\n"
        "if os.fork() == 0:\n"
        "    os._exit(json.loads(segment.resource_json('bot'))['service.instance.id'] == mine)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    root = str(Path(segment.__file__).parent.parent.parent)
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=False)
    assert done.returncode == 0
    assert mine


@pytest.mark.parametrize(
    ("argument", "name", "attributes", "expected"),
    [
        ("argument", "variable", "service.name=attribute", "argument"),
        (None, "variable", "service.name=attribute", "variable"),
        (None, "", "service.name=attribute", "attribute"),
        (None, "", "", "unknown_service"),
        ("x" * 300, "", "", "x" * 255),
    ],
)
def test_who_names_the_service(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, name: str, attributes: str, expected: str
) -> None:
    """The argument wins over OTEL_SERVICE_NAME, and that over OTEL_RESOURCE_ATTRIBUTES."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", name)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    assert segment.service_name(argument) == expected
    assert json.loads(segment.resource_json(argument))["service.name"] == expected


def test_resource_attributes_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are percent-decoded, blanks and what is no pair are left out, and what the process knows itself stays."""
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES",
        " deployment.environment.name = prod ,a=b%2Cc%3D%C3%BC,empty=,nothing,=x,eq=1=2,process.pid=5,"
        "service.instance.id=mine,bad=%zz%",
    )
    resource = json.loads(segment.resource_json("bot"))
    assert resource["deployment.environment.name"] == "prod"
    assert (resource["a"], resource["empty"], resource["eq"], resource["bad"]) == ("b,c=\u00fc", "", "1=2", "%zz%")
    assert (resource["process.pid"], resource["service.instance.id"]) == (os.getpid(), "mine")
    assert "nothing" not in resource
    assert "" not in resource


def test_attributes_that_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take the environment's place, keep their types, and who the process is stays the process's own."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "left=out")
    given = {
        "host.cpu.count": 2,
        "paper": True,
        "venues": ["gateio", "okx"],
        "share": 0.5,
        "process.pid": 5,
        "service.name": "another",
        "service.instance.id": "mine",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.distro.name": "theirs",
    }
    resource = json.loads(segment.resource_json("bot", given))
    assert "left" not in resource
    assert (resource["process.pid"], resource["service.name"]) == (os.getpid(), "bot")
    assert all(resource[key] == given[key] for key in given if key not in ("process.pid", "service.name"))
    assert resource["telemetry.distro.version"]


def test_the_resource_fits_its_place(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Attributes without room are left out and told, the others stay, and the whole is never too long."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"small=1,large={'x' * 5000},also=2,wide={'%C3%BC' * 2000}")
    text = segment.resource_json("bot")
    assert len(text) <= at.RESOURCE_BYTES
    resource = json.loads(text)
    assert (resource["small"], resource["also"]) == ("1", "2")
    assert not {"large", "wide"} & set(resource)
    assert "large, wide" in caplog.text
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=" + "\x01" * 5000)
    assert len(segment.resource_json("\x01" * 5000)) <= at.RESOURCE_BYTES
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=%FF,b=" + os.fsdecode(b"\xff"))
    json.loads(segment.resource_json(os.fsdecode(b"\xfe")))
