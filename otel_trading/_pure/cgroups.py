"""What the process's control groups leave it: version 1, version 2, both, or none."""

from __future__ import annotations

from math import inf, isnan, nan

from otel_trading._pure.system_files import SystemFile, field_of, number_of, read_text

_MOST_LEVELS = 8
_HALF = 0.5  # of a memory limit
_NO_LIMIT = 1e18  # bytes; version 1 writes no limit as about 2 ** 63
_QUOTA, _PERIOD, _USED, _LIMIT, _TAKEN, _STAT = range(6)
_NONE = SystemFile("")
_LEAST_OPTIONAL = 10  # fields of a line of mountinfo, with its separator


class Group:
    """One control group that may limit the process."""

    __slots__ = ("_files", "_unified", "cpus", "memory", "path")

    def __init__(self, path: str, *, unified: bool, usage: str = "") -> None:
        """``usage`` is where version 1 tells its CPU time."""
        self.path = path
        self.cpus = self.memory = inf  # what it may use: processors' time, bytes
        self._unified = unified
        if unified:
            names = ("cpu.max", "", "cpu.stat", "memory.max", "memory.current", "memory.stat")
        else:
            names = (
                "cpu.cfs_quota_us",
                "cpu.cfs_period_us",
                "",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "memory.stat",
            )
        self._files = [SystemFile(f"{path}/{name}") if name else _NONE for name in names]
        if usage:
            self._files[_USED] = SystemFile(f"{usage}/cpuacct.usage")

    def look_at_limits(self) -> None:
        """See what it may use."""
        files = self._files
        if self._unified:
            quota, _, period = files[_QUOTA].text(64).strip().partition(" ")
            share = number_of(quota) / (number_of(period) or nan)
        else:
            share = files[_QUOTA].number() / (files[_PERIOD].number() or nan)
        self.cpus = share if share > 0 else inf  # NaN is no limit, nor is -1
        most = files[_LIMIT].number()
        self.memory = most if 0 < most < _NO_LIMIT else inf

    def cpu_seconds(self) -> float:
        """Give the CPU time that it has used; NaN where that is not told."""
        used = self._files[_USED]
        return field_of(used.text(1024), "usage_usec") * 1e-6 if self._unified else used.number() * 1e-9

    def memory_load(self, total: float) -> float:
        """Give how much of its memory limit is used; 0 where it has none below ``total`` bytes."""
        most = self.memory
        if not most < total:
            return 0.0
        taken = self._files[_TAKEN].number()
        if taken / most >= _HALF:  # what can be given back at once is not used; below, it does not matter
            cached = field_of(self._files[_STAT].text(), "inactive_file" if self._unified else "total_inactive_file")
            taken -= cached if 0 < cached < taken else 0.0
        return 0.0 if isnan(taken) else taken / most


class Groups:
    """A process's control groups, from its own up to where they are mounted."""

    def __init__(self, root: str, pid: int = 0) -> None:
        """Find those of a process, 0: of this one, below ``root``, which stands for "/"."""
        mounts = _mounts(root)
        levels: dict[str, list[str]] = {}  # by controller, "" for version 2
        for line in read_text(f"{root}/proc/{pid or 'self'}/cgroup").splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            for controller in controllers.split(","):
                if controller in mounts:
                    levels[controller] = _levels(root, path, *mounts[controller])
        unified = [Group(path, unified=True) for path in levels.get("", ())]
        self.unified = unified[0].path if unified else None
        usage = levels.get("cpuacct", [])
        self.cpu = unified + [
            Group(path, unified=False, usage=account)
            for path, account in zip(reversed(levels.get("cpu", ())), reversed(usage))  # noqa: B905  from the top
        ]
        self.memory = unified + [Group(path, unified=False) for path in levels.get("memory", ())]


def _mounts(root: str) -> dict[str, tuple[str, str]]:
    """Give by controller ("" for version 2) what part of the hierarchy is mounted, and where."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in read_text(f"{root}/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if len(fields) < _LEAST_OPTIONAL or "-" not in fields:
            continue
        kind, _, options = [*fields[fields.index("-") + 1 :], "", "", ""][:3]
        if kind == "cgroup2":
            mounts.setdefault("", (_plain(fields[3]), _plain(fields[4])))
        elif kind == "cgroup":
            for option in options.split(","):
                mounts.setdefault(option, (_plain(fields[3]), _plain(fields[4])))
    return mounts


def _plain(path: str) -> str:
    for code in (" ", "\t", "\n", "\\"):
        path = path.replace(f"\\{ord(code):03o}", code)
    return path


def _levels(root: str, path: str, mounted: str, where: str) -> list[str]:
    """Give the directories of a group and of those above it, up to the mount."""
    if mounted != "/":  # seen from inside a container
        path = path[len(mounted) :] if f"{path}/".startswith(f"{mounted}/") else ""
    parts = [] if ".." in path else [part for part in path.split("/") if part]
    base = f"{root}{where}"
    levels = ["/".join([base, *parts[:depth]]) for depth in range(len(parts), -1, -1)]
    return levels[:_MOST_LEVELS]
