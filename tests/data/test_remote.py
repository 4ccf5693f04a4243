"""Images from a server: read like those on disk, downloaded once, and gone on with after a connection broke."""

from collections.abc import Generator
from functools import partial
from pathlib import Path

import fsspec
import pytest
from helpers.making import contents, encoded, noise, opened, save_noise, write_tar, write_zip
from helpers.serving import Ranges, closed_port, serving

from undiffuse.data import paths, remote
from undiffuse.data.paths import cache_folder, check_data, data_name, source_name
from undiffuse.utils.files import remove
from undiffuse.utils.terminal import console, speaking

NAMES = [f"{kind}/{i}.png" for kind in ("cats", "dogs") for i in range(20)]
MEMBERS = {name: encoded(noise(i)) for i, name in enumerate(NAMES)}


class Server:
    def __init__(self) -> None:
        self.folder = Path("served").absolute()
        self.folder.mkdir()
        self.served: list[int] = []
        """The first byte of each range that was asked for."""
        self.break_at: list[int] = []
        """The bytes after which the connection breaks, once each."""
        self.url = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 2000)
    server = Server()
    with serving(server.folder, partial(Ranges, served=server.served, break_at=server.break_at)) as server.url:
        yield server


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Generator[fsspec.AbstractFileSystem]:
    """An object storage, at memory://."""
    monkeypatch.setitem(paths.REMOTE, "memory", "")
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_on_a_server_equals_the_one_on_disk(server: Server, kind: str) -> None:
    archive = (write_zip if kind == "zip" else write_tar)(server.folder / f"photos.{kind}", MEMBERS)
    store, here = opened(f"{server.url}photos.{kind}?token=1"), opened(archive)
    assert contents(store) == contents(here)
    assert (store.name, store.content, store.class_names) == ("photos", here.content, here.class_names)
    assert sorted(set(server.served)) == list(range(0, archive.stat().st_size, 2000))


def test_what_is_decoded_is_not_downloaded_again(server: Server) -> None:
    write_zip(server.folder / "photos.zip", MEMBERS)
    first, asked = opened(f"{server.url}photos.zip"), len(server.served)
    for file in cache_folder().glob("remote-*/photos*"):
        file.unlink()
    assert opened(f"{server.url}photos.zip") == first
    assert len(server.served) == asked
    write_zip(server.folder / "photos.zip", {**MEMBERS, "dogs/new.png": encoded(noise(99))})
    assert len(opened(f"{server.url}photos.zip")) == len(first) + 1


def test_a_download_goes_on_where_it_ended(server: Server) -> None:
    archive = write_tar(server.folder / "photos.tar", MEMBERS)
    server.break_at += [9000, 31000]
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=r"photos\.tar could not be downloaded .*goes on where it ended"):
            opened(f"{server.url}photos.tar")
        assert not list(cache_folder().glob("remote-*/photos"))
        assert not list(cache_folder().glob("*/store.json"))
    assert contents(opened(f"{server.url}photos.tar")) == contents(opened(archive))
    assert {first for first in server.served if server.served.count(first) > 1} == {8000, 30000}


