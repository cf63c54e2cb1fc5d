"""The page's session in place of the API key, and what pages of other sites can do: nothing."""

from __future__ import annotations

import pytest
from flask import g

import web
from api.guard import session_of
from tests.test_api import BODY, CHAT, ScriptedEngine, client_of, error_of

KEY = "sésame"
ORIGIN = {"Origin": "http://localhost"}
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture
def engine():
    return ScriptedEngine()


@pytest.fixture
def locked(engine):
    return client_of(engine, api_key=f"other,{KEY}")


def test_who_shows_the_key_once_is_let_in_by_a_cookie_from_then_on(locked):
    assert locked.post(CHAT, json=BODY).status_code == 401
    began = locked.post("/api/session", json={"key": KEY})
    assert (began.status_code, began.data) == (204, b"")
    assert locked.post(CHAT, json=BODY).status_code == 200
    assert locked.get("/v1/models").status_code == 200
    assert locked.delete("/api/session").status_code == 204
    assert locked.post(CHAT, json=BODY).status_code == 401


def test_the_cookie_is_for_this_server_alone_and_the_key_is_not_in_it(locked):
    cookie = locked.post("/api/session", json={"key": KEY}).headers["Set-Cookie"]
    name, _, rest = cookie.partition("=")
    assert name == "linnet_80"  # the port of the test client
    assert set(rest.split("; ")[1:]) == {"HttpOnly", "Path=/", "SameSite=Strict"}
    assert KEY not in cookie
    assert session_of(KEY) != session_of("other")


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x", KEY.upper()])
def test_a_wrong_key_begins_no_session(locked, key):
    response = locked.post("/api/session", json={"key": key})
    assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("value", ["", "x", KEY, "é", session_of("a key of yesterday"), session_of(KEY)[:-1]])
def test_a_cookie_that_was_not_made_of_a_key_opens_nothing(locked, value):
    response = locked.post(CHAT, json=BODY, headers={"Cookie": f"linnet_80={value}"})
    assert response.status_code == 401


def test_a_session_and_its_key_own_the_same_answers(locked):
    def owner(**headers: str):
        with locked:
            assert locked.get("/v1/models", headers=headers).status_code == 200
            return g.owner

    by_key = owner(Authorization=f"Bearer {KEY}".encode().decode("latin-1"))
    assert owner(Authorization="Bearer other") != by_key
    locked.post("/api/session", json={"key": KEY})
    assert owner() == by_key


def test_a_key_in_the_header_counts_more_than_a_cookie(locked):
    locked.post("/api/session", json={"key": KEY})
    assert locked.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_without_a_key_there_is_no_session_to_begin():
    began = client_of(ScriptedEngine()).post("/api/session", json={"key": "any"})
    assert began.status_code == 204
    assert "Set-Cookie" not in began.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
def test_another_site_can_neither_read_nor_start_anything(engine, site, method):
    http = client_of(engine)
    rules = list(http.application.url_map.iter_rules())
    for rule in (rule for rule in rules if method in (rule.methods or ())):
        path = rule.rule.replace("<path:name>", "stub").replace("<name>", "page.css")
        for headers in ({}, LINK, {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}):
            response = http.open(path, method=method, json=BODY, headers={"Sec-Fetch-Site": site, **headers})
            may = method == "GET" and path in ("/", "/status") and headers is LINK
            assert response.status_code == 403 or may, f"{method} {path}"
            response.close()
    assert engine.requests == []


@pytest.mark.parametrize("site", ["same-origin", "none", None])
def test_the_page_itself_and_an_address_that_was_typed_are_let_in(site):
    http = client_of(ScriptedEngine())
    headers = {"Sec-Fetch-Site": site} if site else {}
    assert http.post(CHAT, json=BODY, headers={**headers, **ORIGIN}).status_code == 200
    assert http.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", ["http://localhost:9000", "http://127.0.0.1", "https://evil.example", "null"])
@pytest.mark.parametrize("path", [CHAT, "/api/session", "/api/markdown"])
def test_a_page_on_another_port_is_another_site(engine, locked, origin, path):
    for http in (client_of(engine), locked):
        for method in ("POST", "OPTIONS", "DELETE"):
            response = http.open(path, method=method, json=BODY, headers={"Origin": origin})
            assert response.status_code == 403
            assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
    assert engine.requests == []


def test_a_form_of_another_site_which_sends_no_json_begins_no_session(locked):
    assert locked.post("/api/session", data={"key": KEY}).status_code == 415
    assert locked.post("/api/session", data=f'{{"key": "{KEY}"}}', content_type="text/plain").status_code == 415


@pytest.mark.parametrize("path", ["/", "/web/page.css", "/v1/models", "/health", "/nothing", "/api/session"])
def test_every_answer_tells_browsers_to_trust_it_with_nothing(path):
    with client_of(ScriptedEngine()).get(path) as response:
        assert {name: response.headers[name] for name in web.HEADERS} == web.HEADERS
        policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert (
        policy.pop("default-src")
        == policy.pop("base-uri")
        == policy.pop("form-action")
        == policy.pop("frame-ancestors")
        == "'none'"
    )
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert policy.pop("trusted-types") == "linnet"
    assert set(policy.values()) == {"'self'"}
