"""``opentelemetry-instrument python bot.py``: with our package alone, with other distros, with a declarative file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import child_environment
from packaging.requirements import Requirement

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from otlp_receiver import METRICS, OVER, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INSTRUMENT = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
OURS = "otel_trading.api.provider.TracerProvider"
BOT = """
import json, sys
from opentelemetry import trace

tracer = trace.get_tracer("bot", "1.0")
with tracer.start_as_current_span("order.send", attributes={"symbol": "BTCUSDT"}):
    with tracer.start_as_current_span("risk"):
        pass
provider = type(trace.get_tracer_provider())
import otel_trading as ot
ot.flush(20)
print(json.dumps({
    "provider": f"{provider.__module__}.{provider.__qualname__}",
    "recorded": ot.accounts()[1]["recorded"],
    "exported": ot.accounts()[1]["exported"],
    "modules": sorted(sys.modules),
}))
"""


@pytest.fixture
def bot(tmp_path: Path) -> str:
    """Write the program; gives its path."""
    (tmp_path / "bot.py").write_text(BOT, encoding="utf-8")
    return str(tmp_path / "bot.py")


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    """Run a receiver over http; give it and its endpoint."""
    found = Receiver()
    with OVER["http/protobuf"](found) as place:
        yield found, place


@pytest.fixture
def instrument(tmp_path: Path, bot: str) -> Callable[..., tuple[dict[str, Any], str]]:
    """Give a function that runs the program; gives what it says of itself, and its standard error."""

    def run(*command: str, python: str = sys.executable, path: str = "", **changes: str) -> tuple[dict[str, Any], str]:
        environment = child_environment(tmp_path / "segments", NO_PROXY="localhost", no_proxy="localhost", **changes)
        if path:
            environment["PYTHONPATH"] = os.pathsep.join([path, environment["PYTHONPATH"]])
        if python != sys.executable:
            environment.pop("PYTHONPATH")
        done = subprocess.run(
            [python, *(command or ("-c", INSTRUMENT)), python, bot],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return run


RUN = ("-m", "otel_trading", "run", "--quiet", "--")


def test_nothing_else_is_needed(
    instrument: Callable[..., tuple[dict[str, Any], str]], receiver: tuple[Receiver, str]
) -> None:
    """Spans and metrics of an unchanged program arrive where OpenTelemetry's variables say, by the defaults."""
    said, errors = instrument(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver[1] + "/", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"
    )
    assert (said["provider"], said["recorded"], said["exported"]) == (OURS, 2, 2)
    assert errors == ""
    spans = {span.name: span for span in receiver[0].spans()}
    assert set(spans) == {"order.send", "risk"}
    assert spans["risk"].parent_span_id == spans["order.send"].span_id
    assert receiver[0].parsed(METRICS)
    assert all("telemetry.auto.version" in resource for resource in receiver[0].resources())


# ---- with our package, what it requires, and nothing else


def required(name: str, found: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """Collect a distribution and what it requires, without extras."""
    normal = re.sub(r"[-_.]+", "-", name).lower()
    if normal not in found:
        found[normal] = metadata.distribution(name)
        for line in found[normal].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                required(requirement.name, found)
    return found


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make an environment that has only our package and what it requires; gives its Python."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    for distribution in required("otel-trading", {}).values():
        for file in distribution.files or []:
            source, target = Path(str(file.locate())), packages / str(file)
            if ".." in file.parts or not source.is_file() or file.suffix == ".pyc":
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return str(folder / "bin" / "python")


@pytest.mark.parametrize("command", [(), RUN], ids=["opentelemetry-instrument", "run"])
def test_without_any_exporter(
    instrument: Callable[..., tuple[dict[str, Any], str]], bare_python: str, command: tuple[str, ...]
) -> None:
    """With no exporter and no instrumentation installed, the program is recorded, and nothing is complained of."""
    said, errors = instrument(*command, python=bare_python)
    assert (said["provider"], said["recorded"]) == (OURS, 2)
    assert errors == ""
    assert not [name for name in said["modules"] if name.startswith("opentelemetry.exporter")]
    assert "opentelemetry.sdk.metrics" not in said["modules"]
    assert "yaml" not in said["modules"]


# ---- with another distro


@pytest.fixture
def others(tmp_path: Path) -> str:
    """Install a package with a distro and a configurator that come before ours; gives its directory."""
    folder = tmp_path / "site"
    (folder / "theirs").mkdir(parents=True)
    (folder / "theirs" / "__init__.py").write_text(
        "import sys\nfrom opentelemetry.instrumentation.distro import BaseDistro\n"
        "class Distro(BaseDistro):\n"
        "    def _configure(self, **kwargs):\n        print('their distro', file=sys.stderr)\n"
        "class Configurator:\n"
        "    def configure(self, **kwargs):\n        print('their configurator', file=sys.stderr)\n",
        encoding="utf-8",
    )
    info = folder / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[opentelemetry_distro]\ntheirs = theirs:Distro\n[opentelemetry_configurator]\ntheirs = theirs:Configurator\n",
        encoding="utf-8",
    )
    return str(folder)


NONE = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}


