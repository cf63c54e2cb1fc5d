"""cache: two tiers, and everything that can be wrong with a disk."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import diskcache
import pytest

from cache import disk, keys
from cache.disk import ASIDE, SafeDisk, Shelf
from cache.store import NotClearedError, Store
from tests.conftest import PATIENCE_S, ROOT

MB = 2**20


@pytest.fixture
def store_in() -> Iterator[Callable[..., Store]]:
    stores = []

    def store_in(folder: Path, ram_bytes: int = MB, disk_bytes: int = 100 * MB) -> Store:
        stores.append(Store(folder, ram_bytes, disk_bytes))
        return stores[-1]

    yield store_in
    for store in stores:
        store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "answers"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed disk is tried again at once."""
    monkeypatch.setattr(disk, "RETRY_S", 0.0)


def read(store: Store, key: str) -> bytes | None:
    entry = store.get(key)
    return entry.value if entry else None


def write(folder: Path, *statements: str, arguments: tuple[object, ...] = ()) -> None:
    """What a stranger does to the database."""
    with sqlite3.connect(folder / "cache.db") as database:
        for statement in statements:
            database.execute(statement, arguments)
    database.close()


def test_what_was_put_is_found_in_memory_and_after_a_restart(store_in, folder):
    store = store_in(folder)
    store.put("a", b"x" * 1000)
    assert read(store, "a") == b"x" * 1000
    made = store.get("a").made
    store.close()
    again = store_in(folder)
    assert again.get_from_memory("a") is None
    assert again.get("a") == (b"x" * 1000, made)
    assert again.get_from_memory("a")
    assert read(again, "b") is None


def test_memory_forgets_the_least_recently_used_and_the_disk_still_has_it(store_in, folder):
    store = store_in(folder, ram_bytes=2500)
    for name in "abc":
        store.put(name, name.encode() * 1000)
        store.get("a")
    assert store.get_from_memory("a")
    assert not store.get_from_memory("b")
    assert store.flush(PATIENCE_S)
    assert read(store, "b") == b"b" * 1000


def test_the_disk_keeps_to_its_limit_forgets_the_least_recently_used_and_counts_them(store_in, folder):
    store = store_in(folder, ram_bytes=0, disk_bytes=MB)
    for i in range(150):
        store.put(str(i), b"x" * 10_000)
        assert store.flush(PATIENCE_S)
        assert read(store, "0"), "what is always used was forgotten"
    facts = store.facts()
    assert 0 < facts["bytes"] <= 1.2 * MB
    assert facts["evictions"] + facts["entries"] == 150
    assert read(store, "1") is None
    assert read(store, "149")


def test_without_a_disk_the_memory_alone_works_and_counts_what_it_forgets(store_in, folder):
    store = store_in(folder, ram_bytes=2500, disk_bytes=0)
    for name in "abc":
        store.put(name, b"x" * 1000)
    assert [bool(store.get(name)) for name in "abc"] == [False, True, True]
    assert store.facts() | {"entries": 2, "bytes": 2000, "evictions": 1} == store.facts()
    assert not folder.exists()


def test_totals_outlive_a_restart(store_in, folder):
    store = store_in(folder)
    store.count(hits=2, saved_s=1.5)
    store.close()
    facts = store_in(folder).facts()
    assert (facts["hits"], facts["saved_s"]) == (2, 1.5)


def test_clearing_reaches_memory_disk_and_other_processes(store_in, folder, monkeypatch):
    monkeypatch.setattr("cache.store.LOOK_S", 0.0)
    one, other = store_in(folder), store_in(folder)
    one.put("a", b"x")
    assert one.flush(PATIENCE_S)
    assert read(other, "a") == b"x"
    assert one.clear() == 1
    assert read(one, "a") is read(other, "a") is None
    one.put("a", b"y")
    assert one.flush(PATIENCE_S)
    assert read(other, "a") == b"y"


