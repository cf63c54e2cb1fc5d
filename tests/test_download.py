"""models.download against a hub that breaks off, stalls and lies: it resumes, or leaves with a sentence and no model."""

from __future__ import annotations

import errno
import threading
from contextlib import contextmanager

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile

from models import errors
from models.download import SPARE_BYTES, TRIES, Download, Progress, State
from models.hub import Hub
from models.part import Part
from models.route import Route
from models.store import StoreError
from tests import hub as fake
from tests.hub import NAME, REPO, cut, endless, no_range, says, stall, usual

PATIENCE_S = 20.0


@pytest.fixture
def hub():
    with fake.tiny() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


class Fetching:
    """A Download that does not wait between its tries."""

    def __init__(self, hub, folder, wanted=REPO, stall_s=5.0, **options):
        self.told: list[Progress] = []
        self.paused: list[float] = []
        self.hears = threading.Condition()
        options = {"pause": self.paused.append} | options
        self.download = Download(wanted, folder, self._hear, Hub(Route(hub.url, stall_s=stall_s)), **options)
        self.run = self.download.run

    def _hear(self, progress):
        with self.hears:
            self.told.append(progress)
            self.hears.notify_all()

    def wait_for(self, found):
        with self.hears:
            assert self.hears.wait_for(lambda: any(map(found, self.told)), PATIENCE_S), self.told


def fetch(hub, folder, *faults, **options):
    hub.faults.extend(faults)
    return Fetching(hub, folder, **options).run()


def ranges(hub):
    return [seen.headers.get("range") for seen in hub.bodies()]


def parts(folder):
    return {path.suffix for path in (folder / ".parts").iterdir()}


def test_our_hub_speaks_as_huggingface_hub_expects(hub, tmp_path):
    content = hub.files[NAME].content
    path = hf_hub_download(REPO, NAME, endpoint=hub.url, local_dir=tmp_path, token=False)
    assert (tmp_path / path).read_bytes() == content
    api = HfApi(endpoint=hub.url, token=False)
    (listed,) = [file for file in api.model_info(REPO, files_metadata=True).siblings or [] if file.rfilename == NAME]
    (leaf,) = [leaf for leaf in api.list_repo_tree(REPO) if isinstance(leaf, RepoFile) and leaf.path == NAME]
    assert listed.lfs
    assert listed.lfs == leaf.lfs
    assert listed.lfs.sha256 == hub.files[NAME].sha256


def test_a_model_is_fetched_checked_and_takes_its_place_last(hub, folder):
    fetching = Fetching(hub, folder)
    assert fetching.run() == folder / NAME
    assert (folder / NAME).read_bytes() == hub.files[NAME].content
    states = list(dict.fromkeys(progress.state for progress in fetching.told))
    assert states == [State.LISTING, State.DOWNLOADING, State.CHECKING, State.INSTALLED]
    last = fetching.told[-1]
    assert (last.name, last.n_bytes, last.total_bytes) == ("tiny.Q4_K_M", len(hub.files[NAME].content), last.n_bytes)
    assert parts(folder) == {".ours"}, "only the note that the file is ours stays"


def test_what_is_installed_is_not_fetched_again(hub, folder):
    fetch(hub, folder)
    fetch(hub, folder)
    (folder / ".parts" / f"{NAME}.ours").unlink()  # as if it had come by other means: now its hash must say so
    fetch(hub, folder)
    assert len(hub.bodies()) == 1


def test_a_cut_download_goes_on_where_it_was_cut(hub, folder):
    path = fetch(hub, folder, cut(300_000), cut(200_000), cut(0))
    assert path.read_bytes() == hub.files[NAME].content
    assert ranges(hub) == [None, "bytes=300000-", "bytes=500000-", "bytes=500000-"]


def test_a_stalled_download_goes_on(hub, folder):
    assert fetch(hub, folder, stall(300_000), stall_s=0.3).exists()
    assert ranges(hub) == [None, "bytes=300000-"]


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub, folder):
    assert fetch(hub, folder, says(503), says(429), says(500)).exists()


