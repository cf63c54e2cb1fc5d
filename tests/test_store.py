"""models.store: which file is meant, and whether it can be a model."""

import os

import pytest

from models import store


@pytest.fixture
def gguf(tmp_path):
    path = tmp_path / "some.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    return path


def test_without_a_name_it_is_the_last_used_model_and_else_the_demo(gguf, tmp_path):
    cache = tmp_path / "cache"
    assert store.find(None, cache) == store.DEMO
    store.remember(gguf, cache)
    assert store.find(None, cache) == gguf
    assert cache.stat().st_mode & 0o777 == 0o700
    gguf.unlink()
    assert store.find(None, cache) == store.DEMO
    store.remember(store.DEMO, cache)
    assert (cache / store.LAST).read_text() == "demo"  # by name: another copy of Linnet has a demo of its own


def test_a_damaged_memory_of_the_last_model_does_no_harm(tmp_path):
    (tmp_path / store.LAST).write_bytes(b"\xff\xfe\x00")
    assert store.find(None, tmp_path) == store.DEMO


def test_models_are_found_by_name(gguf, tmp_path):
    assert store.installed(tmp_path) == {"some": gguf, "demo": store.DEMO}
    assert store.find("demo") == store.DEMO


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!doctype html><html>", "is a web page"),
        (b"\n  <html>", "is a web page"),
        (b"PK\x03\x04", "is not a GGUF file"),
        (b"GG", "is not a GGUF file"),
    ],
)
def test_a_file_that_cannot_be_a_model_is_refused_with_the_reason(tmp_path, content, words):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(store.StoreError, match=words):
        store.find(str(path))


def test_what_is_no_file_is_refused_without_reading_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    for path, words in [(tmp_path, "directory"), (tmp_path / "none.gguf", "no model"), (tmp_path / "pipe.gguf", "regular")]:
        with pytest.raises(store.StoreError, match=words):
            store.find(str(path))
