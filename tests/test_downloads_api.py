"""/models/download: progress as events, joined by whoever asks, ended by a DELETE alone."""

from __future__ import annotations

import json
import threading

import pytest
from flask import Flask
from werkzeug.exceptions import HTTPException

from api import downloads as api
from api.errors import ApiError, from_http_status
from models import errors
from models.download import Download, Progress, State
from models.downloads import MOST, Downloads
from models.hub import Hub
from models.route import Route
from models.store import StoreError
from tests import hub as fake
from tests.hub import NAME, REPO, stall

PATIENCE_S = 20.0


@pytest.fixture
def hub():
    with fake.tiny() as hub:
        yield hub


def app(downloads, beat_s=5.0):
    app = Flask("test")
    app.register_blueprint(api.blueprint(downloads, beat_s))
    app.register_error_handler(ApiError, lambda error: error.response())
    app.register_error_handler(HTTPException, lambda error: from_http_status(error.code, error.description).response())
    return app.test_client()


@pytest.fixture
def downloads(hub, tmp_path):
    def make(wanted, folder, on_progress):
        return Download(wanted, folder, on_progress, Hub(Route(hub.url, stall_s=60)))

    downloads = Downloads(tmp_path, make)
    yield downloads
    downloads.stop(PATIENCE_S)


@pytest.fixture
def client(downloads):
    return app(downloads)


def post(client, model=REPO):
    response = client.post("/models/download", json={"model": model})
    assert (response.status_code, response.mimetype) == (200, "text/event-stream")
    return response


def events(response):
    """The events as they come; comments are left out."""
    for line in response.response:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def until(stream, state):
    return next(event for event in stream if event.get("state") == state)


def test_a_download_tells_its_progress_and_ends_with_installed(client, hub, tmp_path):
    *told, last = events(post(client))
    assert told
    assert {event["state"] for event in told} <= {"listing", "downloading", "checking"}
    assert (tmp_path / NAME).read_bytes() == hub.files[NAME].content
    size = len(hub.files[NAME].content)
    expected = {"object": "model.download", "model": REPO, "name": "tiny.Q4_K_M", "state": "installed"}
    nothing = {"bytes_per_s": None, "seconds_left": None, "note": None}
    assert last == expected | {"bytes": size, "total_bytes": size} | nothing
    assert list(events(post(client)))[-1]["state"] == "installed", "what is there is found at once"
    assert len(hub.bodies()) == 1


def test_who_asks_for_what_is_under_way_joins_it_and_who_leaves_does_not_end_it(client, hub):
    gate = threading.Event()
    hub.faults.append(lambda handler, content: not gate.wait(PATIENCE_S))
    first = post(client)
    assert next(events(first))["model"] == REPO
    hub.wait_for_bodies(1)
    second = events(post(client))
    next(second)
    (listed,) = client.get("/models/download").json["downloads"]
    assert listed["model"] == REPO
    first.close()
    gate.set()
    assert list(second)[-1]["state"] == "installed"
    assert len(hub.bodies()) == 1


def test_a_cancelled_download_tells_all_its_readers_and_goes_on_later(client, hub):
    hub.faults.append(stall(300_000))
    first, second = events(post(client)), events(post(client))
    until(first, "downloading")
    assert client.delete("/models/download", json={"model": REPO}).json == {"model": REPO, "cancelled": True}
    for stream in (first, second):
        *_, last = stream
        assert last["error"]["code"] == "download_cancelled"
    assert client.get("/models/download").json == {"downloads": []}
    assert client.delete("/models/download", json={"model": REPO}).status_code == 404
    assert list(events(post(client)))[-1]["state"] == "installed"
    assert hub.bodies()[-1].headers["range"].startswith("bytes=")


def test_who_asks_while_a_cancelled_one_is_still_ending_gets_a_new_one(client, hub):
    gate = threading.Event()
    hub.faults.append(lambda handler, content: not gate.wait(PATIENCE_S))  # not a header yet: nothing to interrupt
    first = events(post(client))
    next(first)
    hub.wait_for_bodies(1)
    client.delete("/models/download", json={"model": REPO})
    second = events(post(client))
    until(second, "waiting")
    gate.set()
    assert list(first)[-1]["error"]["code"] == "download_cancelled"
    assert list(second)[-1]["state"] == "installed"


