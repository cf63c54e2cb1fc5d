"""The HTTP side over a scripted engine: every refusal in OpenAI's shape, before anything is generated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from api import errors
from api.app import LARGEST_BODY_BYTES, create_app
from api.body import HARMLESS, NEUTRAL, ChatBody
from api.pool import Model, Pool
from api.source import Source
from api.stream import ChatWriter
from engine.loading import Loading
from engine.request import Accepted, Config, Delta, Event, Failed, Finished, Ready, Request, Trouble
from engine.stream import NOTHING, Begun, Sink, State, Status, Stream, Work
from settings import Settings

READY = Ready(2048, 2048, 1, 1, "fake", "fake 0", 0.0)
END = Finished("", "stop", "end_of_turn", 3, 1, 2, 0.0, 0.1, 0.2)


class ScriptedEngine:
    """Answers every request with the same events and notes what it was asked."""

    config = Config("fake.gguf", None, 4, 1)

    def __init__(self, *events: Event) -> None:
        self.events = events or (Accepted("", 3), Delta("", "Hel"), Delta("", "lo 🐦"), END)
        self.requests: list[Request] = []
        self.closed = 0
        self.state = State.READY
        self.n_ctx = None

    def submit(self, request: Request, begun: Begun = NOTHING, listener: Sink | None = None) -> Stream:
        work = Work(request, self.cancel, begun, listener)
        self.requests.append(work.request)
        stream = Stream(work)
        for event in self.events:
            work.put(event)
        return stream

    def join(self, stream: Stream) -> Stream | None:
        return stream.join()

    def cancel(self, id: str) -> None:
        self.closed += 1

    def load(self, force: bool = False, n_ctx: int | None = None) -> Loading:
        self.state = State.READY
        loading = Loading(n_ctx)
        loading.set_result(None)
        return loading

    def give_up(self, loading: Loading) -> None:
        pass

    def unload(self) -> None:
        self.state = State.IDLE

    def unloaded(self, timeout_s: float | None = None) -> bool:
        return True

    def wait(self, timeout_s: float | None = None) -> Status:
        return self.status()

    def model_file(self) -> str:
        return "1 2 3"

    def status(self) -> Status:
        return Status(self.state, READY, None, 0, 0, 1)


def client_of(engine: ScriptedEngine, **settings: Any) -> FlaskClient:
    return create_app(Settings(**settings), Pool(Model("fake", Source(engine)))).test_client()  # type: ignore[arg-type]


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def http(engine: ScriptedEngine) -> FlaskClient:
    return client_of(engine)


CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def error_of(response: Any) -> Any:
    body = json.loads(response.data)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert len(response.data) < 4096
    return body["error"]


def events_of(response: Any) -> list[Any]:
    *lines, end = response.data.decode().split("\n\n")
    assert end == ""
    assert all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"messages":[{"role":"user","content":"hi"}],"temperature":NaN}',
        b'{"messages":[{"role":"user","content":"hi"}],"temperature":1e999}',
        '{"messages":[]}'.encode("utf-16"),
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b"[" * 200_000,
        b'{"messages":' + b"[" * 1000 + b"]" * 1000 + b"}",
    ],
)
def test_a_body_that_is_no_request_is_refused_in_openais_shape(http, engine, raw):
    response = http.post(CHAT, data=raw, content_type="application/json")
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"
    assert engine.requests == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "", "colour": []}]}, "messages[0].colour"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 7}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"colour": "red"}, "colour"),
        ({"n": True}, "n"),
    ],
)
def test_a_field_of_the_wrong_type_or_range_is_refused_by_name(http, engine, fields, param):
    response = http.post(CHAT, json=BODY | fields)
    assert response.status_code == 400
    assert error_of(response)["param"].startswith(param)
    assert engine.requests == []


@pytest.mark.parametrize("field", sorted(NEUTRAL))
def test_what_is_not_supported_is_refused_by_name_and_never_ignored(http, engine, field):
    response = http.post(CHAT, json=BODY | {field: {"anything": "else"}})
    assert response.status_code == 400
    assert (error_of(response)["param"], error_of(response)["code"]) == (field, "unsupported_parameter")
    for value in [None, *NEUTRAL[field]]:
        assert http.post(CHAT, json=BODY | {field: value}).status_code == 200
    assert len(engine.requests) == 1 + len(NEUTRAL[field])


GIVEN: dict[Any, Any] = {str: "x", bool: True}  # what is neither takes a dictionary


@pytest.mark.parametrize("field", sorted(HARMLESS))
def test_what_cannot_change_the_answer_is_accepted_if_it_is_what_it_should_be(http, field):
    assert http.post(CHAT, json=BODY | {field: GIVEN.get(HARMLESS[field], {"a": "b"})}).status_code == 200
    response = http.post(CHAT, json=BODY | {field: [5]})
    assert (response.status_code, error_of(response)["param"]) == (400, field)


def test_the_three_lists_of_fields_do_not_overlap():
    honoured = set(ChatBody.model_fields)
    assert not honoured & set(HARMLESS)
    assert not honoured & set(NEUTRAL)
    assert not set(HARMLESS) & set(NEUTRAL)


def test_defaults_are_filled_in_and_a_low_temperature_becomes_greedy(engine):
    http = client_of(engine, temperature=0.7, greedy_below=0.3)
    for fields in ({}, {"temperature": 0.29}, {"temperature": 0.3}):
        http.post(CHAT, json=BODY | fields)
    assert [r.sampling.temperature for r in engine.requests] == [0.7, 0.0, 0.3]


def test_max_completion_tokens_wins_over_its_older_name(http, engine):
    http.post(CHAT, json=BODY | {"max_tokens": 9, "max_completion_tokens": 5})
    assert engine.requests[0].max_tokens == 5


@pytest.mark.parametrize("trouble", list(Trouble))
@pytest.mark.parametrize("streaming", [False, True])
def test_every_trouble_of_the_engine_has_a_status_before_the_first_byte(trouble, streaming):
    engine = ScriptedEngine(Failed("", trouble, "Because."))
    response = client_of(engine).post(CHAT, json=BODY | {"stream": streaming, "response_format": {"type": "json_object"}})
    kind = errors.TROUBLES[trouble]
    assert response.status_code == kind.status >= 400
    assert error_of(response) == {"message": "Because.", "type": kind.type, "param": PARAMS.get(trouble), "code": kind.code}
    assert ("Retry-After" in response.headers) == (kind.status in (429, 503))
    assert engine.closed == 1


PARAMS = {
    Trouble.CONTEXT_LENGTH: "messages",
    Trouble.BAD_PROMPT: "messages",
    Trouble.BAD_BIAS: "logit_bias",
    Trouble.BAD_SHAPE: "response_format",
}


def test_a_failure_in_the_middle_of_a_stream_is_one_error_event_and_the_end():
    engine = ScriptedEngine(Accepted("", 3), Delta("", "Hel"), Failed("", Trouble.ENGINE_DIED, "It crashed."))
    with client_of(engine).post(CHAT, json=BODY | {"stream": True}) as response:
        first, delta, error, done = events_of(response)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert delta["choices"][0]["delta"] == {"content": "Hel"}
    assert error["error"]["code"] == "engine_crashed"
    assert done == "[DONE]"
    assert engine.closed == 1


def test_a_failure_in_the_middle_of_a_whole_answer_is_an_error_and_no_half_answer():
    engine = ScriptedEngine(Accepted("", 3), Delta("", "Hel"), Failed("", Trouble.ENGINE_DIED, "It crashed."))
    response = client_of(engine).post(CHAT, json=BODY)
    assert response.status_code == 500
    assert error_of(response)["message"] == "It crashed."


def test_a_fault_of_ours_in_the_middle_of_a_stream_is_told_and_ends_it(http, engine, monkeypatch):
    monkeypatch.setattr(ChatWriter, "piece", lambda *_: 1 / 0)
    with http.post(CHAT, json=BODY | {"stream": True}) as response:
        *_, error, done = events_of(response)
    assert (error["error"]["type"], done) == ("server_error", "[DONE]")
    assert engine.closed == 1


def test_greedy_choices_are_computed_once(http, engine):
    choices = json.loads(http.post(CHAT, json=BODY | {"n": 3}).data)["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["Hello 🐦"] * 3
    assert len(engine.requests) == 1
    http.post(CHAT, json=BODY | {"n": 3, "temperature": 1})
    assert len(engine.requests) == 4


def test_a_stream_that_nobody_begins_to_read_is_cancelled_all_the_same(http, engine):
    response = http.post(CHAT, json=BODY | {"stream": True}, buffered=False)
    response.close()
    assert engine.closed == 1


def test_a_client_that_leaves_while_it_waits_cancels_its_request():
    engine = ScriptedEngine(Accepted("", 3))  # and then silence
    response = client_of(engine).post(CHAT, json=BODY, environ_overrides={"waitress.client_disconnected": lambda: True})
    assert response.status_code == 499
    assert engine.closed == 1


def test_streams_are_never_cached_or_buffered_on_the_way(http):
    headers = http.post(CHAT, json=BODY | {"stream": True}).headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-cache", "no")


def test_unknown_routes_and_methods_are_refused_in_openais_shape(http):
    for response, status in ((http.get("/v1/nothing"), 404), (http.get(CHAT), 405), (http.get("/web/../server.py"), 404)):
        assert response.status_code == status
        error_of(response)


def test_a_body_that_is_too_large_is_refused(http, engine):
    response = http.post(CHAT, data=b" " * (LARGEST_BODY_BYTES + 1), content_type="application/json")
    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_another_sites_form_could_send_is_refused(http, engine, kind):
    response = http.post(CHAT, data=json.dumps(BODY), content_type=kind)
    assert response.status_code == 415
    error_of(response)
    assert engine.requests == []


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/web/chat.js"])
@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:8000", True),
        ("app.localhost", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("192.168.0.1", False),
        ("[::1", False),
    ],
)
def test_only_the_names_of_this_computer_are_answered(http, path, host, allowed):
    with http.get(path, headers={"Host": host}) as response:
        assert response.status_code == (200 if allowed else 403)


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://[::1", "localhost", "null", "http://localhost.evil.example", "http://localhost:9"],
)
def test_a_page_of_another_site_can_start_nothing(http, engine, origin):
    response = http.post(CHAT, json=BODY, headers={"Origin": origin})
    assert response.status_code == 403
    assert "Access-Control-Allow-Origin" not in response.headers
    assert engine.requests == []
    assert http.post(CHAT, json=BODY, headers={"Origin": "http://localhost"}).status_code == 200


def test_with_a_key_every_route_but_the_page_and_health_asks_for_it(engine):
    http = client_of(engine, api_key="sesame")
    open_to_all = ("/web/", "/favicon", "/api/session")
    rules = [rule for rule in http.application.url_map.iter_rules() if not rule.rule.startswith(open_to_all)]
    assert len(rules) >= 5
    for rule in rules:
        method = "POST" if "POST" in (rule.methods or ()) else "GET"
        path = rule.rule.replace("<path:name>", "fake")
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer sesam\xe9"}):
            with http.open(path, method=method, json=BODY if method == "POST" else None, headers=headers) as response:
                if path in ("/", "/health"):
                    assert response.status_code == 200
                else:
                    assert response.status_code == 401
                    assert response.headers["WWW-Authenticate"] == "Bearer"
                    assert error_of(response)["code"] == "invalid_api_key"
    assert http.get("/v1/models", headers={"Authorization": "Bearer sesame"}).status_code == 200


def test_health_says_whether_a_request_would_be_served(http, engine):
    for state in State:
        engine.state = state
        response = http.get("/health")
        good = state in (State.READY, State.IDLE, State.WAKING)
        assert (response.status_code, response.json["status"]) == ((200, "ok") if good else (503, state))


def test_a_fault_of_ours_is_a_plain_500_without_a_traceback(http, engine, monkeypatch):
    monkeypatch.setattr(engine, "submit", lambda _: 1 / 0)
    response = http.post(CHAT, json=BODY)
    assert response.status_code == 500
    assert "division" not in error_of(response)["message"]


def test_what_is_private_is_neither_kept_nor_written_anywhere(http, engine):
    for path, body in ((CHAT, BODY), ("/v1/completions", {"prompt": "hi"}), ("/api/prefill", BODY)):
        response = http.post(path, json=body | {"private": True})
        assert response.status_code == 200
        assert engine.requests[-1].private
        assert response.headers.get("X-Linnet-Cache", "bypass") == "bypass"


ANSWERED = [*BODY["messages"], {"role": "assistant", "content": "It is", "reasoning_content": "Well,"}]


def test_an_answer_that_is_to_go_on_reaches_the_engine_as_its_beginning(http, engine):
    assert http.post(CHAT, json={"messages": ANSWERED, "continue_final_message": True}).status_code == 200
    (asked,) = engine.requests
    assert (asked.messages, asked.thought, asked.said) == (BODY["messages"], "Well,", "It is")


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        {"messages": [ANSWERED[1]]},
        {"messages": [*BODY["messages"], {"role": "assistant", "content": ""}]},
        {"messages": ANSWERED, "response_format": {"type": "json_object"}},
        {"messages": ANSWERED, "grammar": 'root ::= "x"'},
    ],
)
def test_what_cannot_go_on_is_refused(http, engine, body):
    response = http.post(CHAT, json=body | {"continue_final_message": True})
    assert response.status_code == 400
    assert error_of(response)["param"] in ("continue_final_message", "messages")
    assert not engine.requests
