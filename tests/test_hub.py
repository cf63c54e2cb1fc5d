"""models.hub and models.route: nothing that a hub says is believed, and nobody but the hub hears the token."""

from __future__ import annotations

import gzip
import ipaddress
import json

import pytest
from huggingface_hub import constants

from models import catalog, errors, route
from models.download import TRIES, Download
from models.hub import Hub, Wish, choose, wish
from models.route import MOST_HOPS, Route
from tests import hub as fake
from tests.hub import COMMIT, NAME, REPO, says

PUBLIC = ipaddress.ip_address("8.8.8.8")


@pytest.fixture
def hub():
    with fake.tiny(10_000) as hub:
        yield hub


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "beside").write_bytes(b"not yours")
    (tmp_path / "a" / "models").mkdir(parents=True)
    return tmp_path / "a" / "models"


def fetch(hub, folder, wanted=REPO, **options):
    return Download(wanted, folder, hub=Hub(Route(hub.url, **options)), pause=lambda _: None).run()


def tokens(hub, server):
    return {seen.headers.get("authorization") for seen in hub.seen if seen.server == server}


@pytest.mark.parametrize(
    "name",
    [
        *("../../x.gguf", "/etc/x.gguf", "..\\x.gguf", "a/../../../x.gguf", "C:\\x.gguf", "~/x.gguf", "%2e%2e/x.gguf"),
        *("a\0.gguf", "a\n.gguf", "\x1b[2J.gguf", "\u202ex.gguf", "-rf.gguf", ".gguf", "..gguf", "a..b.gguf", "X.GGUF"),
        *("<img src=x onerror=alert(1)>.gguf", "$(id).gguf", ";id.gguf", "a/.gguf", "a//b.gguf", "a/./b.gguf"),
        *(f"{'x' * 300}.gguf", "demo.gguf", ".parts/x.gguf"),
    ],
)
def test_a_hostile_name_is_refused_and_nothing_is_written(hub, folder, name):
    hub.files = {name: hub.files[NAME]}
    before = fake.tree(folder.parent.parent)
    with pytest.raises(errors.UnfitError) as refusal:
        fetch(hub, folder)
    assert str(refusal.value).isprintable(), "a name must not reach the terminal as it is"
    assert fake.tree(folder.parent.parent) == before
    assert not hub.bodies()


@pytest.mark.parametrize(
    "record",
    [
        *({"sha256": sha} for sha in ("a" * 63, "a" * 65, "A" * 64, "../" * 21 + "a", "", None, 7, ["a" * 64])),
        *({"size": size} for size in (-1, 0, 2**60, 1.5, True, "10", None, [1])),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(hub, folder, record):
    hub.files[NAME].record = record
    with pytest.raises((errors.UnfitError, errors.DamagedError)):
        fetch(hub, folder)
    assert fake.tree(folder) == {}


def test_a_file_without_a_hash_is_refused(hub, folder):
    hub.files[NAME].lfs = False
    with pytest.raises(errors.UnfitError, match="no SHA-256"):
        fetch(hub, folder)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html>", {"Content_Type": "text/html"}),
        (gzip.compress(bytes(2**26)), {"Content_Encoding": "gzip"}),  # 64 MiB in 64 KB
        (b" " * 2**24 + b'{"sha": "%s", "siblings": []}' % COMMIT.encode(), {}),
        (b"[" * 10**6, {}),
        (b'{"sha": ' + b"9" * 10_000 + b"}", {}),
        *((said, {}) for said in (b"", b"null", b"[]", b"{}", b'"x"', b'{"sha": "%s", "siblings": 7}' % COMMIT.encode())),
        *((json.dumps({"sha": COMMIT, "siblings": [x]}).encode(), {}) for x in (None, {}, {"rfilename": 1}, ["rfilename"])),
        *((json.dumps({"sha": sha, "siblings": [{"rfilename": NAME}]}).encode(), {}) for sha in ("../..", None, "main", 1)),
    ],
)
def test_a_listing_that_is_none_is_refused(hub, folder, body, headers):
    hub.listing = lambda handler: handler.answer(200, body, **headers)
    with pytest.raises((errors.DamagedError, errors.PageError)):
        fetch(hub, folder)


