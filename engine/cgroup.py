"""The control groups that this process is in: a container's or a service's limits hold at every level above it, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def folders(controller: str) -> Iterator[Path]:
    """Where the limits of "cpu" or "memory" stand, from our own group up; version 2, then version 1."""
    paths = {"": "/", controller: "/"}
    try:
        for line in OWN.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            paths |= {name: path for name in controllers.split(",") if name in paths}
    except (OSError, ValueError):  # not Linux, or hidden
        pass
    for base, path in ((ROOT, paths[""]), (ROOT / controller, paths[controller])):
        folder = base / path.lstrip("/")
        while folder != base.parent:
            if folder.is_dir():
                yield folder
            folder = folder.parent
