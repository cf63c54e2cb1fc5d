"""engine.threads: how many, from what the machine says."""

import os
from pathlib import Path

import pytest

from engine import cgroup, threads


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four CPUs on two cores, no quota."""
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(threads, "CPU_FOLDER", tmp_path / "cpu")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    return tmp_path


def test_two_halves_of_one_core_count_once(machine):
    assert threads.count() == 2


def test_affinity_limits(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1}, raising=False)
    assert threads.count() == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu.max": "nonsense"}, 2),
    ],
)
def test_a_containers_quota_limits_in_both_versions_of_control_groups(machine, files, expected):
    for name, text in files.items():
        path = machine / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert threads.count() == expected


def test_where_the_topology_is_hidden_there_is_still_at_least_one_thread(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "CPU_FOLDER", tmp_path)
    assert threads.count() >= 1


def test_the_users_own_settings_win(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert threads.environment() == {"GOMP_SPINCOUNT": "1000", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    assert threads.environment() == {
        "GOMP_SPINCOUNT": "5",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1",
    }
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert threads.environment()["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=0"