def test_only_the_hub_hears_the_token_and_not_even_the_hub_after_a_way_round(hub, folder):
    fetch(hub, folder, token="hf_secret")
    assert tokens(hub, "hub") == {"Bearer hf_secret"}
    assert tokens(hub, "cdn") == {None}
    (folder / NAME).unlink()
    hub.seen.clear()
    hub.faults.append(says(302, Location=f"{hub.url}/{REPO}/resolve/main/{NAME}"))
    fetch(hub, folder, token="hf_secret")
    assert [(seen.server, seen.headers.get("authorization")) for seen in hub.seen] == [
        ("hub", "Bearer hf_secret"),  # the listing
        ("hub", "Bearer hf_secret"),
        ("cdn", None),
        ("hub", None),  # who sent us back may have chosen what it says
        ("cdn", None),
    ]


@pytest.mark.parametrize(
    ("token", "code", "kind", "words"),
    [
        (None, "RepoNotFound", errors.AbsentError, "needs HF_TOKEN"),
        ("hf_bad", "RepoNotFound", errors.DeniedError, "owner of HF_TOKEN"),
        ("hf_bad", None, errors.DeniedError, "owner of HF_TOKEN"),
        ("hf_bad", "GatedRepo", errors.DeniedError, "accept its terms"),
        ("hf_ü", None, errors.DeniedError, "letters that no token has"),
        ("hf_\r\nX: y", None, errors.DeniedError, "letters that no token has"),
    ],
)
def test_a_token_that_does_not_do_is_told_so(hub, folder, monkeypatch, token, code, kind, words):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)  # not the token of who runs the tests
    hub.token, hub.error_code = "hf_good", code
    with pytest.raises(kind, match=words) as refusal:
        fetch(hub, folder, token=token)
    assert "hf_" not in str(refusal.value)


def test_a_repository_that_is_not_there_is_told_so(hub, folder):
    with pytest.raises(errors.AbsentError, match="no repository owner/none"):
        fetch(hub, folder, "owner/none")


def test_going_round_in_circles_ends(hub, folder):
    hub.faults.extend([says(302, Location=f"/{hub.files[NAME].sha256}")] * 50)
    with pytest.raises(errors.AddressError, match=f"more than {MOST_HOPS} times"):
        fetch(hub, folder)
    assert len(hub.bodies()) == MOST_HOPS


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/passwd", "ftp://example.org/x", "javascript:alert(1)", "http://[::1", "http://..", "data:,GGUF"),
        *("http://169.254.169.254/latest", "http://0xA9FEA9FE/", "http://2852039166/", "http://[::ffff:169.254.169.254]/"),
        *("http://[fe80::1]/", "http://[fd00:ec2::254]/", "http://100.100.100.200/", "http://0.0.0.0/", "http://224.0.0.1/"),
    ],
)
def test_nobody_is_sent_to_what_is_no_web_address_or_tells_secrets(hub, folder, location):
    hub.faults.append(says(302, Location=location))
    with pytest.raises(errors.AddressError):
        fetch(hub, folder)
    assert fake.tree(folder).keys() <= {f".parts/{NAME}.json"}


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.2", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "[::1]", "[fd00::1]"]
)
def test_a_public_hub_sends_nobody_into_this_network(hub, folder, host):
    def resolve(name):
        return [PUBLIC] if name == "127.0.0.1" else route.resolve(name)  # our hub plays a public one

    hub.faults.append(says(302, Location=f"http://{host}:{hub.cdn.rpartition(':')[2]}/{hub.files[NAME].sha256}"))
    with pytest.raises(errors.AddressError, match="inside this network"):
        fetch(hub, folder, resolve=resolve)
    assert fetch(hub, folder, resolve=resolve).exists(), "and to a public address they are sent"


