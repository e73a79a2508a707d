"""Download of a corpus: verified contents, safe unpacking, one-line errors."""

import io
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from advser.corpora import emodb, fetch
from advser.corpora.emodb import EmoDB
from advser.errors import InputError
from advser.store.digests import contents_digest

OFFICIAL = emodb.DIGEST
SOUNDS = {"wav/03a01Fa.wav": b"first", "wav/08a01Na.wav": b"second"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):  # noqa: A002
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Serve a folder, whose path is the fixture; set the user's cache and the digest of `SOUNDS`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    monkeypatch.setattr(fetch, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(emodb, "ADDRESS", f"http://127.0.0.1:{server.server_port}/download.zip")
    monkeypatch.setattr(emodb, "DIGEST", digest_of(tmp_path / "right", SOUNDS))
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def digest_of(folder: Path, files: dict[str, bytes]) -> str:
    for name, contents in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents)
    return contents_digest([folder / name for name in files], folder)


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        for name, contents in files.items():
            opened.writestr(name, contents)
    return stream.getvalue()


def refused(*fragments: str) -> None:
    with pytest.raises(InputError) as caught:
        EmoDB().fetch()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in ("corpus 'emodb'", "--data emodb=DIR", *fragments):
        assert fragment in message


def places(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_archive_is_downloaded_once_and_only_its_sound_is_unpacked(site, tmp_path):
    (site / "download.zip").write_bytes(archive({**SOUNDS, "erkennung.txt": b"scores", "lablaut/03a01Fa.lablaut": b""}))
    folder = EmoDB().fetch()
    assert folder == tmp_path / "cache" / "advser" / "corpora" / "emodb"
    assert places(tmp_path / "cache") == [f"advser/corpora/emodb/{name}" for name in sorted(SOUNDS)]
    (site / "download.zip").unlink()
    assert EmoDB().fetch() == folder
    assert [path.name for path in EmoDB().files(folder)] == ["03a01Fa.wav", "08a01Na.wav"]


def test_members_with_odd_paths_stay_inside_the_folder(site, tmp_path):
    odd = {"../../wav/03a01Fa.wav": b"first", "a/wav/08a01Na.wav": b"second"}
    odd |= {"/wav/09a01Na.wav": b"", "../evil.wav": b"", "wav/../../evil": b"", "wav/wav/../08a01Nb.wav": b""}
    (site / "download.zip").write_bytes(archive(odd))
    folder = EmoDB().fetch()
    assert places(tmp_path / "cache") == [f"advser/corpora/emodb/{name}" for name in sorted(SOUNDS)]
    assert (folder / "wav" / "03a01Fa.wav").read_bytes() == b"first"


@pytest.mark.parametrize("changed", [{"wav/03a01Fa.wav": b"other"}, {"wav/09a01Na.wav": b"more"}])
def test_other_contents_are_refused_and_no_file_remains(site, tmp_path, changed):
    (site / "download.zip").write_bytes(archive(SOUNDS | changed))
    refused("download.zip: got files with SHA-256", "expected the official corpus")
    assert places(tmp_path / "cache") == []


def test_an_archive_without_the_corpus_is_refused(site):
    (site / "download.zip").write_bytes(archive({"index.html": b"moved"}))
    refused("expected the official corpus")


def test_a_file_that_is_no_archive_is_refused(site):
    (site / "download.zip").write_bytes(b"<html>maintenance</html>")
    refused("got no readable archive", "expected the official zip archive")


def test_a_damaged_archive_is_refused(site):
    data = bytearray(archive({**SOUNDS, "wav/09a01Na.wav": b"x" * 5000}))
    data[60] ^= 0xFF
    (site / "download.zip").write_bytes(data)
    refused()


def test_an_archive_that_unpacks_to_too_much_is_refused(site, monkeypatch):
    monkeypatch.setattr(fetch, "LARGEST", 10)
    (site / "download.zip").write_bytes(archive(SOUNDS))
    with pytest.raises(InputError, match=r"got an archive of more than 10 bytes unpacked"):
        EmoDB().fetch()


def test_without_a_network_the_message_names_the_fix(site, monkeypatch):
    refused("download.zip: got HTTPError, expected a download")
    monkeypatch.setattr(emodb, "ADDRESS", "http://127.0.0.1:9/download.zip")
    refused("http://127.0.0.1:9/download.zip: got ConnectionError, expected a download")


def test_a_changed_cache_is_refused(site):
    (site / "download.zip").write_bytes(archive(SOUNDS))
    folder = EmoDB().fetch()
    (folder / "wav" / "03a01Fa.wav").write_bytes(b"cut")
    refused(str(folder), "delete it to download the corpus again")


def test_a_cache_that_cannot_be_created_is_reported(site, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    refused(str(tmp_path / "cache"), "expected a folder that can be created")


def test_a_second_process_may_be_faster(site, tmp_path, monkeypatch):
    (site / "download.zip").write_bytes(archive(SOUNDS))
    download = fetch._download

    def overtaken_download(*args):
        download(*args)
        digest_of(tmp_path / "cache" / "advser" / "corpora" / "emodb", SOUNDS)

    monkeypatch.setattr(fetch, "_download", overtaken_download)
    assert places(EmoDB().fetch()) == sorted(SOUNDS)


@pytest.mark.data
def test_the_official_archive_is_accepted_and_one_changed_sample_is_not(site, monkeypatch, emodb_directory):
    monkeypatch.setattr(emodb, "DIGEST", OFFICIAL)
    files = {place: (emodb_directory / place).read_bytes() for place in places(emodb_directory)}
    (site / "download.zip").write_bytes(archive(files | {"wav/03a01Fa.wav": files["wav/03a01Fa.wav"][:-1] + b"\x7f"}))
    refused("expected the official corpus")
    (site / "download.zip").write_bytes(archive(files))
    folder = EmoDB().fetch()
    assert len(EmoDB().files(folder)) == 535
    assert EmoDB().findings(folder) == ()
