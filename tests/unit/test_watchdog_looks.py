"""What the watchdog sees in a directory of segments: the C program and its twin see the same, whatever is in it."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_image import Image
from watching import native_program

from otel_trading import _layout as at
from otel_trading.agent import watchdog_looks as looks
from otel_trading.agent import watchdog_rules as rules

WORDS = [0, 1, 2, 4095, 4096, 8192, 2**20, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 1]
Seen = list[tuple[str, int, int, int, str, str]]


def by_twin(directory: Path) -> Seen:
    """Give the subjects that the twin sees: kind, key, passes, pid, service, name."""
    told = rules.Rules(1000, 5000, 5, startable=False, supervised=False)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        looks.Segments(told).look(fd)
    finally:
        os.close(fd)
    return [
        (one.kind, key, 0 if one.kind == rules.LOOP else one.value, one.label.pid, one.label.service, one.label.name)
        for key, one in told._subjects.items()
    ]


def by_program(directory: Path) -> Seen:
    """Give the same of the C program."""
    ran = subprocess.run(
        [*native_program(), "--look", "--directory", str(directory)], capture_output=True, check=True, timeout=30
    )
    rows = [line.split("\t") for line in ran.stdout.decode().splitlines()]
    return [(kind, int(key), int(passes), int(pid), service, name) for kind, key, passes, pid, service, name in rows]


@pytest.fixture(params=[by_program, by_twin], ids=["program", "twin"])
def see(request: pytest.FixtureRequest) -> Callable[[Path], Seen]:
    """Each of the two."""
    chosen: Callable[[Path], Seen] = request.param
    return chosen


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that only its owner can enter."""
    where = tmp_path / "segments"
    where.mkdir(mode=0o700)
    return where


def drained(*loops: tuple[str, int], name: str = "bot-x-77-1a.seg", **control: int) -> tuple[str, Image]:
    """An image of a segment that is drained, with loops that beat: their names, and the beats' ages in ns."""
    image = Image()
    image.set_control(**{"drained_by": os.getpid(), "host_now": at.HOST_EMBEDDED, "passes": 12, **control})
    struct.pack_into("<Q", image.bytes, image.life + at.OFF_LIFE_BEAT_COUNT, len(loops))
    for number, (called, age) in enumerate(loops):
        beat = max(1, time.monotonic_ns() - age) if age >= 0 else 0
        struct.pack_into("<I", image.bytes, image.life + at.OFF_LIFE_BEAT_NAME + 4 * number, image.name(called))
        struct.pack_into("<Q", image.bytes, image.life + at.OFF_LIFE_BEAT_NS + 8 * number, beat)
        struct.pack_into("<Q", image.bytes, image.life + at.OFF_LIFE_BEAT_LATE_NS + 8 * number, 10**12)
    return name, image


def put(directory: Path, name: str, image: Image) -> Path:
    """Write an image as the recorder would."""
    path = directory / name
    path.write_bytes(image.bytes)
    path.chmod(0o600)
    return path


def test_drain_and_loops_are_seen(see: Callable[[Path], Seen], directory: Path) -> None:
    """A segment's drain and each loop that beats are subjects, with pid, service and name; one that rests is not."""
    put(directory, *drained(("main", 10**9), ("rests", -1), ('quo"te\n', 10**9)))
    seen = see(directory)
    assert [(kind, passes, pid, service, name) for kind, _, passes, pid, service, name in seen] == [
        ("embedded", 12, os.getpid(), "bot-x", ""),
        ("loop", 0, os.getpid(), "bot-x", "main"),
        ("loop", 0, os.getpid(), "bot-x", "quo_te_"),
    ]
    assert len({key for _, key, *_ in seen}) == len(seen)


