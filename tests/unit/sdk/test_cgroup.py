"""Load from cgroups of both versions, on folder trees as containers and machines show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickwheel._cgroup import LoadMeter

GIB = 1024**3


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")
    return folder


def v2(folder: Path, *, used_us: int, cpu_max: str = "max 100000", memory_max: object = "max") -> Path:
    return write(
        folder,
        cpu__stat=f"usage_usec {used_us}\nuser_usec 1\nsystem_usec 2",
        cpu__max=cpu_max,
        memory__current=3 * GIB,
        memory__stat=f"anon 1\ninactive_file {GIB}\nactive_file 5",
        memory__max=memory_max,
    )


def proc(tmp_path: Path, cgroup: str) -> Path:
    folder = write(tmp_path / "proc", meminfo=f"MemTotal:       {16 * 1024**2} kB\nMemFree: 1 kB")
    write(folder / "self", cgroup=cgroup)
    return folder


def test_v2_in_a_container_with_its_own_namespace(tmp_path, clock):
    root = v2(tmp_path / "cg", used_us=1_000_000, cpu_max="150000 100000", memory_max=4 * GIB)
    meter = LoadMeter(root=root, proc=proc(tmp_path, "0::/"), clock=clock)
    assert meter.kind == "cgroup-v2"
    v2(root, used_us=7_000_000, cpu_max="150000 100000", memory_max=4 * GIB)
    clock.now += 10
    load = meter.read()
    assert load.cpu == pytest.approx(0.4)
    assert load.cpu_millis == 600
    assert load.memory == pytest.approx(0.5)
    assert load.memory_bytes == 2 * GIB


def test_v2_on_a_machine_takes_the_tightest_limit_above(tmp_path, clock):
    root = tmp_path / "cg"
    write(root, cpu__stat="usage_usec 1")
    write(root / "kubepods", cpu__max="50000 100000", memory__max=8 * GIB)
    v2(root / "kubepods" / "pod1", used_us=0, cpu_max="100000 100000")
    meter = LoadMeter(root=root, proc=proc(tmp_path, "0::/kubepods/pod1"), clock=clock)
    v2(root / "kubepods" / "pod1", used_us=250_000, cpu_max="100000 100000")
    clock.now += 1
    load = meter.read()
    assert load.cpu == pytest.approx(0.5)
    assert load.memory == pytest.approx(0.25)


def test_v2_without_limits_is_measured_against_the_machine(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    root = v2(tmp_path / "cg", used_us=0)
    meter = LoadMeter(root=root, proc=proc(tmp_path, "0::/"), clock=clock)
    v2(root, used_us=2_000_000)
    clock.now += 1
    load = meter.read()
    assert load.cpu == pytest.approx(0.5)
    assert load.cpu_millis == 2000
    assert load.memory == pytest.approx(2 / 16)


V1 = "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"


def v1(cpu: Path, memory: Path, *, used_ns: int, quota: int = 50_000, limit: int = 4 * GIB) -> None:
    write(cpu, cpuacct__usage=used_ns, cpu__cfs_quota_us=quota, cpu__cfs_period_us=100_000)
    write(
        memory,
        memory__usage_in_bytes=3 * GIB,
        memory__limit_in_bytes=limit,
        memory__stat=f"cache 1\ninactive_file 7\ntotal_inactive_file {GIB}",
    )


@pytest.mark.parametrize("inside", ["", "docker/abc"])
def test_v1_in_a_container_or_on_a_machine(tmp_path, clock, inside):
    root = tmp_path / "cg"
    folders = root / "cpu,cpuacct" / inside, root / "memory" / inside
    v1(*folders, used_ns=0)
    meter = LoadMeter(root=root, proc=proc(tmp_path, V1), clock=clock)
    assert meter.kind == "cgroup-v1"
    v1(*folders, used_ns=2_500_000_000)
    clock.now += 10
    load = meter.read()
    assert load.cpu == pytest.approx(0.5)
    assert load.cpu_millis == 250
    assert load.memory == pytest.approx(0.5)


def test_v1_without_limits_is_measured_against_the_machine(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    root = tmp_path / "cg"
    folders = root / "cpu,cpuacct", root / "memory"
    v1(*folders, used_ns=0, quota=-1, limit=9_223_372_036_854_771_712)
    meter = LoadMeter(root=root, proc=proc(tmp_path, V1), clock=clock)
    v1(*folders, used_ns=1_000_000_000, quota=-1, limit=9_223_372_036_854_771_712)
    clock.now += 1
    load = meter.read()
    assert load.cpu == pytest.approx(0.25)
    assert load.memory == pytest.approx(2 / 16)


def test_a_hybrid_machine_uses_the_controllers_of_v1(tmp_path, clock):
    root = tmp_path / "cg"
    v1(root / "cpu,cpuacct", root / "memory", used_ns=0)
    write(root / "unified", cpu__stat="usage_usec 5")
    meter = LoadMeter(root=root, proc=proc(tmp_path, V1 + "\n0::/init.scope"), clock=clock)
    assert meter.kind == "cgroup-v1"


def test_without_cgroups_the_process_itself_is_measured(tmp_path, clock):
    folder = proc(tmp_path, "")
    write(folder / "self", statm="1000 500 1 1 1 1 1")
    meter = LoadMeter(root=tmp_path / "none", proc=folder, clock=clock)
    assert meter.kind == "process"
    clock.now += 1
    assert meter.read().memory_bytes > 0


def test_the_files_are_read_at_most_every_half_second(tmp_path, clock):
    root = v2(tmp_path / "cg", used_us=0)
    meter = LoadMeter(root=root, proc=proc(tmp_path, "0::/"), clock=clock)
    clock.now += 1
    first = meter.read()
    v2(root, used_us=9_000_000)
    clock.now += 0.4
    assert meter.read() is first
    clock.now += 0.2
    assert meter.read().cpu_millis == 15_000


def test_a_file_that_vanishes_does_not_stop_the_worker(tmp_path, clock):
    root = v2(tmp_path / "cg", used_us=5)
    meter = LoadMeter(root=root, proc=proc(tmp_path, "0::/"), clock=clock)
    for file in root.iterdir():
        file.unlink()
    clock.now += 1
    assert meter.read().cpu == 0.0