def test_only_its_owner_may_look_into_the_folder(store_in, folder):
    store = store_in(folder)
    assert store.flush(PATIENCE_S)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_into_is_not_used(store_in, folder, caplog):
    folder.mkdir()
    folder.chmod(0o777)
    store = store_in(folder)
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    assert read(store, "a") == b"x"
    assert list(folder.iterdir()) == []
    assert "others may write into it" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE Cache SET mode = 4, value = ?",  # a pickle
        "UPDATE Cache SET raw = 0, key = ?",  # a pickle as key
        "UPDATE Cache SET mode = 2, filename = '../secret', value = NULL WHERE ? != ''",
        "UPDATE Cache SET filename = '../secret' WHERE ? != ''",
        "UPDATE Cache SET mode = 3, filename = '../secret', value = NULL WHERE ? != ''",
        "UPDATE Cache SET value = substr(value, 1, length(value) - 1) WHERE ? != ''",
        "UPDATE Cache SET value = zeroblob(50) WHERE ? != ''",
        "UPDATE Cache SET value = 'text' WHERE ? != ''",
        "UPDATE Cache SET value = 7 WHERE ? != ''",
        "UPDATE Cache SET value = NULL WHERE ? != ''",
    ],
)
def test_a_row_of_a_stranger_is_a_miss_runs_nothing_and_touches_no_file(store_in, folder, tmp_path, damage):
    store = store_in(folder)
    store.put("a", b"x" * 100)
    store.close()
    secret = tmp_path / "secret"
    secret.write_text("secret")

    class Bomb:
        def __reduce__(self):
            return os.unlink, (str(secret),)

    write(folder, damage, arguments=(pickle.dumps(Bomb()),))
    again = store_in(folder)
    assert read(again, "a") is None
    again.put("a", b"y")
    assert again.flush(PATIENCE_S)
    assert read(again, "a") == b"y"
    again.clear()
    assert secret.read_text() == "secret"


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"half", b"zeros"])
def test_a_broken_database_is_set_aside_and_a_new_one_begun(store_in, folder, content, impatient):
    store = store_in(folder)
    for i in range(50):
        store.put(str(i), b"x" * 1000)
    store.close()
    database = folder / "cache.db"
    whole = database.read_bytes()
    content = {b"half": whole[: len(whole) // 2], b"zeros": whole[:4096] + bytes(len(whole) - 4096)}.get(content, content)
    database.write_bytes(content)
    again = store_in(folder)
    assert {read(again, str(i)) for i in range(50)} <= {None, b"x" * 1000}
    again.put("new", b"y")
    assert again.flush(PATIENCE_S)
    again.put("newer", b"y")
    assert again.flush(PATIENCE_S)
    again.close()
    assert read(store_in(folder), "newer") == b"y"
    assert not list(folder.glob("*.val"))
    assert len(list(folder.parent.glob(f"*{ASIDE}"))) <= 1


@pytest.fixture
def lock(folder: Path) -> Iterator[Callable[[], Callable[[], None]]]:
    """Another process takes the database for itself; calling what the first call returns lets go of it."""
    holders = []

    def lock() -> Callable[[], None]:
        holders.append(sqlite3.connect(folder / "cache.db", isolation_level=None))
        holders[-1].execute("BEGIN EXCLUSIVE")
        return holders[-1].close

    yield lock
    for holder in holders:
        holder.close()


def test_while_the_database_is_locked_reads_are_misses_and_writes_wait(store_in, folder, lock, caplog):
    store = store_in(folder, ram_bytes=0)
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    unlock = lock()
    store.put("b", b"y")
    assert read(store, "a") is None
    unlock()
    assert store.flush(PATIENCE_S)
    assert (read(store, "a"), read(store, "b")) == (b"x", b"y")
    assert "not kept" not in caplog.text


def test_a_database_locked_for_long_is_given_up_and_heals(store_in, folder, lock, impatient, monkeypatch, caplog):
    monkeypatch.setattr(disk, "WRITE_S", 0.0)
    store = store_in(folder, ram_bytes=0)
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    unlock = lock()
    for _ in range(3):
        store.put("b", b"y")
        assert store.flush(PATIENCE_S)
        assert read(store, "a") is None
    unlock()
    store.put("c", b"z")
    assert store.flush(PATIENCE_S)
    assert (read(store, "a"), read(store, "c")) == (b"x", b"z")
    assert caplog.text.count("not kept") == 1, "one line a minute is enough"


def test_what_cannot_be_cleared_yet_is_said_so_never_given_again_and_cleared_later(
    store_in, folder, lock, impatient, monkeypatch
):
    monkeypatch.setattr(disk, "WRITE_S", 0.0)
    store = store_in(folder)
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    unlock = lock()
    with pytest.raises(NotClearedError):
        store.clear()
    unlock()
    assert read(store, "a") is None
    store.put("b", b"y")
    assert store.flush(PATIENCE_S)
    store.close()
    again = store_in(folder)
    assert (read(again, "a"), read(again, "b")) == (None, b"y")


def test_an_owner_can_clear_what_is_theirs_alone(store_in, folder):
    store = store_in(folder)
    for key in ("me:1", "me:2", "you:1", "1"):
        store.put(key, b"x")
    assert store.flush(PATIENCE_S)
    assert store.clear("me") == 2
    for seen in (store, store_in(folder)):
        assert [key for key in ("me:1", "me:2", "you:1", "1") if seen.get(key)] == ["you:1", "1"]
    assert store.clear() == 2


def test_what_is_read_from_disk_while_it_is_cleared_is_not_remembered(store_in, folder, monkeypatch):
    store = store_in(folder, ram_bytes=MB)
    store.put("a", b"x")
    store.close()
    again = store_in(folder)
    assert again.flush(PATIENCE_S)
    get = Shelf.get

    def clear_after_reading(shelf: Shelf, key: str) -> bytes | None:
        value = get(shelf, key)
        monkeypatch.undo()
        again.clear()
        return value

    monkeypatch.setattr(Shelf, "get", clear_after_reading)
    assert read(again, "a") == b"x"
    assert read(again, "a") is None


@pytest.mark.parametrize("content", [b"short", struct.pack("<d", math.inf) + b"x", struct.pack("<d", math.nan) + b"x"])
def test_a_value_without_a_time_is_a_miss(store_in, folder, content):
    store = store_in(folder)
    assert store.flush(PATIENCE_S)
    store._shelf.put("a", content)
    assert read(store, "a") is None


def test_a_job_that_fails_does_not_end_the_writer(store_in, folder, caplog):
    store = store_in(folder)
    store._later(lambda: 1 / 0)
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    store.close()
    assert read(store_in(folder), "a") == b"x"
    assert "ZeroDivisionError" in caplog.text


def test_totals_are_saved_while_there_is_work_too(store_in, folder, monkeypatch):
    store = store_in(folder)
    store.count(hits=1)
    monkeypatch.setattr("cache.store.SAVE_S", 0.0)
    store._save_at = 0.0
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    assert store.flush(PATIENCE_S)
    assert json.loads(folder.with_suffix(".json").read_text())["hits"] == 1


def test_a_database_without_its_tables_is_set_aside(store_in, folder, impatient):
    store = store_in(folder)
    store.put("a", b"x")
    store.close()
    write(folder, "DROP TABLE Cache", "CREATE TABLE Cache (key, raw)")
    again = store_in(folder, ram_bytes=0)
    for name in "bc":
        again.put(name, b"y")
        assert again.flush(PATIENCE_S)
    assert read(again, "c") == b"y"
    assert len(list(folder.parent.glob(f"*{ASIDE}"))) == 1


def test_a_database_is_looked_through_once_and_only_where_there_is_room_for_that(store_in, folder, impatient, monkeypatch):
    checks: list[object] = []
    monkeypatch.setattr(disk, "_look_through", checks.append)
    store = store_in(folder, ram_bytes=0)
    assert store.flush(PATIENCE_S)
    for _ in range(3):
        store._shelf._fail(sqlite3.OperationalError("database or disk is full"))
        store.put("a", b"x")
        assert store.flush(PATIENCE_S)
    assert read(store, "a") == b"x"
    assert len(checks) == 1
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=MB))
    assert store_in(folder).flush(PATIENCE_S)
    Store(folder, 0, MB, serving=False).close()
    assert len(checks) == 1