def test_tries_that_bring_nothing_end_and_the_part_stays_for_the_next_time(hub, folder):
    hub.faults.extend([cut(300_000)] + [cut(0)] * TRIES)
    fetching = Fetching(hub, folder)
    with pytest.raises(errors.UnreachableError, match="The same command goes on"):
        fetching.run()
    assert fetching.paused == [1, 2, 4, 8, 16]
    assert not (folder / NAME).exists()
    assert fetch(hub, folder).exists()
    assert ranges(hub)[-1] == "bytes=300000-", "a download in another process must go on with the part"


def test_another_file_upstream_starts_over(hub, folder):
    with pytest.raises(errors.UnreachableError):
        fetch(hub, folder, cut(300_000), *[cut(0)] * TRIES)
    hub.files[NAME] = fake.File(b"GGUF" + b"new" * 200_000)
    assert fetch(hub, folder).read_bytes() == hub.files[NAME].content
    assert ranges(hub)[-1] is None


def test_a_damaged_record_of_a_part_starts_over(hub, folder):
    for damage in (b"", b"{", b"[]", b'{"version": 99}', b"\xff"):
        (folder / ".parts").mkdir(exist_ok=True)
        (folder / ".parts" / f"{NAME}.part").write_bytes(b"rubbish")
        (folder / ".parts" / f"{NAME}.json").write_bytes(damage)
        fetch(hub, folder).unlink()


def test_a_hub_that_does_not_know_ranges_sends_all_again(hub, folder):
    assert fetch(hub, folder, cut(300_000), no_range).read_bytes() == hub.files[NAME].content
    assert ranges(hub) == [None, "bytes=300000-"]


def test_a_range_that_is_refused_starts_over_once(hub, folder):
    assert fetch(hub, folder, cut(300_000), says(416)).read_bytes() == hub.files[NAME].content
    assert ranges(hub) == [None, "bytes=300000-", None]
    assert parts(folder) == {".ours"}
    (folder / NAME).unlink()
    with pytest.raises(errors.PastEndError):
        fetch(hub, folder, cut(300_000), says(416), cut(300_000), says(416))
    assert parts(folder) == {".ours"}


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([says(200, b"GGUF" + bytes(99))], "103 bytes; its record says"),
        ([endless(b"GGUF" + bytes(2_000_000))], "more of"),
        ([endless(b"GGUF" + bytes(99)), usual, usual], "SHA-256"),  # it goes on, and the whole is not the right one
        ([cut(300_000), says(206, b"xx", Content_Range="bytes 0-1/2")], "another piece"),
        ([cut(300_000), says(206, b"xx")], "another piece"),
        ([says(200, b"\x1f\x8b", Content_Encoding="gzip")], "compressed"),
        ([says(418)], "no hub gives"),
    ],
)
def test_what_is_not_the_promised_file_is_thrown_away(hub, folder, faults, words):
    with pytest.raises(errors.DamagedError, match=words):
        fetch(hub, folder, *faults)
    assert parts(folder) == set()
    assert not list(folder.glob("*.gguf"))
    assert fetch(hub, folder).exists(), "a later try must not suffer from it"


def test_a_wrong_hash_leaves_no_model(hub, folder):
    hub.files[NAME].record["sha256"] = "0" * 64
    with pytest.raises(errors.DamagedError, match="SHA-256"):
        fetch(hub, folder)
    assert parts(folder) == set()
    assert not (folder / NAME).exists()


def test_a_web_page_is_told_from_a_model_and_costs_nothing_of_the_part(hub, folder):
    page = says(200, b"<html>Sign in", Content_Type="text/html; charset=utf-8")
    with pytest.raises(errors.PageError, match="sign in"):
        fetch(hub, folder, cut(300_000), page)
    fetch(hub, folder)
    assert ranges(hub)[-1] == "bytes=300000-"


