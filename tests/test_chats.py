"""The chats that are kept: the store, and its routes. No engine is asked anything here."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.app import create_app
from api.pool import Model, Pool
from api.source import Source
from server import chats_file
from settings import Settings
from tests.conftest import PATIENCE_S
from tests.test_api import ScriptedEngine, error_of
from web import chats as store
from web import database, search, trash
from web.chats import Chats
from web.database import AbsentError, ChatsError

ME = ""


@pytest.fixture
def http(chats):
    return client_of(chats)


def client_of(chats: Chats | None, **settings: Any) -> Any:
    app = create_app(Settings(**settings), Pool(Model("fake", Source(ScriptedEngine()))), kept=chats)  # type: ignore[arg-type]
    return app.test_client()


def talk(chats: Chats, *texts: str, title: str = "") -> dict[str, Any]:
    """A chat in which these are said in turn."""
    chat, parent = chats.create(ME, title), None
    for text in texts:
        parent = chats.say(ME, chat["id"], parent, text)["id"]
    return chats.read(ME, chat["id"])


def found(chats: Chats, text: str) -> list[str]:
    return [chat["snippet"] for chat in chats.find(ME, text)]


def test_a_chat_is_made_read_changed_and_listed(http):
    made = http.post("/api/chats", json={"title": "Birds", "system": "Be brief."})
    assert made.status_code == 201
    chat = made.json
    assert chat["id"].startswith("chat_")
    assert (chat["title"], chat["system"], chat["pinned"], chat["running"], chat["leaf"]) == (
        "Birds",
        "Be brief.",
        False,
        False,
        None,
    )
    changed = http.patch(f"/api/chats/{chat['id']}", json={"pinned": True, "title": "Linnets"}).json
    assert changed == chat | {"pinned": True, "title": "Linnets"}
    assert http.get(f"/api/chats/{chat['id']}").json == changed | {"messages": []}
    assert http.get("/api/chats").json["chats"] == [changed]


def test_pinned_chats_come_first_and_then_those_in_which_something_was_said_last(chats):
    first, second, third = (talk(chats, "x", title=title)["id"] for title in ("first", "second", "third"))
    chats.say(ME, first, None, "again")
    chats.change(ME, second, {"pinned": True})
    chats.change(ME, third, {"title": "a new name is nothing that was said"})
    assert [chat["id"] for chat in chats.find(ME)] == [second, first, third]


def test_what_is_said_makes_a_tree_and_the_last_of_it_is_shown(http):
    chat = http.post("/api/chats", json={}).json["id"]

    def say(parent, content, **more):
        response = http.post(f"/api/chats/{chat}/messages", json={"parent": parent, "content": content, **more})
        assert response.status_code == 201
        return response.json

    question = say(None, "one", files=[{"name": "a.txt", "text": "A"}])
    assert question["files"] == [{"name": "a.txt", "text": "A"}]
    assert (question["role"], question["state"], question["parent"]) == ("user", "done", None)
    branch, other = say(question["id"], "two"), say(question["id"], "three")
    told = http.get(f"/api/chats/{chat}").json
    assert told["messages"] == [question, branch, other]
    assert told["leaf"] == other["id"]
    assert http.patch(f"/api/chats/{chat}", json={"leaf": branch["id"]}).json["leaf"] == branch["id"]


def test_a_message_goes_with_all_that_follows_it_and_the_newest_branch_is_shown(http, chats):
    chat = talk(chats, "a", "b", "c")
    a, b, _ = (message["id"] for message in chat["messages"])
    other = chats.say(ME, chat["id"], a, "other")["id"]
    chats.change(ME, chat["id"], {"leaf": b})
    response = http.delete(f"/api/chats/{chat['id']}/messages/{b}")
    assert response.json == {"leaf": other}
    assert [message["id"] for message in chats.read(ME, chat["id"])["messages"]] == [a, other]
    assert http.delete(f"/api/chats/{chat['id']}/messages/{a}").json == {"leaf": None}
    assert chats.read(ME, chat["id"])["messages"] == []


def test_a_deleted_chat_can_be_restored_until_it_is_really_removed(http, chats, monkeypatch):
    chat = talk(chats, "secret")["id"]
    assert http.delete(f"/api/chats/{chat}").json["id"] == chat
    assert http.get("/api/chats").json["chats"] == http.get("/api/chats?q=secret").json["chats"] == []
    assert http.get(f"/api/chats/{chat}").status_code == 404
    assert http.post(f"/api/chats/{chat}/restore", json={}).status_code == 200
    assert found(chats, "secret") == ["secret"]
    monkeypatch.setattr(trash, "UNDO_S", 0.0)
    http.delete(f"/api/chats/{chat}")
    chats._trash.timer.join(PATIENCE_S)
    assert error_of(http.post(f"/api/chats/{chat}/restore", json={}))["code"] == "not_found"


def test_what_was_deleted_long_ago_is_not_in_the_file_any_more_after_the_next_start(tmp_path, monkeypatch):
    file = tmp_path / "chats.db"
    with closing(Chats(file)) as chats:
        chats.remove(ME, talk(chats, "xylophone " * 50)["id"])
    monkeypatch.setattr(trash, "UNDO_S", 0.0)
    Chats(file).close()
    assert b"xylophone" not in file.read_bytes()


def test_a_chat_deleted_just_now_can_be_restored_though_another_server_starts_and_is_gone_in_its_time(chats, monkeypatch):
    chat = talk(chats, "secret")["id"]
    chats.remove(ME, chat)
    with closing(Chats(chats._database.file)) as other:
        assert other._trash.timer and other._trash.timer.is_alive(), "else it would stay for ever"
    assert chats.restore(ME, chat)["id"] == chat
    chats.remove(ME, chat)
    monkeypatch.setattr(trash, "UNDO_S", 0.0)
    with closing(Chats(chats._database.file)), pytest.raises(AbsentError):
        chats.restore(ME, chat)


def test_the_words_of_a_removed_message_and_of_an_old_title_are_not_in_the_file_once_it_is_closed(tmp_path):
    file = tmp_path / "chats.db"
    with closing(Chats(file)) as chats:
        chat = talk(chats, "hello", "xylophone", title="saxophone")
        chats.remove_message(ME, chat["id"], chat["leaf"])
        chats.change(ME, chat["id"], {"title": "music"})
    content = file.read_bytes()
    assert b"hello" in content
    assert b"music" in content
    assert b"xylophone" not in content
    assert b"saxophone" not in content


def test_the_words_of_a_removed_message_go_in_their_time_from_a_file_that_stays_open(chats, monkeypatch):
    chat = talk(chats, "xylophone")
    monkeypatch.setattr(trash, "UNDO_S", 0.0)
    chats.remove_message(ME, chat["id"], chat["leaf"])
    chats._trash.timer.join(PATIENCE_S)
    with chats._database.reading() as db:
        assert b"xylophone" not in b"".join(row["block"] for row in db.execute("SELECT block FROM message_words_data"))


def test_a_chat_in_which_nothing_was_ever_said_does_not_stay_for_ever(tmp_path, monkeypatch):
    file = tmp_path / "chats.db"
    with closing(Chats(file)) as chats:
        chats.create(ME)
        wanted = {chats.create(ME, "named")["id"], chats.create(ME, "", "Be brief.")["id"], talk(chats, "said")["id"]}
    with closing(Chats(file)) as chats:
        assert len(chats.find(ME)) == 4
    monkeypatch.setattr(trash, "EMPTY_S", 0.0)
    with closing(Chats(file)) as chats:
        assert {chat["id"] for chat in chats.find(ME)} == wanted


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"title": "x"}),
        ("DELETE", "", None),
        ("POST", "/restore", {}),
        ("POST", "/messages", {"content": "x"}),
        ("DELETE", "/messages/msg_0", None),
        ("POST", "/answers", {"parent": "x", "request": {"messages": [{"role": "user", "content": "x"}]}}),
    ],
)
def test_nobody_sees_or_changes_a_chat_of_another_key(chats, method, path, body):
    http = client_of(chats, api_key="mine,theirs")
    mine, theirs = ({"Authorization": f"Bearer {key}"} for key in ("mine", "theirs"))
    chat = http.post("/api/chats", json={}, headers=mine).json["id"]
    response = http.open(f"/api/chats/{chat}{path}", method=method, json=body, headers=theirs)
    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")
    assert http.get("/api/chats", headers=theirs).json["chats"] == []
    assert [chat["id"] for chat in http.get("/api/chats", headers=mine).json["chats"]] == [chat]


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/api/chats", {"title": "x" * 201}, "title"),
        ("POST", "/api/chats", {"title": None}, "title"),
        ("POST", "/api/chats", {"private": True}, "private"),
        ("PATCH", "/api/chats/ID", {"pinned": 1}, "pinned"),
        ("POST", "/api/chats/ID/messages", {}, "content"),
        ("POST", "/api/chats/ID/messages", {"content": "x", "files": [{"name": "x"}]}, "files[0].text"),
        ("POST", "/api/chats/ID/messages", {"content": "x", "role": "assistant"}, "role"),
        ("POST", "/api/chats/ID/answers", {"request": {}}, "parent"),
        ("GET", "/api/chats?q=" + "x" * 1001, None, "q"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_by_the_fields_name(http, chats, method, path, body, param):
    path = path.replace("ID", chats.create(ME)["id"])
    response = http.open(path, method=method, json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


def test_a_parent_or_leaf_of_another_chat_is_not_there(http, chats):
    chat, other = chats.create(ME)["id"], talk(chats, "x")["leaf"]
    assert http.post(f"/api/chats/{chat}/messages", json={"parent": other, "content": "x"}).status_code == 404
    assert http.patch(f"/api/chats/{chat}", json={"leaf": other}).status_code == 404
    assert http.delete(f"/api/chats/{chat}/messages/{other}").status_code == 404
    assert chats.read(ME, chat)["messages"] == []


def test_a_chat_does_not_grow_for_ever(http, chats, monkeypatch):
    monkeypatch.setattr(store, "MOST_MESSAGES", 2)
    chat = talk(chats, "a", "b")["id"]
    response = http.post(f"/api/chats/{chat}/messages", json={"content": "c"})
    assert (response.status_code, error_of(response)["code"]) == (409, "chat_too_long")


def test_a_server_that_keeps_no_chats_says_so_everywhere():
    http = client_of(None)
    for method, path in (
        ("GET", "/api/chats"),
        ("POST", "/api/chats"),
        ("DELETE", "/api/chats/x"),
        ("GET", "/api/answers/x"),
    ):
        response = http.open(path, method=method, json={})
        assert (response.status_code, error_of(response)["code"]) == (404, "chats_not_kept")


def test_words_are_found_in_contents_and_titles_without_their_accents_and_when_just_begun(chats):
    talk(chats, "How do I sort a naïve list in Python?", title="Sorting")
    talk(chats, "nothing of the kind")
    assert found(chats, "NAIVE pyth") == ["How do I sort a naïve list in Python?"]
    assert found(chats, "sorti") == ["Sorting"]
    assert found(chats, "python ruby") == []


def test_text_without_spaces_and_signs_are_found_by_their_letters(chats):
    talk(chats, "今天天气很好")
    talk(chats, "100 % of a_b => c")
    assert found(chats, "天气") == found(chats, "气") == ["今天天气很好"]
    assert found(chats, "=>") == found(chats, "a_b") == ["100 % of a_b => c"]
    assert found(chats, "_b =>") == ["100 % of a_b => c"]
    assert found(chats, "1%0") == []


def test_a_snippet_is_plain_text_around_what_was_found(chats):
    talk(chats, "<b>word</b> " * 50 + "needle\n\nand " + "more " * 50)
    (snippet,) = found(chats, "needle")
    assert "needle and more" in snippet
    assert len(snippet) < 200
    talk(chats, "天" * 500 + "气" + "天" * 500)
    assert found(chats, "气") == ["…" + "天" * search.AROUND + "气" + "天" * search.AROUND + "…"]


def test_a_changed_title_and_a_removed_message_are_found_no_more(chats):
    chat = talk(chats, "elephant", title="zebra")
    chats.change(ME, chat["id"], {"title": "lion"})
    chats.remove_message(ME, chat["id"], chat["leaf"])
    assert found(chats, "zebra") == found(chats, "elephant") == []
    assert found(chats, "lion") == ["lion"]


def test_an_answer_that_grows_is_found_as_it_ended_and_as_it_grows_again(chats):
    chat = talk(chats, "question")
    answer = chats.begin(ME, chat["id"], chat["leaf"], {})
    chats.keep(answer | {"content": "apple pi"})
    chats.keep(answer | {"content": "apple pie", "state": "done"})
    assert found(chats, "pie") == ["apple pie"]
    chats.resume(ME, chat["id"], answer["id"])
    chats.keep(answer | {"content": "apple pie with cream", "state": "done"})
    assert found(chats, "cream") == ["apple pie with cream"]


def test_an_answer_that_goes_on_hides_nothing_that_was_said_after_it(chats):
    chat = talk(chats, "question")
    answer = chats.begin(ME, chat["id"], chat["leaf"], {})
    chats.keep(answer | {"content": "apple", "state": "done"})
    later = chats.say(ME, chat["id"], answer["id"], "and then?")
    chats.resume(ME, chat["id"], answer["id"])
    assert chats.read(ME, chat["id"])["leaf"] == later["id"]


def test_a_stopped_answer_that_ends_after_all_is_found_by_all_its_words(chats):
    chat = talk(chats, "question")
    answer = chats.begin(ME, chat["id"], chat["leaf"], {})
    chats.keep(answer | {"content": "apple pie"})
    Chats(chats._database.file).close()  # takes the answer for one that a crash has cut
    chats.keep(answer | {"content": "apple pie with cream", "state": "done"})
    assert found(chats, "apple") == found(chats, "cream") == ["apple pie with cream"]
    chats.remove_message(ME, chat["id"], answer["id"])
    assert found(chats, "apple") == []


@given(st.text(max_size=30) | st.text(alphabet='"*^:()-+{}\\%_NEAR OR\0', max_size=30))
def test_whatever_is_searched_for_is_no_syntax(memory_chats, text):
    memory_chats.find(ME, text)


@pytest.fixture(scope="module")
def memory_chats(tmp_path_factory):
    with closing(Chats(tmp_path_factory.mktemp("chats") / "chats.db")) as chats:
        talk(chats, 'NEAR "quotes" and * stars', title="OR")
        yield chats


@hypothesis.settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=25))
def test_the_tree_is_what_was_said_without_what_was_taken_back(memory_chats, acts):
    chat = memory_chats.create(ME)["id"]
    parents: dict[str, str | None] = {}
    for takes_back, n in acts:
        chosen = [*parents, None][n % (len(parents) + 1)]
        if takes_back and chosen:
            memory_chats.remove_message(ME, chat, chosen)
            gone = {chosen}
            for id, parent in parents.items():  # parents come first
                gone |= {id} if parent in gone else set()
            parents = {id: parent for id, parent in parents.items() if id not in gone}
        else:
            parents[memory_chats.say(ME, chat, chosen, "x")["id"]] = chosen
    told = memory_chats.read(ME, chat)
    assert {message["id"]: message["parent"] for message in told["messages"]} == parents
    assert [message["id"] for message in told["messages"]] == list(parents)
    assert told["leaf"] in parents or not parents
    memory_chats.remove(ME, chat)


def test_a_long_chat_goes_as_a_whole(chats):
    messages = [{"id": str(i), "parent": str(i - 1), "role": "user", "content": "x"} for i in range(3000)]
    chat = chats.add(ME, {"messages": messages})
    first = chats.read(ME, chat["id"])["messages"][0]["id"]
    leaf, removed = chats.remove_message(ME, chat["id"], first)
    assert (leaf, len(removed)) == (None, 3000)


def test_a_whole_chat_is_added_under_new_names_and_all_are_read_again(chats):
    messages = [
        {"id": "b", "parent": "a", "role": "assistant", "content": "B", "reasoning": "hm", "facts": {"model": "m"}},
        {"id": "a", "parent": None, "role": "user", "content": "A", "files": [{"name": "f", "text": "t"}], "created": 5.0},
    ]
    added = chats.add(ME, {"title": "T", "pinned": True, "created": 1.0, "changed": 2.0, "leaf": "a", "messages": messages})
    (chat,) = chats.all(ME)
    a, b = chat["messages"]
    assert (chat["title"], chat["pinned"], chat["created"], chat["changed"], chat["leaf"]) == ("T", True, 1.0, 2.0, a["id"])
    assert (a["content"], a["files"], a["created"]) == ("A", [{"name": "f", "text": "t"}], 5.0)
    assert (b["parent"], b["reasoning"], b["facts"], b["state"]) == (a["id"], "hm", {"model": "m"}, "done")
    assert chat["id"] == added["id"]
    assert {a["id"], b["id"]}.isdisjoint({"a", "b"})
    for circle in ([("a", "b"), ("b", "a")], [("a", None), ("a", None)]):
        with pytest.raises(ValueError, match="tree"):
            chats.add(ME, {"messages": [{"id": id, "parent": up, "role": "user", "content": ""} for id, up in circle]})


def test_a_title_that_the_model_makes_does_not_replace_one_of_the_users(chats):
    chat = chats.create(ME)["id"]
    chats.entitle(ME, chat, "made")
    chats.entitle(ME, chat, "made again")
    assert chats.find_one(ME, chat)["title"] == "made"
    assert found(chats, "made") == ["made"]


def test_the_version_grows_with_every_change_and_with_those_of_another_server(chats):
    seen = [chats.version]

    def grows() -> bool:
        seen.append(chats.version)
        return bool(seen[-1] > seen[-2])

    chat = talk(chats, "x")
    assert grows()
    answer = chats.begin(ME, chat["id"], chat["leaf"], {})
    assert grows()
    chats.keep(answer | {"content": "more"})
    assert not grows()
    chats.keep(answer | {"state": "done"})
    assert grows()
    with closing(Chats(chats._database.file)) as other:
        other.change(ME, chat["id"], {"title": "theirs"})
    assert grows()
    assert chats.read(ME, chat["id"])["title"] == "theirs"
    assert not grows()


def test_two_servers_on_one_file_lose_nothing(chats):
    chat = chats.create(ME)["id"]
    with closing(Chats(chats._database.file)) as other:
        threads = [
            threading.Thread(target=lambda store=store: [store.say(ME, chat, None, "x") for _ in range(20)])
            for store in (chats, other, chats, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(chats.read(ME, chat)["messages"]) == 80


def test_an_answer_that_a_crash_has_cut_is_stopped_when_the_file_is_opened_next(chats):
    chat = talk(chats, "x")
    answer = chats.begin(ME, chat["id"], chat["leaf"], {"model": "m"})
    chats.keep(answer | {"content": "half"})
    assert chats.find(ME)[0]["running"]
    with closing(Chats(chats._database.file)) as later:
        message = later.read(ME, chat["id"])["messages"][1]
        assert (message["state"], message["content"]) == ("stopped", "half")
        assert not later.find(ME)[0]["running"]
        assert later.find(ME, "half")


def test_only_its_user_may_read_the_file(chats):
    chats.create(ME)
    folder = chats._database.file.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "data/linnet/chats.db"),
        ({"chats": Path("my.db")}, "my.db"),
        ({"chats": Path("data")}, "data/chats.db"),
        ({"chats": Path("my.db"), "no_cache": True}, "my.db"),
        ({"no_cache": True}, None),
        ({"chats": Path("none")}, None),
    ],
)
def test_the_file_lies_where_it_is_wanted_or_else_with_the_users_data(tmp_path, monkeypatch, options, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    file = chats_file(Settings(**options))
    assert (file and file.resolve()) == (place and tmp_path / place)
    monkeypatch.setenv("XDG_DATA_HOME", "no/absolute/path")
    assert chats_file(Settings()) == Path.home() / ".local/share/linnet/chats.db"


def test_no_file_is_made_before_there_is_something_to_keep(tmp_path):
    Chats(tmp_path / "linnet/chats.db").close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no database at all " * 1000, None])
def test_a_broken_file_is_moved_aside_and_a_new_one_begun(tmp_path, caplog, content):
    file = tmp_path / "chats.db"
    with closing(Chats(file)) as chats:
        talk(chats, *["text " * 400] * 20)
    if content is None:
        content = file.read_bytes()
        content = content[:5000] + b"\x55" * (len(content) - 5000)
    file.write_bytes(content)
    with closing(Chats(file)) as chats:
        assert chats.find(ME) == []
        assert talk(chats, "new")
    (aside,) = tmp_path.glob("*.broken-*")
    assert aside.read_bytes() == content
    assert aside.name in caplog.text


def test_a_file_that_breaks_while_it_is_open_is_moved_aside_too(tmp_path):
    file = tmp_path / "chats.db"
    with closing(Chats(file)) as chats:
        talk(chats, *["text " * 400] * 20)
        with closing(sqlite3.connect(file)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with file.open("r+b") as broken:
            broken.write(b"\x55" * file.stat().st_size)
        for _ in range(2):
            try:
                chats.find(ME)
            except ChatsError:
                continue
        assert talk(chats, "new")
    assert list(tmp_path.glob("*.broken-*"))


def test_a_file_that_was_taken_away_is_begun_anew(chats):
    talk(chats, "x")
    for file in chats._database.file.parent.iterdir():
        file.unlink()
    assert talk(chats, "y")
    assert chats._database.file.exists()


@pytest.mark.parametrize(
    ("statement", "words"), [("PRAGMA user_version = 99", "newer version"), ("CREATE TABLE theirs (x)", "something else")]
)
def test_a_file_of_a_newer_version_or_of_somebody_else_stays_as_it_is(tmp_path, statement, words):
    file = tmp_path / "chats.db"
    with closing(sqlite3.connect(file)) as other:
        other.execute(statement)
    before = file.read_bytes()
    with closing(Chats(file)) as chats:
        response = client_of(chats).get("/api/chats")
    assert (response.status_code, error_of(response)["code"]) == (503, "chats_unavailable")
    assert words in error_of(response)["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["chats.db"]
    if "newer" in words:
        assert file.read_bytes() == before


def test_trouble_with_the_file_is_one_sentence_and_passes(http, chats, monkeypatch):
    chat = talk(chats, "x")["id"]
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    chats.close()
    with closing(sqlite3.connect(chats._database.file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        response = http.post(f"/api/chats/{chat}/messages", json={"content": "y"})
    assert (response.status_code, error_of(response)["code"]) == (503, "chats_unavailable")
    assert "locked" in error_of(response)["message"]
    assert "Retry-After" in response.headers
    assert http.post(f"/api/chats/{chat}/messages", json={"content": "y"}).status_code == 201


def test_a_folder_that_cannot_be_made_is_trouble_too_and_no_reason_not_to_start(tmp_path):
    (tmp_path / "file").write_text("")
    with closing(Chats(tmp_path / "file/chats.db")) as chats:
        with pytest.raises(ChatsError, match="at present"):
            chats.create(ME)
        assert error_of(client_of(chats).get("/api/chats"))["code"] == "chats_unavailable"


def test_a_full_disk_keeps_what_was_there(chats):
    chat = talk(chats, "x")["id"]
    with chats._database.reading() as db:
        n = db.execute("PRAGMA page_count").fetchone()[0]
    chats._database._connection.execute(f"PRAGMA max_page_count = {n}")
    with pytest.raises(ChatsError, match="full"):
        for _ in range(10):
            chats.say(ME, chat, None, "long " * 10_000)
    assert chats.read(ME, chat)["messages"][0]["content"] == "x"


def test_what_is_not_there_is_absent(chats):
    with pytest.raises(AbsentError):
        chats.read(ME, "chat_0")