def test_a_deleted_folder_is_made_again(store_in, folder, impatient):
    store = store_in(folder, ram_bytes=0)
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    shutil.rmtree(folder)
    store.put("b", b"y")
    assert store.flush(PATIENCE_S)
    assert read(store, "b") == b"y"
    assert read(store, "a") is None


def test_a_full_disk_is_a_miss_leaves_no_orphans_and_heals(store_in, folder, impatient, caplog):
    """The system refuses to let files grow; SQLite sees that as a full disk."""
    store = store_in(folder, ram_bytes=0)
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        for i in range(30):
            store.put(f"big {i}", b"x" * 100_000)
        assert store.flush(PATIENCE_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caplog.text.count("not kept") == 1
    assert {path.name for path in folder.iterdir()} <= {"cache.db", "cache.db-wal", "cache.db-shm"}
    store.put("b", b"y")
    assert store.flush(PATIENCE_S)
    assert read(store, "b") == b"y"
    assert read(store, "a") == b"x"


def test_a_nearly_full_disk_is_not_filled_and_still_read(store_in, folder, monkeypatch, caplog):
    store = store_in(folder, ram_bytes=0)
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=MB))
    store.put("b", b"y")
    assert store.flush(PATIENCE_S)
    assert (read(store, "a"), read(store, "b")) == (b"x", None)
    assert "nearly full" in caplog.text


