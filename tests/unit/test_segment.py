"""Segments as files: where they are, how they are made, found, tidied up, attached and steered."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from segment_image import Image, busy, write

from otel_trading import _layout as at
from otel_trading import segment
from otel_trading.errors import (
    SegmentDamagedError,
    SegmentDirectoryError,
    SegmentError,
    SegmentForeignError,
    SegmentNotFoundError,
    SegmentSpaceError,
    SegmentTruncatedError,
    SegmentVersionError,
)
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Recorder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory that segments can be made in."""
    path = tmp_path / "segments"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def file(directory: Path) -> Path:
    """Give a segment's file, of this process."""
    return write(directory / "image-1-1.seg", busy())


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """Give the pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


# ---- where ----


def test_the_directory_that_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OTEL_TRADING_DIR is taken as it is, and made absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_TRADING_DIR", "here")
    assert segment.default_directory() == str(tmp_path / "here")


def test_the_default_directory_is_shared_memory() -> None:
    """Where /dev/shm can be written, segments are there, apart for each user."""
    shared = Path("/dev/shm")  # noqa: S108  where the segments are
    if not (shared.is_dir() and os.access(shared, os.W_OK)):
        pytest.skip("there is no /dev/shm here")
    assert segment.default_directory() == str(shared / f"otel-trading-{os.geteuid()}")


def test_without_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without /dev/shm it is XDG_RUNTIME_DIR, and without that the directory for temporary files."""
    import tempfile

    monkeypatch.setattr("otel_trading.segment.directory._SHARED_MEMORY", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    name = f"otel-trading-{os.geteuid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert segment.default_directory() == str(tmp_path / name)
    for useless in (str(tmp_path / "none"), "relative", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", useless)
        assert segment.default_directory() == str(tmp_path / "temporary" / name)


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """A directory that is not there is made, with mode 0700, and its parents with it."""
    path = tmp_path / "a" / "b"
    fd = segment.prepare_directory(path)
    assert os.path.samestat(os.fstat(fd), path.stat())
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    os.close(segment.prepare_directory(path))


@pytest.mark.parametrize("ending", ["", "/", "/."])
def test_a_link_is_no_directory(tmp_path: Path, directory: Path, ending: str) -> None:
    """A link that somebody has planted is not followed, however it is written."""
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(SegmentDirectoryError, match="link"):
        segment.prepare_directory(f"{tmp_path}/link{ending}")
    with pytest.raises(SegmentDirectoryError, match="link"):
        segment.create("bot", f"{tmp_path}/link{ending}")
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o1777])
def test_a_directory_that_lets_others_in(directory: Path, mode: int) -> None:
    """Access for group or others is refused, with the command that takes it away."""
    directory.chmod(mode)
    with pytest.raises(SegmentDirectoryError, match=f"chmod 700 {directory}"):
        segment.prepare_directory(directory)
    with pytest.raises(SegmentDirectoryError):
        segment.segments(directory)


def test_a_directory_of_somebody_else(directory: Path) -> None:
    """Another user's directory is refused."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(directory, 12345, -1)
    with pytest.raises(SegmentDirectoryError, match="12345"):
        segment.prepare_directory(directory)


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    """A file is no directory, nor has it one below."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SegmentDirectoryError, match="Remedy: "):
            segment.prepare_directory(path)


