"""How many threads the engine computes with, how they wait for each other, and what kind of memory they read."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import psutil

from engine import cgroup

HUGE_PAGES = "glibc.malloc.hugetlb"
CPU_FOLDER = Path("/sys/devices/system/cpu")


def count() -> int:
    """min(CPUs we may run on, the container's CPU quota, physical cores), at least 1.

    Two threads on the two halves of one core share its arithmetic units and only wait for each other.
    """
    cpus = allowed()
    limits = [len(cpus), _n_cores(cpus)]
    limits += [max(1, int(quota)) for folder in cgroup.folders("cpu") if (quota := _quota(folder)) is not None]
    return max(1, min(limits))


def environment() -> dict[str, str]:
    """Variables that must be set before llama.cpp and the C library are loaded: they are read then and never again.

    A thread that has nothing to do spins for a moment (a step has hundreds of barriers, sleeping at each costs a third of
    the speed) and then sleeps: unbounded, one busy neighbour on two cores cuts the speed from 45 to 14 tokens/s. Weights
    that llama.cpp has rearranged are read up to a tenth faster in pages of 2 MB; most Linux kernels give them to whoever
    asks, and glibc can be told to ask.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if HUGE_PAGES not in tunables:
        tunables = f"{tunables}:{HUGE_PAGES}=1".lstrip(":")
    return {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000"), "GLIBC_TUNABLES": tunables}


def allowed() -> set[int]:
    """The CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def busy_s(cpus: set[int], idle: Collection[str] = ("idle", "iowait")) -> tuple[float, float]:
    """Seconds that these CPUs were busy, and all of theirs, since the machine was started. `idle`: what is not busy."""
    busy = total = 0.0
    for cpu, times in enumerate(psutil.cpu_times(percpu=True)):
        if cpu in cpus:
            every = sum(times[:8])  # guest time, which comes last, is contained in user time
            total += every
            busy += every - sum(getattr(times, name, 0.0) for name in idle)
    return busy, total


def _n_cores(cpus: set[int]) -> int:
    """Physical cores among these CPUs."""
    try:
        cores = {(CPU_FOLDER / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip() for cpu in cpus}
    except OSError:  # not Linux, or a container that hides it
        return psutil.cpu_count(logical=False) or len(cpus)
    return len(cores)


def _quota(folder: Path) -> float | None:
    """CPUs' worth of time that a control group grants (version 2, then 1); None: no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
