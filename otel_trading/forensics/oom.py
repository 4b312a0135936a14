"""Whether the kernel killed a process for want of memory: the cgroup's counts, the system's, and the kernel's log.

Control groups of version 1 and 2, or none; without root the kernel's log is usually closed, and that is no error.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SMALL_FILE = 1 << 16
_UNLIMITED = 1 << 60  # version 1 writes its "no limit" as some number near 2 ** 63
_LOG_BYTES = 8 << 20  # of the kernel's log, which is a ring of a megabyte or so
_KILLED = re.compile(rb"([Mm]emory cgroup out of memory|[Oo]ut of memory)[^\n]*?: Killed process (\d+)")
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # inode of the namespace whose pids the kernel's log has
_CGROUP_ENDS = ("memory.events", "memory.oom_control")


def read_text(path: str) -> str:
    """Read a small file of /proc or /sys; "" where it can not be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        return os.read(fd, _SMALL_FILE).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _counted(text: str, key: str) -> int | None:
    """Give the number behind ``key`` in lines of "key number"."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.strip().isdigit():
            return int(value)
    return None


def _mounts() -> Iterator[tuple[str, str, str]]:
    """Give (root within the hierarchy, mount point, "1" or "2") of each mount of memory control groups."""
    for line in read_text("/proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        head, kind = fields.split(" "), rest.split(" ")
        if len(head) < 5 or len(kind) < 3:  # noqa: PLR2004  the fields of proc(5)
            continue
        if kind[0] == "cgroup2":
            yield head[3], head[4], "2"
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            yield head[3], head[4], "1"


def memory_cgroups(pid: int) -> list[str]:
    """Give the directories of the memory control groups, of version 1 or 2, of a process that lives."""
    found = []
    paths = {}
    for line in read_text(f"/proc/{pid}/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths["2"] = path
        elif "memory" in controllers.split(","):
            paths["1"] = path
    for root, point, version in _mounts():
        if version not in paths:
            continue
        path = paths[version]
        within = os.path.relpath(path, root) if root != "/" and path.startswith(root) else path.lstrip("/")
        candidates = [os.path.join(point, within), point] if ".." not in within.split("/") else [point]
        for directory in candidates:
            if any(os.path.exists(os.path.join(directory, name)) for name in _CGROUP_ENDS):
                found.append(os.path.normpath(directory))
                break
    return found


def cgroup_kills(directory: str) -> int | None:
    """Count the processes of a control group that the kernel killed for want of memory; None where it does not say."""
    for name in _CGROUP_ENDS:
        count = _counted(read_text(os.path.join(directory, name)), "oom_kill")
        if count is not None:
            return count
    return None


def system_kills() -> int | None:
    """Give how many processes the kernel has killed so since it started; None where it does not say."""
    return _counted(read_text("/proc/vmstat"), "oom_kill")


def cgroup_limit(directory: str) -> int | None:
    """Give the memory limit of a control group, bytes; None without one."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = read_text(os.path.join(directory, name)).strip()
        if text.isdigit() and int(text) < _UNLIMITED:
            return int(text)
    return None


def address_space_limit(pid: int) -> int | None:
    """Give RLIMIT_AS of a process that lives, bytes; None without one, or where it may not be asked."""
    for line in read_text(f"/proc/{pid}/limits").splitlines():
        if line.startswith("Max address space"):
            soft = line[len("Max address space") :].split()
            return int(soft[0]) if soft and soft[0].isdigit() else None
    return None


def told_by_kernel(pid: int, since_boot_us: int = 0) -> str | None:
    """Give the line of the kernel's log that says that it killed process ``pid`` for want of memory, "" without one.

    ``since_boot_us``: older lines are of another process with that pid.  None where the log can not be read, or has
    other pids than we do.  At most 8 MB are looked through, some milliseconds.
    """
    try:
        if os.stat("/proc/self/ns/pid").st_ino != _FIRST_PID_NAMESPACE:
            return None
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _search(fd, pid, since_boot_us)
    finally:
        os.close(fd)


def _search(fd: int, pid: int, since_boot_us: int) -> str:
    found, left = "", _LOG_BYTES
    while left > 0:
        try:
            record = os.read(fd, 8192)
        except BrokenPipeError:  # the ring came round meanwhile: the next read goes on with the oldest
            left -= 8192
            continue
        except OSError:  # EAGAIN: that was the newest
            break
        if not record:
            break
        left -= len(record)
        match = _KILLED.search(record)
        if match and int(match[2]) == pid:
            fields = record.partition(b";")[0].split(b",")
            at = int(fields[2]) if len(fields) > 2 and fields[2].isdigit() else since_boot_us  # noqa: PLR2004
            if at >= since_boot_us:
                found = record.partition(b";")[2].partition(b"\n")[0].decode(errors="replace")[:400]
    return found
