"""api.transfers: chats from and to files, over HTTP."""

from __future__ import annotations

import json
from contextlib import closing
from urllib.parse import quote

import pytest

from tests.test_api import error_of
from tests.test_chats import client_of
from tests.test_transfer import CHATGPT, LLAMA
from web.chats import Chats


@pytest.fixture
def http(chats):
    return client_of(chats)


def taken(http, *items):
    response = http.post("/api/chats/import", json={"items": items})
    assert response.status_code == 201
    return response.json


def test_chats_of_others_come_in_and_what_is_none_is_told_by_its_place(http):
    told = taken(http, LLAMA, {"no": "chat"}, CHATGPT)
    assert [chat["title"] for chat in told["chats"]] == ["Birds", "Birds of Europe"]
    (failed,) = told["failed"]
    assert failed["index"] == 1
    assert failed["message"].endswith(".")
    listed = http.get("/api/chats").json["chats"]
    assert {(chat["title"], chat["first"]) for chat in listed} == {
        ("Birds", "What is a linnet?"),
        ("Birds of Europe", "What is \n\na linnet?"),
    }


def test_all_chats_go_out_in_one_file_and_come_back_as_they_were(http, tmp_path):
    taken(http, LLAMA, CHATGPT)
    response = http.get("/api/chats/export")
    assert response.headers["Content-Disposition"] == "attachment; filename*=UTF-8''linnet-chats.json"
    whole = json.loads(response.data)
    assert whole["format"] == "linnet-chats"
    with closing(Chats(tmp_path / "other.db")) as chats:
        other = client_of(chats)
        assert taken(other, *whole["chats"])["failed"] == []
        again = json.loads(other.get("/api/chats/export").data)["chats"]
    assert [shape(chat) for chat in again] == [shape(chat) for chat in whole["chats"]]


def shape(chat):
    """Without its ids, which are new ones."""
    places = {message["id"]: n for n, message in enumerate(chat["messages"])}
    messages = [m | {"id": places[m["id"]], "parent": places.get(m["parent"])} for m in chat["messages"]]
    return chat | {"leaf": places[chat["leaf"]], "messages": messages}


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Birds", "Birds.md"),
        ('../../etc/pass"wd\n', "etc pass wd.md"),
        ("", "What is a linnet.md"),
        ("x" * 100, "x" * 60 + ".md"),
        ("Grünfinken 鳥", "Grünfinken 鳥.md"),
    ],
)
def test_a_chat_is_a_file_whose_name_is_its_title_and_no_path(http, title, name):
    (chat,) = taken(http, LLAMA)["chats"]
    http.patch(f"/api/chats/{chat['id']}", json={"title": title})
    response = http.get(f"/api/chats/{chat['id']}/export?as=markdown")
    assert response.mimetype == "text/markdown"
    assert "What is a linnet?" in response.text
    assert response.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{quote(name)}"


def test_what_cannot_be_exported_or_imported_is_refused(http, chats):
    (chat,) = taken(http, LLAMA)["chats"]
    assert json.loads(http.get(f"/api/chats/{chat['id']}/export").data)["format"] == "linnet-chat"
    assert error_of(http.get(f"/api/chats/{chat['id']}/export?as=pdf"))["param"] == "as"
    assert error_of(http.get("/api/chats/chat_x/export"))["code"] == "not_found"
    for body in ("{}", '{"items": []}', '{"items": [1], "more": 1}'):
        assert http.post("/api/chats/import", data=body, content_type="application/json").status_code == 400
    for path in ("/api/chats/export", f"/api/chats/{chat['id']}/export"):
        assert error_of(client_of(None).get(path))["code"] == "chats_not_kept"


def test_each_key_has_its_own_chats_here_too(chats):
    http = client_of(chats, api_key="a,b")
    mine, other = ({"Authorization": f"Bearer {key}"} for key in "ab")
    (chat,) = http.post("/api/chats/import", json={"items": [LLAMA]}, headers=mine).json["chats"]
    assert http.get(f"/api/chats/{chat['id']}/export", headers=other).status_code == 404
    assert json.loads(http.get("/api/chats/export", headers=other).data)["chats"] == []
    assert len(json.loads(http.get("/api/chats/export", headers=mine).data)["chats"]) == 1