def test_an_address_that_nobody_knows_cannot_be_reached(folder):
    with pytest.raises(errors.UnreachableError, match="cannot be connected to"):
        Download(REPO, folder, hub=Hub(Route("http://127.0.0.1:9")), pause=lambda _: None).run()
    for endpoint in ("ftp://hub", "hub", "http://", "file:///x", "http://[::1"):
        with pytest.raises(errors.WrongNameError, match="HF_ENDPOINT"):
            Route(endpoint)


def test_a_hub_that_stays_busy_is_given_up(hub, folder):
    hub.faults.extend([says(503)] * TRIES)
    with pytest.raises(errors.UnreachableError, match="status 503"):
        fetch(hub, folder)


def test_a_name_means_an_entry_of_the_catalog_or_a_repository():
    assert wish("tinyllama") == Wish("TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF", "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf")
    assert wish("owner/name") == Wish("owner/name")
    assert wish("owner/name:Q8_0") == Wish("owner/name", None, "Q8_0")
    assert wish("owner/name:sub/x.gguf") == Wish("owner/name", "sub/x.gguf")
    for wrong in (
        *("", "tinylama", "-rf", "../../x", "/etc/passwd", "/dev/zero", "owner/name:", "owner/name:../x", "owner/na me"),
        *("owner/<img>", "owner/$(id)", "owner/..", "owner/name:a b", "owner/x\0", "owner/x\n", "http://x/y", "a/b/c"),
        *("owner/name?x", "\udc80/x"),
    ):
        with pytest.raises(errors.WrongNameError, match=r"one of tinyllama, r1-qwen-1\.5b"):
            wish(wrong)


def test_the_quantization_is_a_word_of_the_name_and_what_is_ambiguous_is_asked_back():
    paths = [
        "x-Q4_K_M.gguf",
        "x-Q4_K_S.gguf",
        "x.q8_0.gguf",
        "x-IQ4_XS.gguf",
        "big-BF16-00001-of-00002.gguf",
        "mmproj-Q8_0.gguf",
    ]
    assert choose(paths, Wish(REPO)) == "x-Q4_K_M.gguf"
    assert choose(paths, Wish(REPO, quant="q4_k_s")) == "x-Q4_K_S.gguf"
    assert choose(paths, Wish(REPO, quant="Q8_0")) == "x.q8_0.gguf"
    assert choose(["only-F16.gguf"], Wish(REPO)) == "only-F16.gguf"
    for quant in ("Q4", "Q4_K", "XS_", ".*"):
        with pytest.raises(errors.AbsentError, match=r"there are: x-Q4_K_M\.gguf, x-Q4_K_S\.gguf"):
            choose(paths, Wish(REPO, quant=quant))
    with pytest.raises(errors.UnfitError, match="one of several parts"):
        choose(paths, Wish(REPO, quant="BF16"))
    with pytest.raises(errors.UnfitError, match="Several files fit"):
        choose(["a/x-Q4_K_M.gguf", "b/x-Q4_K_M.gguf"], Wish(REPO))
    with pytest.raises(errors.AbsentError, match="no GGUF files"):
        choose([], Wish(REPO))


def test_the_catalog_has_the_models_that_are_promised_and_refuses_a_wrong_entry(tmp_path):
    assert list(catalog.catalog()) == ["tinyllama", "r1-qwen-1.5b", "r1-qwen-7b", "r1-llama-8b"]
    assert catalog.catalog()[catalog.DEFAULT].bytes == 668_788_096
    right = catalog.CATALOG.read_text()
    for old, new in (
        ("layers = 22", "layers = 0"),
        ("layers = 22", "layers = true"),
        ("layers = 22", 'layers = "22"'),
        ("layers = 22", ""),
        ("layers = 22", "layers = 22\nlayer = 22"),
        ("reasoning = false", "reasoning = 0"),
        ("[tinyllama]", "['../x']"),
        ("[tinyllama]", "x = 1\n[tinyllama]"),
        ('"TheBloke/', '"https://TheBloke/'),
        ('file = "tiny', 'file = "../tiny'),
        ('"Apache-2.0"', '""'),
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(right.replace(old, new, 1))
        with pytest.raises(ValueError, match="catalog's"):
            catalog.catalog.__wrapped__(path)