def test_a_download_says_how_far_it_is(server: Server, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    write_tar(server.folder / "photos.tar", MEMBERS)
    monkeypatch.setattr("undiffuse.utils.terminal.LOG_SECONDS", 0)
    assert not console.is_terminal
    with speaking():
        opened(f"{server.url}photos.tar")
    assert "downloading photos: 0/0 MiB" in capsys.readouterr().out


def test_an_archive_that_changes_meanwhile_is_refused(server: Server, monkeypatch) -> None:
    archive = write_zip(server.folder / "photos.zip", MEMBERS)
    found = remote.find_remote(f"{server.url}photos.zip")
    write_zip(archive, {name: encoded(noise(50 + i)) for i, name in enumerate(NAMES)})
    archive.write_bytes(archive.read_bytes() + b"more")
    with pytest.raises(ValueError, match="changed while it was downloaded: run the same command again"):
        found.fetch()
    assert len(opened(f"{server.url}photos.zip")) == 40


def test_a_server_that_sends_no_parts_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(Path("photos.zip"), MEMBERS)
    with serving(Path.cwd()) as url:
        assert len(opened(f"{url}photos.zip")) == 40  # A single part.
        monkeypatch.setattr(remote, "BLOCK_BYTES", 2000)
        write_zip(Path("other.zip"), MEMBERS)
        with pytest.raises(FileNotFoundError, match=r"other\.zip could not be downloaded .*support range requests"):
            opened(f"{url}other.zip")


def test_a_folder_in_object_storage_equals_the_one_on_disk(bucket: fsspec.AbstractFileSystem) -> None:
    folder = save_noise(Path("photos"), *NAMES)
    (folder / "notes.txt").write_text("text")
    bucket.put("photos", "/bucket/", recursive=True)
    for address in ("memory://bucket/photos", "memory://bucket/photos/"):
        store = opened(address)
        assert contents(store) == contents(opened(folder))
        assert store.content == opened(folder).content
        assert store.name == "photos"
    assert not list(cache_folder().rglob("notes.txt"))


def test_a_folder_that_is_broken_off_goes_on(bucket: fsspec.AbstractFileSystem, monkeypatch) -> None:
    for name, content in MEMBERS.items():
        bucket.pipe(f"/bucket/photos/{name}", content)
    read, asked = type(bucket)._open, []

    def breaking(system, path, *arguments, **named):
        asked.append(path)
        if len(asked) == 30:
            raise ConnectionResetError("the connection was reset")
        return read(system, path, *arguments, **named)

    monkeypatch.setattr(type(bucket), "_open", breaking)
    monkeypatch.setattr(remote, "THREADS", 1)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded .*the connection was reset"):
        opened("memory://bucket/photos")
    there = len(list(cache_folder().glob("remote-*/photos/*/*.png")))
    asked.clear()
    assert len(opened("memory://bucket/photos")) == 40
    assert len(asked) == 40 - there < 40


def test_a_file_of_a_folder_that_was_cut_off_is_downloaded_again(bucket: fsspec.AbstractFileSystem) -> None:
    for name, content in MEMBERS.items():
        bucket.pipe(f"/bucket/photos/{name}", content)
    whole = contents(opened("memory://bucket/photos"))
    (file,) = cache_folder().glob("remote-*/photos/cats/7.png")
    file.write_bytes(MEMBERS["cats/7.png"][:50])
    for store in cache_folder().glob("*/store.json"):
        remove(store.parent)
    assert contents(opened("memory://bucket/photos")) == whole


def test_a_folder_that_changes_meanwhile_is_refused(bucket: fsspec.AbstractFileSystem, monkeypatch) -> None:
    for name, content in MEMBERS.items():
        bucket.pipe(f"/bucket/photos/{name}", content)
    found = remote.find_remote("memory://bucket/photos")
    bucket.pipe("/bucket/photos/cats/new.png", MEMBERS["cats/7.png"])
    with pytest.raises(ValueError, match="changed while it was downloaded: run the same command again"):
        found.fetch()


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("../../out.png", None),
        ("cats/../../../out.png", None),
        ("cats//etc/out.png", "cats//etc/out.png"),
        ("..\\..\\out.png", None),
    ],
)
def test_no_name_leads_out_of_the_cache(bucket, name: str, target: str | None, monkeypatch) -> None:
    bucket.pipe("/bucket/photos/cats/0.png", MEMBERS[NAMES[0]])
    about = bucket.info("/bucket/photos/cats/0.png")
    listed = {f"/bucket/photos/{each}": about for each in ("cats/0.png", name)}
    monkeypatch.setattr(type(bucket), "find", lambda *arguments, **named: listed)
    targets = remote.find_remote("memory://bucket/photos").targets
    assert targets == {"/bucket/photos/cats/0.png": "cats/0.png"} | (
        {f"/bucket/photos/{name}": target} if target else {}
    )
    assert all((Path("cache") / each).resolve().is_relative_to(Path("cache").resolve()) for each in targets.values())


def test_an_absolute_name_is_refused(bucket, monkeypatch) -> None:
    bucket.pipe("/bucket/photos/0.png", MEMBERS[NAMES[0]])
    about = bucket.info("/bucket/photos/0.png")
    for name in ("/bucket/photos//etc/out.png", "/elsewhere/out.png"):
        monkeypatch.setattr(type(bucket), "find", lambda *arguments, name=name, **named: {name: about})
        with pytest.raises(ValueError, match=r"out\.png leads out of memory://bucket/photos: rename or remove"):
            opened("memory://bucket/photos")
    assert not list(cache_folder().rglob("*.png"))


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://host/..", "images"),
        ("https://host/../../etc/passwd.zip", "passwd"),
        ("s3://bucket/%2e%2e%2fout.tar", "2e-2e-2fout"),
        ("gs://bucket", "images"),
        ("https://host/a/photos.tar.gz?name=../../x", "photos"),
    ],
)
def test_an_address_is_never_a_path(address: str, name: str) -> None:
    assert source_name(address) == name
    assert data_name(address) == address


def test_errors_are_one_sentence_that_says_what_to_do(server: Server) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is nothing to read at http://.*/no\.zip: check the address"):
        opened(f"{server.url}no.zip")
    with pytest.raises(FileNotFoundError, match=r"photos\.zip could not be downloaded \(.*\): check the connection"):
        opened(f"{closed_port()}photos.zip")
    with pytest.raises(ValueError, match=r"s3://bucket/photos\.tar cannot be read .*'undiffuse\[remote\]' s3fs"):
        opened("s3://bucket/photos.tar")
    for address in ("ftp://host/photos.zip", "file:///etc", "zip://a::http://host/photos.zip", "http://a::file://b"):
        with pytest.raises(ValueError, match="cannot be read: give an address with http://, https://, s3://, gs://"):
            check_data(address)
    (server.folder / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match=r"is not a readable \.zip or \.tar"):
        opened(f"{server.url}text.zip")


def test_a_folder_without_images_is_refused(bucket: fsspec.AbstractFileSystem) -> None:
    bucket.pipe("/bucket/photos/notes.txt", b"text")
    with pytest.raises(FileNotFoundError, match="There are no images in memory://bucket/photos"):
        opened("memory://bucket/photos")