def test_what_has_the_right_hash_but_is_no_model_is_not_installed(hub, folder):
    hub.files[NAME] = fake.File(b"PK" * 1000)
    with pytest.raises(StoreError, match="not a GGUF"):
        fetch(hub, folder)
    assert not (folder / NAME).exists()


def test_another_file_under_the_name_is_left_alone(hub, folder, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"mine")
    for place in (lambda: (folder / NAME).write_bytes(b"GGUF mine"), lambda: (folder / NAME).symlink_to("../elsewhere")):
        place()
        before = fake.tree(tmp_path)
        with pytest.raises(errors.OccupiedError, match="another file"):
            fetch(hub, folder)
        assert fake.tree(tmp_path) == before
        (folder / NAME).unlink()


def test_a_model_of_ours_follows_its_file_upstream_unless_it_was_changed(hub, folder):
    fetch(hub, folder)
    hub.files[NAME] = fake.File(b"GGUF" + b"new" * 200_000)
    assert fetch(hub, folder).read_bytes() == hub.files[NAME].content
    (folder / NAME).write_bytes(b"GGUF and something of the user's")
    with pytest.raises(errors.OccupiedError):
        fetch(hub, folder)


def test_two_files_of_one_name_do_not_replace_each_other(hub, folder):
    hub.files = {f"{quant}/tiny.gguf": fake.File(b"GGUF" + quant.encode()) for quant in ("Q4_K_M", "Q8_0")}
    fetch(hub, folder, wanted=f"{REPO}:Q4_K_M/tiny.gguf")
    with pytest.raises(errors.OccupiedError):
        fetch(hub, folder, wanted=f"{REPO}:Q8_0/tiny.gguf")


def test_room_on_the_disk_is_asked_for_before_the_first_byte_and_what_is_there_counts(hub, folder):
    size = len(hub.files[NAME].content)
    with pytest.raises(errors.DiskError, match="needs 1 MB more"):
        fetch(hub, folder, free_bytes=lambda _: size + SPARE_BYTES - 1)
    assert not hub.bodies()
    with pytest.raises(errors.UnreachableError):
        fetch(hub, folder, cut(300_000), *[cut(0)] * TRIES)
    fetch(hub, folder, free_bytes=lambda _: size + SPARE_BYTES - 300_000)


def test_a_disk_that_becomes_full_is_a_sentence_and_the_part_stays(hub, folder, monkeypatch):
    class Full:
        """Takes a little at a time, and then nothing."""

        def __init__(self, out):
            self.out, self.n_left = out, 300_000

        def write(self, piece):
            if not self.n_left:
                raise OSError(errno.ENOSPC, "No space left on device")
            n_bytes = self.out.write(piece[: min(self.n_left, 10_000)])
            self.n_left -= n_bytes
            return n_bytes

    real = Part.open

    @contextmanager
    def filling(part, start):
        with real(part, start) as out:
            yield Full(out)

    with monkeypatch.context() as patch, pytest.raises(errors.DiskError, match="disk is full"):
        patch.setattr(Part, "open", filling)
        fetch(hub, folder)
    assert fetch(hub, folder).read_bytes() == hub.files[NAME].content
    assert ranges(hub) == [None, "bytes=300000-"]


def test_a_cancelled_download_stops_at_once_even_if_it_waits_for_the_hub_and_goes_on_later(hub, folder):
    hub.faults.append(stall(1000))  # in one piece: when it is told, the next read waits already, or will
    fetching = Fetching(hub, folder, stall_s=60)
    outcome = []

    def run():
        try:
            fetching.run()
        except errors.DownloadError as error:
            outcome.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    fetching.wait_for(lambda progress: progress.n_bytes)
    fetching.download.cancel()
    thread.join(PATIENCE_S)
    assert outcome == [errors.StoppedError], "the thread must not sit in a read that nobody ends"
    assert fetch(hub, folder).exists()
    assert ranges(hub)[-1], "what came must not be fetched again"
