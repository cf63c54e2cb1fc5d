"""The house itself: arrows of import, sizes, the README's tree, and no trace of any one machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from settings import Settings
from tests.conftest import ROOT

FILES = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
FILES = [name for name in FILES if (ROOT / name).exists()]
CODE = [ROOT / name for name in FILES if name.endswith(".py") and not name.startswith(("tests/", "models/demo/"))]
README = (ROOT / "README.md").read_text()

# Who may import whom. Nothing imports upwards.
ARROWS = {
    "server": {"api", "cache", "engine", "models", "settings", "web"},
    "settings": set(),
    "api": {"api", "cache", "engine", "models", "settings", "web"},
    "cache": {"cache", "settings"},
    "web": {"web"},
    "engine": {"engine"},
    "models": {"engine", "models"},
    "convert": {"convert", "engine", "models"},
    "bench": {"bench", "cache", "engine", "models"},
    "scripts": {"api", "models"},
}
OTHER_REQUIREMENTS = ("convert/requirements.txt", "tests/checkpoints/requirements.txt", "bench/peers/requirements.txt")
ONLY_IN = {
    "llama_cpp": ["engine/native/", "convert/quantize.py"],
    "flask": ["server.py", "api/", "web/"],
    "waitress": ["server.py", "api/wsgi.py"],
    "diskcache": ["cache/disk.py"],
    "huggingface_hub": ["models/hub.py", "models/route.py", "convert/hub.py"],
    "httpx2": ["models/hub.py", "models/route.py"],
    "markdown_it": ["web/markdown.py", "web/formula.py"],
    "pygments": ["web/markdown.py"],
    "nh3": ["web/markdown.py"],
    "latex2mathml": ["web/formula.py"],
    "prometheus_client": ["api/metrics.py", "api/status.py"],
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_imports_follow_the_arrows(path):
    room = name_of(path).split("/")[0].removesuffix(".py")
    for module in imports(path):
        top = module.split(".")[0]
        assert top not in ARROWS or top in ARROWS[room], f"{room} must not import {module}"
        if top in ONLY_IN:
            assert name_of(path).startswith(tuple(ONLY_IN[top])), f"{top} has no place in {name_of(path)}"


def test_inside_the_front_only_the_pipe_leads_to_the_worker():
    for path in CODE:
        if name_of(path).startswith(("server", "api/", "engine/client")):
            assert not {"engine.worker", "engine.loop", "engine.native.model"} & imports(path)


def test_imports_stand_at_the_top_of_a_file():
    for path in CODE:
        for function in (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)):
            assert not any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(function)), (
                f"{name_of(path)}: {function.name}"
            )


def test_files_and_functions_fit_on_a_page_or_two():
    for path in CODE:
        text = path.read_text()
        assert text.count("\n") <= 300, name_of(path)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                assert node.end_lineno - node.lineno < 50, f"{name_of(path)}: {node.name}"
    for name in FILES:
        if name.endswith((".js", ".css", ".html")):
            assert (ROOT / name).read_text().count("\n") <= 300, name


def test_the_readmes_tree_names_every_file_once_and_nothing_else():
    tree = README[README.index("## The house") :]
    listed = re.findall(r"^    ([\w./]+)  ", tree, re.MULTILINE)
    assert len(listed) == len(set(listed))
    for entry in listed:
        assert any(name == entry or name.startswith(entry) for name in FILES), f"{entry} is not there"
    folders = tuple(entry for entry in listed if entry.endswith("/"))
    for name in (name for name in FILES if name.endswith((".py", ".js", ".css", ".html"))):
        if (ROOT / name).read_text().count("\n") > 3:  # a package's docstring needs no line of its own
            assert name in listed or name.startswith(folders), f"{name} is missing in the README's tree"


def test_the_readme_names_every_setting_and_every_make_target_it_mentions_exists():
    for field in Settings.__dataclass_fields__:
        assert f"`--{field.replace('_', '-')}`" in README
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_versions_are_exact():
    for name in ("requirements.txt", "requirements-dev.txt", "models/demo/requirements.txt", *OTHER_REQUIREMENTS):
        for line in (ROOT / name).read_text().splitlines():
            requirement = line.split("#")[0].strip()
            assert not requirement or requirement.startswith("-r ") or re.fullmatch(r"[\w-]+==[\w.]+", requirement), line


def test_the_project_needs_nothing_outside_its_own_folder():
    outside = re.compile(rb"\.\./shared|/work/|/home/\w|/root/")
    for name in FILES:
        if name != "tests/test_house.py":
            assert not outside.search((ROOT / name).read_bytes()), name
