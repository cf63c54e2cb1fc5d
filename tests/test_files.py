"""How the page's files are sent: packed where the browser can unpack, and not again where it has them."""

from __future__ import annotations

import gzip

import pytest
from flask.testing import FlaskClient

from tests.conftest import ROOT
from tests.test_api import ScriptedEngine, client_of

PAGE = ROOT / "web/page"
NAMES = sorted(path.name for path in PAGE.iterdir())
PACKED = {"Accept-Encoding": "gzip, deflate, br, zstd"}
MOST_BYTES, MOST_PACKED = 150_000, 58_000


@pytest.fixture
def http() -> FlaskClient:
    return client_of(ScriptedEngine())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_sent_as_it_is_or_packed(http, name):
    data = (PAGE / name).read_bytes()
    plain, packed = http.get(f"/web/{name}"), http.get(f"/web/{name}", headers=PACKED)
    assert plain.data == gzip.decompress(packed.data) == data
    assert "Content-Encoding" not in plain.headers and packed.headers["Content-Encoding"] == "gzip"
    assert plain.mimetype == packed.mimetype != "application/octet-stream"
    for response in (plain, packed):
        assert response.headers["Vary"] == "Accept-Encoding"
        assert int(response.headers["Content-Length"]) == len(response.data)


@pytest.mark.parametrize("path", ["/", "/web/page.js", "/favicon.ico"])
@pytest.mark.parametrize("headers", [{}, PACKED])
def test_what_the_browser_has_already_is_not_sent_again(http, path, headers):
    first = http.get(path, headers=headers)
    assert first.headers["Cache-Control"] == "no-cache"
    again = http.get(path, headers={**headers, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert http.get(path, headers={**headers, "If-None-Match": '"another"'}).status_code == 200


def test_packed_and_plain_are_two_things_to_a_cache(http):
    tags = {http.get("/web/page.js", headers=headers).headers["ETag"] for headers in ({}, PACKED)}
    assert len(tags) == 2


def test_the_status_page_says_that_it_differs_by_what_is_accepted(http):
    response = http.get("/status", headers={"Accept": "text/html", **PACKED})
    assert set(response.headers["Vary"].split(", ")) == {"Accept", "Accept-Encoding"}
    assert gzip.decompress(response.data) == (PAGE / "status.html").read_bytes()


@pytest.mark.parametrize("name", ["nothing.js", "..", "../files.py", "%2e%2e/files.py", "..%2ffiles.py", "page/page.js", ""])
def test_nothing_but_the_pages_files_can_be_asked_for(http, name):
    assert http.get(f"/web/{name}").status_code == 404


def test_the_chat_page_weighs_little_as_it_lies_there_and_less_on_its_way():
    loaded = [(PAGE / name).read_bytes() for name in NAMES if not name.startswith("status.")]
    assert sum(map(len, loaded)) < MOST_BYTES
    assert sum(len(gzip.compress(data)) for data in loaded) < MOST_PACKED