def test_the_first_distro_wins(instrument: Callable[..., tuple[dict[str, Any], str]], others: str) -> None:
    """As documented: without a variable that says otherwise, the loader takes the first, and the program runs."""
    said, errors = instrument(path=others, **NONE)
    assert said["provider"] != OURS
    assert "their distro" in errors


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        ((), {"OTEL_PYTHON_DISTRO": "otel_trading"}),
        ((), {"OTEL_PYTHON_DISTRO": "otel_trading", "OTEL_PYTHON_CONFIGURATOR": "otel_trading"}),
        (RUN, {}),
        (RUN, {"OTEL_PYTHON_DISTRO": "theirs", "OTEL_PYTHON_CONFIGURATOR": "theirs"}),
    ],
)
def test_ours_is_chosen(
    instrument: Callable[..., tuple[dict[str, Any], str]],
    others: str,
    command: tuple[str, ...],
    variables: dict[str, str],
) -> None:
    """One variable chooses ours, the configurator included; ``run`` needs none."""
    said, errors = instrument(*command, path=others, **NONE, **variables)
    assert (said["provider"], said["recorded"]) == (OURS, 2)
    assert "their distro" not in errors
    assert "their configurator" not in errors


def test_our_configurator_after_their_distro(
    instrument: Callable[..., tuple[dict[str, Any], str]], others: str
) -> None:
    """Where only the configurator is ours, the provider is ours all the same."""
    said, errors = instrument(path=others, OTEL_PYTHON_CONFIGURATOR="otel_trading", **NONE)
    assert (said["provider"], said["recorded"]) == (OURS, 2)
    assert "their distro" in errors


# ---- a declarative file


def declared(folder: Path, *lines: str) -> str:
    """Write a declarative file with these further lines; gives its path."""
    named = ['file_format: "1.0"', "resource:", "  attributes:", "    - {name: service.name, value: declared}"]
    (folder / "otel.yaml").write_text("\n".join([*named, *lines, ""]), encoding="utf-8")
    return str(folder / "otel.yaml")


def processors(place: str) -> list[str]:
    """Give the lines of a tracer provider that exports over http."""
    exporter = f"exporter: {{otlp_http: {{endpoint: {place}/v1/traces}}}}"
    return ["tracer_provider:", "  processors:", f"    - batch: {{{exporter}}}"]


SDK = "opentelemetry.sdk.trace.TracerProvider"


@pytest.mark.parametrize("command", [(), RUN], ids=["opentelemetry-instrument", "run"])
def test_the_files_exporters_export_once(
    instrument: Callable[..., tuple[dict[str, Any], str]],
    receiver: tuple[Receiver, str],
    tmp_path: Path,
    command: tuple[str, ...],
) -> None:
    """The stock SDK is as the file says and exports by it, once; the same spans are in our segment."""
    file = declared(tmp_path, *processors(receiver[1]))
    # An exporter of ours beside those of the file would send each span a second time.
    said, errors = instrument(*command, OTEL_CONFIG_FILE=file, OTEL_TRACES_EXPORTER="otlp")
    assert (said["provider"], said["recorded"], said["exported"]) == (SDK, 2, 0)
    assert errors == ""
    assert sorted(span.name for span in receiver[0].spans()) == ["order.send", "risk"]
    assert {resource["service.name"] for resource in receiver[0].resources()} == {"declared"}


def test_a_file_without_tracing_leaves_it_to_us(
    instrument: Callable[..., tuple[dict[str, Any], str]], receiver: tuple[Receiver, str], tmp_path: Path
) -> None:
    """Where the file has no tracer provider and ours is asked for, it is ours, with the file's resource."""
    (tmp_path / "bot.yaml").write_text("export: {traces: otlp}\n", encoding="utf-8")
    variables = {
        "OTEL_CONFIG_FILE": declared(tmp_path),
        "OTEL_TRADING_CONFIG": str(tmp_path / "bot.yaml"),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver[1],
    }
    said, errors = instrument(**variables)
    assert (said["provider"] in {SDK, OURS}, said["recorded"]) == (False, 0)
    said, errors = instrument(**variables, OTEL_PYTHON_TRACER_PROVIDER="otel_trading")
    assert (said["provider"], said["recorded"], said["exported"]) == (OURS, 2, 2)
    assert errors == ""
    assert sorted(span.name for span in receiver[0].spans()) == ["order.send", "risk"]
    assert {resource["service.name"] for resource in receiver[0].resources()} == {"declared"}


def test_what_the_files_sampler_drops(
    instrument: Callable[..., tuple[dict[str, Any], str]], receiver: tuple[Receiver, str], tmp_path: Path
) -> None:
    """What the file's sampler drops, the SDK tells no processor of; so it is in neither place."""
    file = declared(tmp_path, *processors(receiver[1]), "  sampler: {always_off: {}}")
    said, _ = instrument(OTEL_CONFIG_FILE=file)
    assert (said["provider"], said["recorded"]) == (SDK, 0)
    assert receiver[0].spans() == []


def test_a_file_that_disables(
    instrument: Callable[..., tuple[dict[str, Any], str]], receiver: tuple[Receiver, str], tmp_path: Path
) -> None:
    """``disabled: true`` in the file holds for us too."""
    said, _ = instrument(OTEL_CONFIG_FILE=declared(tmp_path, *processors(receiver[1]), "disabled: true"))
    assert said["recorded"] == 0
    assert said["provider"] not in {SDK, OURS}


@pytest.mark.parametrize("content", ['file_format: "9.0"\n', "][\n", None])
def test_a_file_that_is_wrong(
    instrument: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path, content: str | None
) -> None:
    """A file that can not be used is told, and the program runs uninstrumented."""
    if content is not None:
        (tmp_path / "otel.yaml").write_text(content, encoding="utf-8")
    said, errors = instrument(OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml"))
    assert (said["recorded"], said["provider"] in {SDK, OURS}) == (0, False)
    assert f"OTEL_CONFIG_FILE={tmp_path / 'otel.yaml'}" in errors
    assert "The program runs without telemetry" in errors