@pytest.mark.parametrize(
    ("control", "kind"),
    [
        ({"host_now": at.HOST_AGENT, "host": at.HOST_AGENT}, ["drain"]),
        ({"host_now": at.HOST_EMBEDDED, "host": at.HOST_AGENT}, ["embedded"]),
        ({"drained_by": 0, "host": at.HOST_AGENT}, ["missing"]),
        ({"drained_by": 0, "host": at.HOST_EMBEDDED}, []),
    ],
)
def test_who_drains(see: Callable[[Path], Seen], directory: Path, control: dict[str, int], kind: list[str]) -> None:
    """A drain is the agent's, the program's own, or missing where the agent should; a program that begins has none."""
    name, image = drained()
    image.set_control(**control)
    put(directory, name, image)
    assert [one[0] for one in see(directory)] == kind


def test_what_is_no_living_segment_is_passed_over(see: Callable[[Path], Seen], directory: Path) -> None:
    """Closed ones, those of ended processes, of another boot or format, and files that are something else."""
    for number, header in enumerate(
        (
            {"closed": 1},
            {"pid": 0},
            {"pid": 2**31},
            {"process_start": 1},
            {"boot_id": 1},
            {"version": 1},
            {"magic": 1},
            {"control_offset": 2**63},
            {"control_offset": 4097},
            {"life_offset": 2**20},
        )
    ):
        name, image = drained(name=f"bot-{number}-1.seg")
        image.header(**header)
        put(directory, name, image)
    put(directory, *drained(name="no-segment.txt"))
    (directory / "short.seg").write_bytes(b"OTELTRD\0")
    (directory / "empty.seg").touch()
    (directory / "directory.seg").mkdir()
    os.mkfifo(directory / "pipe.seg")
    target = put(directory.parent, *drained())
    (directory / "link.seg").symlink_to(target)
    assert see(directory) == []


def test_a_look_is_bounded(see: Callable[[Path], Seen], directory: Path) -> None:
    """At most 256 segments are looked at, however many there are."""
    _, image = drained()
    for number in range(300):
        put(directory, f"bot-1-{number:x}.seg", image)
    assert len(see(directory)) == looks.MOST_SEGMENTS


@settings(max_examples=120)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("header", "control", "life", "names", "anywhere")),
            st.integers(0, 511),
            st.sampled_from(WORDS) | st.integers(0, 2**64 - 1),
        ),
        max_size=12,
    ),
    st.none() | st.integers(0, 20_000),
)
def test_hostile_segments_do_no_harm(changes: list[tuple[str, int, int]], cut: int | None) -> None:
    """Whatever the words of a segment are, both come to an end, and see the same."""
    name, image = drained(("main", 10**9), ("other", 5))
    bases = {"header": 0, "control": image.control, "life": image.life, "names": image.name_table, "anywhere": 0}
    for where, word, value in changes:
        offset = (bases[where] + 8 * word) if where != "anywhere" else word * 64
        if offset + 8 <= len(image.bytes):
            struct.pack_into("<Q", image.bytes, offset, value)
    if cut is not None:
        del image.bytes[cut:]
    with tempfile.TemporaryDirectory() as made:
        put(Path(made), name, image)
        assert by_program(Path(made)) == by_twin(Path(made))


@given(st.binary(max_size=at.SIZE_AGENT + 8), st.booleans())
def test_hostile_pages_are_no_agent(data: bytes, begins_well: bool) -> None:  # noqa: FBT001
    """A page is of an agent, with a pid that can be one, or it is none; nothing is written into what is none."""
    if begins_well:
        data = struct.pack("<QQ", at.AGENT_MAGIC, at.AGENT_VERSION) + data
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        words = looks.read_page(file.fileno())
        looks.write_page(file.fileno(), 1, 2, 3, 4)
        assert words is None or (begins_well and 1 < words.pid < 2**31)
        file.seek(0)
        assert (file.read() == data) is (words is None)


@pytest.mark.parametrize("mode", [0o750, 0o707])
def test_directory_that_others_can_enter_is_refused(directory: Path, mode: int) -> None:
    """A directory that lets others in is not watched."""
    directory.chmod(mode)
    done = subprocess.run(
        [*native_program(), "--directory", str(directory)], capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert b"can not be watched" in done.stderr
