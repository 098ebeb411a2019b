"""How much CPU and memory the worker uses, as its cgroup (v1 or v2) says; sent with every pull.

`Link` asks before each pull; the files are read at most every half second. Shares are of the cgroup's limit, or of the
whole machine where there is none. Outside of Linux the process's own figures stand in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ._protocol import Load

__all__ = ["LoadMeter"]

_MIN_INTERVAL_SECONDS = 0.5
_UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes "no limit" as about 2**63


class LoadMeter:
    """Measures the load since it was last asked.

    `root` is where the cgroup file systems are mounted and `proc` the process file system: tests give their own.
    """

    def __init__(
        self,
        *,
        root: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc = proc
        self._clock = clock
        self._cgroup = _find(root, proc)
        self._read_at = clock()
        self._cpu_seconds = self._cgroup.cpu_seconds()
        self._last: Load | None = None

    @property
    def kind(self) -> str:
        """Where the figures come from: `cgroup-v2`, `cgroup-v1` or `process`."""
        return self._cgroup.kind

    def read(self) -> Load:
        """The load now; the CPU's is the average since the last reading."""
        now = self._clock()
        elapsed = now - self._read_at
        if self._last is not None and elapsed < _MIN_INTERVAL_SECONDS:
            return self._last
        seconds = self._cgroup.cpu_seconds()
        cores = max(0.0, seconds - self._cpu_seconds) / elapsed if elapsed > 0 else 0.0
        self._read_at, self._cpu_seconds = now, seconds
        used = self._cgroup.memory_bytes()
        limit = self._cgroup.memory_limit() or _machine_memory(self._proc)
        self._last = Load(
            cpu=round(cores / (self._cgroup.cpu_limit() or os.cpu_count() or 1), 4),
            memory=round(used / limit, 4) if limit else 0.0,
            cpu_millis=round(cores * 1000),
            memory_bytes=used,
        )
        return self._last


class _Process:
    """This process alone, where there is no cgroup to read."""

    kind = "process"

    def __init__(self, proc: Path) -> None:
        self._proc = proc

    def cpu_seconds(self) -> float:
        return time.process_time()

    def cpu_limit(self) -> float | None:
        return None

    def memory_bytes(self) -> int:
        fields = (_text(self._proc / "self/statm") or "0 0").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def memory_limit(self) -> int | None:
        return None


class _V2(_Process):
    """The unified hierarchy: one folder; limits of the folders above count too."""

    kind = "cgroup-v2"

    def __init__(self, proc: Path, folder: Path, root: Path) -> None:
        super().__init__(proc)
        self._folder, self._root = folder, root

    def cpu_seconds(self) -> float:
        return _entry(self._folder / "cpu.stat", "usage_usec") / 1_000_000

    def cpu_limit(self) -> float | None:
        limits = []
        for folder in _upwards(self._folder, self._root):
            quota, _, period = (_text(folder / "cpu.max") or "max").partition(" ")
            if quota != "max":
                limits.append(int(quota) / int(period or 100_000))
        return min(limits, default=None)

    def memory_bytes(self) -> int:
        # As the kubelet counts it: cache that can be dropped at once is not in use.
        used = _number(self._folder / "memory.current") or 0
        return max(0, used - _entry(self._folder / "memory.stat", "inactive_file"))

    def memory_limit(self) -> int | None:
        found = (_number(folder / "memory.max") for folder in _upwards(self._folder, self._root))
        return min((limit for limit in found if limit is not None), default=None)


class _V1(_Process):
    """One hierarchy per controller: `cpu`, `cpuacct` and `memory` may be mounted apart or together."""

    kind = "cgroup-v1"

    def __init__(self, proc: Path, folders: dict[str, tuple[Path, Path]]) -> None:
        super().__init__(proc)
        self._cpu, self._cpu_root = folders["cpu"]
        self._accounting = folders["cpuacct"][0]
        self._memory, self._memory_root = folders["memory"]

    def cpu_seconds(self) -> float:
        return (_number(self._accounting / "cpuacct.usage") or 0) / 1_000_000_000

    def cpu_limit(self) -> float | None:
        limits = []
        for folder in _upwards(self._cpu, self._cpu_root):
            quota = _number(folder / "cpu.cfs_quota_us")
            period = _number(folder / "cpu.cfs_period_us")
            if quota is not None and quota > 0 and period:
                limits.append(quota / period)
        return min(limits, default=None)

    def memory_bytes(self) -> int:
        used = _number(self._memory / "memory.usage_in_bytes") or 0
        return max(0, used - _entry(self._memory / "memory.stat", "total_inactive_file"))

    def memory_limit(self) -> int | None:
        found = (_number(f / "memory.limit_in_bytes") for f in _upwards(self._memory, self._memory_root))
        return min((n for n in found if n is not None and n < _UNLIMITED_BYTES), default=None)


def _find(root: Path, proc: Path) -> _Process:
    """The worker's own cgroup. A container often sees the path of the host in `/proc/self/cgroup` but only its own
    folder mounted, at the root: then the root is meant."""
    unified = ""
    controllers: dict[str, str] = {}
    for line in (_text(proc / "self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            unified = path
        for name in names.split(","):
            controllers[name] = path
    if {"cpu", "cpuacct", "memory"} <= controllers.keys():
        folders: dict[str, tuple[Path, Path]] = {}
        for name, probe in (
            ("cpu", "cpu.cfs_quota_us"),
            ("cpuacct", "cpuacct.usage"),
            ("memory", "memory.usage_in_bytes"),
        ):
            for mounted in sorted(root.glob(f"*{name}*")):
                if name in mounted.name.split(",") and (folder := _probe(mounted, controllers[name], probe)):
                    folders[name] = (folder, mounted)
                    break
        if len(folders) == 3:
            return _V1(proc, folders)
    if unified:
        for mounted in (root, root / "unified"):
            if folder := _probe(mounted, unified, "cpu.stat"):
                if _text(folder / "memory.current") is None:
                    continue  # the root cgroup of a machine (not of a container) counts no memory
                return _V2(proc, folder, mounted)
    return _Process(proc)


def _probe(mounted: Path, path: str, file: str) -> Path | None:
    inside = mounted / path.lstrip("/")
    if ".." not in path and (inside / file).is_file():
        return inside
    return mounted if (mounted / file).is_file() else None


def _upwards(folder: Path, root: Path) -> Iterator[Path]:
    yield folder
    while folder != root:
        folder = folder.parent
        yield folder


def _machine_memory(proc: Path) -> int:
    for line in (_text(proc / "meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def _entry(path: Path, key: str) -> int:
    for line in (_text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
