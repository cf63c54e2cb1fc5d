"""scripts.setup: says what is missing, shows that it works, does nothing twice."""

import sys
from pathlib import Path

import pytest

from scripts import setup


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("  [7/140] /usr/bin/gcc -DGGML_BUILD -c ggml.c", 5),
        ("  [140/140] Linking", 100),
        ("[ 42%] Building C object", 42),
        ("Collecting numpy==2.4.6", None),
        ("  [notice] a new release", None),
    ],
)
def test_the_builds_own_progress_is_understood(line, percent):
    assert setup.progress(line) == percent


def test_without_a_compiler_it_ends_with_a_sentence_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(setup, "PYTHON", Path("/bin/false"))  # nothing is installed in such an environment
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit, match=r"No C/C\+\+ compiler .*build-essential"):
        setup.install_engine()


def test_a_python_that_is_too_old_is_refused_with_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11"):
        setup.main(dev=False)


def test_a_step_that_fails_ends_with_the_end_of_its_output(monkeypatch, tmp_path, capsys):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho why it failed\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(setup, "PYTHON", script)
    monkeypatch.setattr(setup, "LOG", setup.ROOT / ".venv/test-setup.log")
    with pytest.raises(SystemExit, match="Installing failed"):
        setup.pip("anything")
    assert "why it failed" in capsys.readouterr().err


def test_nothing_is_done_when_nothing_changed(monkeypatch, tmp_path):
    def forbidden() -> None:
        raise AssertionError("set up again without need")

    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(setup, "install_browser", lambda: None)
    monkeypatch.setattr(setup, "install_node_packages", lambda: None)
    monkeypatch.setattr(setup, "make_venv", lambda: calls.append(("venv",)))
    monkeypatch.setattr(setup, "install_engine", lambda: calls.append(("engine",)))
    monkeypatch.setattr(setup, "pip", lambda *arguments: calls.append(arguments))
    setup.main(dev=True)
    assert [name for name, *_ in calls] == ["venv", "engine", "-r"]
    for name in ("make_venv", "install_engine", "pip"):
        monkeypatch.setattr(setup, name, forbidden)
    setup.main(dev=True)
    setup.main(dev=False)  # is part of it
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    with pytest.raises(AssertionError):
        setup.main(dev=True)
    assert not list(tmp_path.glob("*.stamp"))
