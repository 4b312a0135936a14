"""otel_trading/_layout.py is what segment.h says, and what a C compiler makes of it."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_trading import _layout

ROOT = Path(__file__).resolve().parent.parent.parent
TOOL = ROOT / "tools" / "segment_layout.py"
HEADER = ROOT / "otel_trading" / "_native" / "segment.h"

if not TOOL.exists() or not HEADER.exists():
    pytest.skip("the layout is generated in a source tree only", allow_module_level=True)


@pytest.fixture(scope="module")
def tool() -> Any:
    """Import the generator, which is a program."""
    spec = importlib.util.spec_from_file_location("segment_layout", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_file_is_the_generated_one(tool: Any) -> None:
    """Whoever changes the header and forgets the generator hears of it."""
    assert Path(_layout.__file__).read_text(encoding="utf-8") == tool.render(tool.parse(HEADER.read_text("utf-8")))


def test_check_tells_by_its_exit_code(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--check gives 0 where the file matches and 1 where not, and writes nothing; without it the file is written."""
    assert tool.main(["--check"]) == 0
    monkeypatch.setattr(tool, "LAYOUT", tmp_path / "_layout.py")
    assert tool.main(["--check"]) == 1
    assert not (tmp_path / "_layout.py").exists()
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0


def test_runs_as_a_program() -> None:
    """The generator runs without the package or anything installed."""
    done = subprocess.run([sys.executable, "-I", str(TOOL), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "text",
    [
        "struct ot_x {\n int field;\n};\n",
        "struct ot_x {\n uint64_t a : 3;\n};\n",
        "struct ot_x {\n uint64_t *a;\n};\n",
        "enum {\n OT_A,\n};\n",
        "enum {\n OT_A = 1 << 3,\n};\n",
    ],
)
def test_what_leaves_the_grammar_is_refused(tool: Any, text: str) -> None:
    """A field or a constant that the parser does not understand is an error, not left out."""
    with pytest.raises(tool.LayoutError):
        tool.parse(text)


def test_padding_is_natural_alignment(tool: Any) -> None:
    """Gaps between and after fields are where C has them, in offsets and in the struct module's format alike."""
    layout = tool.parse(
        "struct ot_x {\n uint8_t a; uint32_t b; uint8_t c[3]; uint16_t d[2]; uint64_t e; uint8_t f;\n};"
    )
    found = layout.structs["x"]
    assert found.offsets == {"a": 0, "b": 4, "c": 8, "d": 12, "e": 16, "f": 24}
    assert found.size == 32 == struct.calcsize(found.format)


def test_formats_have_the_structs_sizes() -> None:
    """What the struct module unpacks is the whole struct."""
    names = [name[len("SIZE_") :] for name in vars(_layout) if name.startswith("SIZE_")]
    assert len(names) == 21
    for name in names:
        assert struct.calcsize(getattr(_layout, f"FORMAT_{name}")) == getattr(_layout, f"SIZE_{name}")


def test_the_c_compiler_agrees(tool: Any, tmp_path: Path) -> None:
    """Sizes, offsets and constants are what offsetof and sizeof give."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc) on PATH")
    layout = tool.parse(HEADER.read_text(encoding="utf-8"))
    lines = [f'P("{name}", OT_{name});' for name in layout.constants]
    for name, found in layout.structs.items():
        lines.append(f'P("SIZE_{name.upper()}", sizeof(struct ot_{name}));')
        lines += [f'P("OFF_{name.upper()}_{f.upper()}", offsetof(struct ot_{name}, {f}));' for f in found.offsets]
    source = tmp_path / "layout.c"
    source.write_text(
        '#include <stdio.h>\n#include "segment.h"\n#define P(n, v) printf("%s %llu\\n", n, (unsigned long long)(v))\n'
        "int main(void)\n{\n" + "\n".join(lines) + "\nreturn 0;\n}\n",
        encoding="utf-8",
    )
    program = tmp_path / "layout"
    subprocess.run([compiler, "-std=c11", "-I", str(HEADER.parent), str(source), "-o", str(program)], check=True)
    output = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    real = {name: int(value) for name, value in (line.split() for line in output.splitlines())}
    assert real == {name: value for name, value in vars(_layout).items() if name.isupper() and isinstance(value, int)}