def test_a_failure_is_the_last_event(client, hub):
    hub.files[NAME].record["sha256"] = "0" * 64
    *_, last = events(post(client))
    assert last["error"]["code"] == "download_damaged"
    assert set(last["error"]) == {"message", "type", "param", "code"}
    *_, last = events(post(client, "owner/none"))
    assert (last["error"]["code"], last["error"]["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"model": 1}', "model"),
        (b'{"model": ""}', "model"),
        (b'{"model": null}', "model"),
        (b"{}", "model"),
        (b'{"model": "tinyllama", "user": "x"}', "user"),
        (b'{"model": "tinyllama", "stream": true}', "stream"),
        (b'{"model": "../../x"}', "model"),
        (b'{"model": "-rf"}', "model"),
        (b'{"model": "owner/<img>"}', "model"),
        (b'{"model": "http://127.0.0.1:1/x"}', "model"),
        (b'{"model": "/dev/zero"}', "model"),
        (b'{"model": "%s"}' % (b"x" * 600), "model"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_before_the_stream(client, hub, body, param):
    response = client.post("/models/download", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.json["error"]["param"] == param
    assert not hub.seen


class Held:
    """A download that runs until it is cancelled."""

    def __init__(self, wanted, folder, on_progress):
        self.cancelled, self.on_progress = threading.Event(), on_progress

    def run(self):
        assert self.cancelled.wait(PATIENCE_S)
        raise errors.StoppedError("stopped")

    def cancel(self):
        self.cancelled.set()


def test_only_so_many_run_at_once_and_only_so_many_watch(tmp_path):
    downloads = Downloads(tmp_path, Held)
    client = app(downloads)
    names = [f"owner/{i}" for i in range(MOST)]
    watched = [post(client, names[0]) for _ in range(api.MOST_WATCHERS - MOST)] + [post(client, name) for name in names[1:]]
    refused = client.post("/models/download", json={"model": "owner/more"})
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "too_many_downloads")
    assert refused.headers["Retry-After"]
    watched.append(post(client, names[0]))
    assert client.post("/models/download", json={"model": names[0]}).status_code == 429
    watched.pop().close()  # a stream that never began gives its seat back, too
    watched.append(post(client, names[0]))
    downloads.stop(PATIENCE_S)
    assert downloads.running() == []
    for response in watched:
        response.close()


def test_a_download_without_news_keeps_its_connection_alive(tmp_path):
    downloads = Downloads(tmp_path, Held)
    stream = iter(post(app(downloads, beat_s=0.01)).response)
    assert json.loads(next(stream).removeprefix(b"data: "))["state"] == "listing"
    assert next(stream).startswith(b": ")
    downloads.stop(PATIENCE_S)


def test_progress_comes_at_most_a_few_times_a_second_and_the_end_at_once(tmp_path):
    class Chatty(Held):
        def run(self):
            for i in range(10_000):
                self.on_progress(Progress(State.DOWNLOADING, "x", i, 10_000))
            return tmp_path / "x.gguf"

    told = list(events(post(app(Downloads(tmp_path, Chatty)))))
    assert len(told) < 10
    assert told[-1]["bytes"] == 9_999


def test_a_fault_of_ours_is_told_too(tmp_path, caplog):
    class Broken(Held):
        def run(self):
            raise ZeroDivisionError

    (*_, last) = events(post(app(Downloads(tmp_path, Broken))))
    assert last["error"]["message"] == "The download failed; the log has the details."
    assert "ZeroDivisionError" in caplog.text


def test_every_error_of_a_download_has_a_kind():
    def below(kind):
        return {kind}.union(*(below(sub) for sub in kind.__subclasses__()))

    expected = below(errors.DownloadError) | {StoreError}
    assert api.KINDS.keys() == expected, "an error without a kind would be a fault of ours"