def test_a_disk_that_cannot_be_written_at_all_stops_nothing(store_in, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = store_in(tmp_path / "file" / "answers")
    store.put("a", b"x")
    assert store.flush(PATIENCE_S)
    assert read(store, "a") == b"x"
    with pytest.raises(NotClearedError):
        store.clear()
    assert read(store, "a") is None
    assert caplog.text.count("not kept") == 1


WRITER = """
import itertools, sys
from pathlib import Path
from cache.store import Store
store = Store(Path(sys.argv[1]), 0, 2**22)
for i in itertools.count(int(sys.argv[2])):
    store.put(str(i % 300), str(i % 300).encode() * 1000)
    if i % 20 == 0:
        store.flush(60)
        print(i, flush=True)
"""


def test_a_killed_writer_leaves_right_answers_and_a_database_that_opens(store_in, folder):
    """As often as fits into a test; `python -m bench.answers` does it thirty times with a whole server."""
    for turn in range(5):
        command = [sys.executable, "-c", WRITER, str(folder), str(turn * 37)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            for _ in range(3):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        shelf = Shelf(folder, 2**22)
        shelf.open()
        found = {str(i): shelf.get(str(i)) for i in range(300)}
        shelf.close()
        assert all(value is None or value[8:] == name.encode() * 1000 for name, value in found.items())
        assert sum(value is not None for value in found.values()) >= 20
    with diskcache.Cache(str(folder), disk=SafeDisk) as cache:
        assert cache.check() == []


def test_equal_facts_have_one_key_whatever_their_order():
    assert keys.key({"a": 1, "b": [1, 2]}) == keys.key({"b": [1, 2], "a": 1})
    assert (
        len({keys.key(facts) for facts in ({"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": [1]}, {"a": None}, {"a": True}, {})}) == 7
    )


def test_from_a_shell_the_answers_are_counted_and_cleared(store_in, folder):
    store = store_in(folder)
    store.put("a", b"x")
    store.count(hits=3)
    store.close()

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cache", *arguments, "--cache-dir", str(folder.parent)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert "1 answer" in shell().stdout
    assert "3 hits" in shell().stdout
    assert shell("clear").stdout == "1 answer removed.\n"
    assert "0 answers" in shell().stdout
    wrong = shell("explode")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_the_log_of_the_cache_says_nothing_of_what_is_in_it(store_in, folder, caplog):
    caplog.set_level(logging.DEBUG)
    store = store_in(folder)
    store.put("a", b"canary")
    store.close()
    assert "canary" not in caplog.text
