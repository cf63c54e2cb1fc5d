"""models.identity: which model a file holds, found out once."""

import hashlib
import json
import os
import threading

import pytest

from engine.request import stamp
from models import identity
from models.identity import REMEMBERED, Watched, identify


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + b"x" * 1000)
    return path


def test_a_file_is_read_once_and_again_when_it_has_changed(file, tmp_path, monkeypatch):
    first = identify(file, tmp_path)
    assert first.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(identity, "_read", None)
    assert identify(file, tmp_path) == first
    monkeypatch.undo()
    os.utime(file, ns=(1, 1))
    monkeypatch.setattr(identity, "_read", lambda _: "read again")
    with pytest.raises(TypeError):  # that is no Identity and cannot be remembered
        identify(file, tmp_path)
    monkeypatch.undo()
    file.write_bytes(b"GGUF" + b"y" * 1000)
    assert identify(file, tmp_path).sha256 != first.sha256


def test_a_file_that_is_replaced_is_read_again_in_the_background(file, tmp_path):
    watched = Watched(file, tmp_path)
    first = watched.of(stamp(file))
    assert first == identify(file, tmp_path)
    file.write_bytes(b"GGUF" + b"y" * 2000)
    assert watched.of("") is None
    while not (second := watched.of(stamp(file))):
        threading.Event().wait(0.001)
    assert second.sha256 == hashlib.sha256(file.read_bytes()).hexdigest() != first.sha256
    assert watched.of(first.file) is None


def test_files_that_are_gone_are_forgotten(file, tmp_path):
    identify(file, tmp_path)
    other = file.rename(tmp_path / "other.gguf")
    identify(other, tmp_path)
    assert list(json.loads((tmp_path / REMEMBERED).read_text())) == [str(other)]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"MODEL": 5}', '{"MODEL": {"file": "FILE", "x": 1}}'])
def test_what_is_remembered_wrongly_is_found_out_anew(file, tmp_path, content):
    content = content.replace("MODEL", str(file)).replace("FILE", stamp(file))
    (tmp_path / REMEMBERED).write_text(content)
    assert identify(file, tmp_path).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_know(file, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert identify(file, tmp_path / "file" / "cache").sha256
    assert "will be read again" in caplog.text


@pytest.mark.parametrize(
    ("template", "clock"),
    [
        (b"no date", []),
        (b"{{ strftime_now('%d %b %Y') }}{{strftime_now( \"%H:%M\" )}}", ["%H:%M", "%d %b %Y"]),
        (b"{{ strftime_now(form) }}", [identity.EXACT]),
    ],
)
def test_the_forms_of_a_date_in_the_chat_template_are_found(file, tmp_path, template, clock):
    file.write_bytes(b"GGUF" + template + b"x" * 1000)
    assert identify(file, tmp_path).clock == clock