def test_no_room(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is told as such, with what helps."""

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        with pytest.raises(SegmentSpaceError, match="OTEL_TRADING_DIR"):
            segment.prepare_directory(directory / "more")
    fd = segment.prepare_directory(directory)
    monkeypatch.setattr("otel_trading.segment.making.prepare_directory", lambda _: fd)
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(SegmentSpaceError, match="free some space"):
        segment.create("bot", directory)


# ---- made ----


def test_create_makes_a_file_for_its_owner_alone(directory: Path) -> None:
    """The file is new, empty, of mode 0600, named after service, process and time, and its descriptor stays here."""
    created = segment.create("my bot/\u00fc", directory)
    fd, path = created
    assert (fd, path) == (created.fd, created.path)
    name, pid, when = Path(path).stem.rsplit("-", 2)
    assert (name, int(pid)) == ("my_bot__", os.getpid())
    assert abs(int(when, 16) - Path(path).stat().st_mtime_ns) < 60 * 10**9
    status = os.fstat(fd)
    assert os.path.samestat(status, os.lstat(path))
    assert (stat.S_IMODE(status.st_mode), status.st_size) == (0o600, 0)
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("service", ["..", "../../etc/passwd", ".hidden", "a" * 5000, "\0", "-"])
def test_a_service_name_does_not_leave_the_directory(directory: Path, service: str) -> None:
    """Whatever the service is called, its file is in the directory and not hidden."""
    created = segment.create(service, directory)
    os.close(created.fd)
    assert Path(created.path).parent == directory
    assert not Path(created.path).name.startswith(".")


def test_two_segments_have_two_files(directory: Path) -> None:
    """Many segments of one process do not meet."""
    made = [segment.create("bot", directory) for _ in range(20)]
    for created in made:
        os.close(created.fd)
    assert len({created.path for created in made}) == 20


def test_a_planted_name_is_not_opened(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that waits under the very name is not followed, and names that are all taken are an error, not a loop."""
    target = tmp_path / "target"
    target.write_text("precious")
    (directory / "planted.seg").symlink_to(target)
    monkeypatch.setattr("otel_trading.segment.making._file_name", lambda *_: "planted.seg")
    with pytest.raises(SegmentError, match="taken"):
        segment.create("bot", directory)
    assert target.read_text() == "precious"


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Be a user whom rights apply to, and give that user's own directory: root may write anywhere."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def test_a_directory_that_can_not_be_written(as_nobody: Path) -> None:
    """A directory without the right to write says so."""
    as_nobody.chmod(0o500)
    with pytest.raises(SegmentDirectoryError):
        segment.create("bot", as_nobody)


def test_create_in_the_default_directory(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Without a directory it is the default one, without a service the environment's."""
    monkeypatch.setenv("OTEL_TRADING_DIR", str(directory))
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-environment")
    created = segment.create()
    os.close(created.fd)
    assert Path(created.path).name.startswith("from-environment-")
    assert Path(created.path).parent == directory


# ---- found ----


def test_segments_are_found_oldest_first(directory: Path, dead_pid: int) -> None:
    """Each is told with its path, service, process, and whether that lives."""
    write(directory / "b.seg", Image(pid=dead_pid, created_ns=7, closed=1))
    write(directory / "a.seg", Image(pid=os.getpid(), created_ns=9))
    old, new = segment.segments(directory)
    assert (old.path, old.pid, old.alive, old.closed, old.created_ns) == (
        str(directory / "b.seg"),
        dead_pid,
        False,
        True,
        7,
    )
    assert (new.path, new.pid, new.alive, new.closed, new.service) == (
        str(directory / "a.seg"),
        os.getpid(),
        True,
        False,
        "image",
    )
    assert "image" in repr(new)
    assert "alive" in repr(new)
    assert "dead" in repr(old)


def test_no_directory_has_no_segments(tmp_path: Path) -> None:
    """Before anything was recorded there is nothing to find, and nothing is made."""
    assert segment.segments(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("resource", [b"", b"[", b"[" * 3000, b"[1]", b'{"service.name":5}', b"{}", b"\xff\xfe"])
def test_a_damaged_resource_has_no_service(directory: Path, resource: bytes) -> None:
    """Whatever the resource holds, the segment is found."""
    image = Image(resource_bytes=len(resource))
    image.bytes[at.OFF_HEADER_RESOURCE : at.OFF_HEADER_RESOURCE + len(resource)] = resource
    write(directory / "a.seg", image)
    (found,) = segment.segments(directory)
    assert found.service == "unknown_service"


# ---- attached ----


def test_attach_gives_a_reader(file: Path) -> None:
    """A segment's file can be read, and reading it changes nothing."""
    before = file.read_bytes()
    reader = segment.attach(file)
    assert reader.info()["pid"] == os.getpid()
    assert len(reader.read(100)) > 0
    reader.close()
    assert file.read_bytes() == before


def test_attach_to_a_recorder(recorder: Recorder) -> None:
    """A living recorder is found, attached and steered."""
    import otel_trading as ot

    (found,) = segment.segments(recorder.directory)
    assert (found.path, found.pid, found.alive, found.closed) == (str(recorder.path), os.getpid(), True, False)
    probe = ot.probe("segment.attached", tier=ot.P3)
    reader = segment.attach(found.path)
    with Control(found.path) as control:
        for on, recorded in ((False, 0), (True, 1)):
            control.set_tier(3, on)
            probe.stop(probe.start())
            assert len(reader.read(10)) == recorded
        control.record = False
        probe.stop(probe.start())
        assert reader.read(10) == []
        assert reader.info()["switches"] == at.SWITCH_EXPORT
    reader.close()


def test_each_kind_of_trouble_is_its_own_error(file: Path) -> None:
    """Foreign, changed, truncated and damaged files are told apart, with the path and the remedy."""
    data = file.read_bytes()
    other_version = busy()
    other_version.header(version=9)
    damaged = busy()
    damaged.header(header_bytes=3)
    cases: list[tuple[bytes, type[SegmentError]]] = [
        (b"", SegmentForeignError),
        (b"x" * 8192, SegmentForeignError),
        (bytes(other_version.bytes), SegmentVersionError),
        (data[:100], SegmentTruncatedError),
        (data[:-1], SegmentTruncatedError),
        (bytes(damaged.bytes), SegmentDamagedError),
    ]
    for content, kind in cases:
        file.write_bytes(content)
        with pytest.raises(kind) as caught:
            segment.attach(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert kind.remedy in str(caught.value)


@pytest.mark.parametrize("use", [segment.attach, Control])
def test_what_is_no_file_of_ours_is_not_opened(file: Path, directory: Path, use: Any) -> None:
    """Nothing, a link, a pipe, a directory, another's file: all are refused at once, by reader and control alike."""
    with pytest.raises(SegmentNotFoundError, match="OTEL_TRADING_DIR"):
        use(directory / "none.seg")
    (directory / "link.seg").symlink_to(file)
    with pytest.raises(SegmentForeignError, match="link"):
        use(directory / "link.seg")
    os.mkfifo(directory / "pipe.seg")
    with pytest.raises(SegmentForeignError, match="regular"):
        use(directory / "pipe.seg")
    with pytest.raises(SegmentForeignError):
        use(directory)
    descriptors = Path("/proc/self/fd")
    if descriptors.exists():
        assert not [fd for fd in descriptors.iterdir() if os.path.realpath(fd).startswith(str(directory))]


def test_another_users_file_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not this user's is not believed; root may look at everybody's."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(SegmentForeignError, match="belongs to user"):
        segment.attach(file)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    segment.attach(file).close()


# ---- as a whole ----


def test_import_is_cheap() -> None:
    """Making a segment loads neither OpenTelemetry nor what only commands need."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"  # coverage has loaded some, where it measures this process
        "from otel_trading import segment\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(loaded & {'opentelemetry', 'dataclasses', 'inspect', 'typing', 'logging', 'asyncio'}))"
    )
    root = str(Path(segment.__file__).parent.parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_whole_life(directory: Path, tmp_path: Path) -> None:
    """A segment whose process was killed is found as dead, and can still be read, also as a copy elsewhere."""
    code = (
        "import os, sys, signal\n"
        "import otel_trading as ot\n"
        "ot.configure('killed', sys.argv[1], {'ring.slots': 64, 'drain.period': 60})\n"
        "with ot.probe('finished'):\n"
        "    pass\n"
        "with ot.probe('unfinished'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(segment.__file__).parent.parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code, str(directory)], env=environment, check=False)
    assert done.returncode < 0
    (found,) = segment.segments(directory)
    assert (found.service, found.alive, found.closed) == ("killed", False, False)
    copy = tmp_path / "copy.seg"
    shutil.copyfile(found.path, copy)
    for path in (found.path, copy):
        reader = segment.attach(path)
        names = [probe[0] for probe in reader.probes()]
        assert [names[span[0]] for span in reader.read(10)] == ["finished"]
        assert [names[span[0]] for span in reader.open_spans()] == ["unfinished"]
        reader.close()
