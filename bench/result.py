"""What a run says of itself, as the file of results keeps it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.figure import Figure, rounded
from bench.machine import machine, versions
from bench.rating import Rating
from engine.header import Header

FORMAT = 1
FOLDER = Path(__file__).resolve().parent / "results"


def result(
    figures: dict[str, Figure], rating: Rating, model: dict[str, Any], settings: dict[str, int], **run: Any
) -> dict[str, Any]:
    """All of it as plain data. `run`: whether it was a quick one, and its seconds."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"machine": machine(), "versions": versions(), "model": model, "settings": settings}
    plain = [figure.plain() for figure in figures.values()]
    return {"format": FORMAT, "date": now, **rounded(run), **about, "figures": plain, "rating": asdict(rating)}


def about(path: Path, header: Header) -> dict[str, Any]:
    """The model in a few words."""
    kinds = " + ".join(list(header.mix)[:2])
    description = f"{header.architecture} of {header.n_parameters / 1e9:.2g} billion parameters, {kinds}"
    size_bytes, parameters = path.stat().st_size, header.n_parameters
    return {"name": path.stem, "description": description, "size_bytes": size_bytes, "parameters": parameters}


def path_of(result: dict[str, Any], folder: Path = FOLDER, ending: str = ".json") -> Path:
    """<date>-<machine>-<model> and the ending. A quick run has a name of its own, or it would replace a whole one."""
    model = re.sub(r"[^a-z0-9.]+", "-", result["model"]["name"].lower()).strip("-.")
    quick = "-quick" if result.get("quick") else ""
    return folder / f"{result['date'][:10]}-{result['machine']['name']}-{model}{quick}{ending}"


def write(result: dict[str, Any], folder: Path = FOLDER) -> Path:
    """The path; an earlier one of the same day, machine and model is replaced."""
    path = path_of(result, folder)
    put(path, json.dumps(result, indent=1) + "\n")
    return path


def put(path: Path, text: str) -> None:
    """Into a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
