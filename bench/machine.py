"""The machine in words, the versions of what runs on it, and the energy it takes."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from engine import threads

ROOT = Path(__file__).resolve().parent.parent
POWERCAP = Path("/sys/class/powercap")
NOISE = re.compile(r"\((?:r|tm)\)|@.*|\b(?:cpu|processor|with radeon.*|\d+-core)\b", re.IGNORECASE)


def machine() -> dict[str, Any]:
    """What it is, as in the file of results."""
    cores, memory_bytes, name = len(threads.allowed()), psutil.virtual_memory().total, cpu()
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    words = f"{cores} core{'s' * (cores > 1)} of {name}, {memory_bytes / 2**30:.0f} GB, {system}"
    plain = re.sub(r"[^a-z0-9]+", "-", f"{cores} core{'s' * (cores > 1)} {name}".lower()).strip("-")
    return {"name": plain, "words": words, "cpu": name, "cores": cores, "memory_bytes": memory_bytes}


def cpu() -> str:
    """The processor's name, without trade marks."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        names = []
    name = names[0] if names else platform.processor() or platform.machine() or "an unknown processor"
    return " ".join(NOISE.sub(" ", name).split())


def versions() -> dict[str, str]:
    """Of Linnet, the engine's binding and Python."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    found = re.search(r'^version = "(.+)"$', pyproject, re.MULTILINE)
    binding = importlib.metadata.version("llama-cpp-python")
    linnet = found.group(1) if found else "unknown"
    return {"linnet": linnet, "llama_cpp_python": binding, "python": platform.python_version()}


@dataclass(frozen=True)
class Meter:
    """The counters of energy of the machine's processors (RAPL)."""

    domains: tuple[tuple[Path, int], ...]  # each counter, and the microjoules after which it begins anew

    @classmethod
    def find(cls, folder: Path = POWERCAP) -> Meter | None:
        """None: the machine has none, or only root may read them."""
        domains = []
        for package in sorted(folder.glob("intel-rapl:?")):  # deeper ones are parts of these
            try:
                (package / "energy_uj").read_text()
                domains.append((package / "energy_uj", int((package / "max_energy_range_uj").read_text())))
            except (OSError, ValueError):
                continue
        return cls(tuple(domains)) if domains else None

    def read(self) -> list[int]:
        """Microjoules of each counter."""
        return [int(counter.read_text()) for counter, _ in self.domains]

    def joules(self, before: list[int], after: list[int]) -> float:
        """Taken between two readings."""
        ranges = (most for _, most in self.domains)
        return sum((b - a) % most for a, b, most in zip(before, after, ranges, strict=True)) / 1e6
