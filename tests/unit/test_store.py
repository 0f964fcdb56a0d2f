"""Content kept by URL: private, whole or not at all, and its errors in our own words."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from model.errors import (
    ConfigurationError,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    Throttled,
    Transient,
)
from project import store as module
from project.store import LogWriter, Store, translated


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/new/store")


def test_what_is_put_can_be_fetched_by_its_url(store: Store, tmp_path: Path) -> None:
    url = store.put_bytes(b"content", "bundles/a b.bin")
    Store(f"file://{tmp_path}/other").fetch(url, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"content"
    assert store.size("bundles/a b.bin") == 7
    assert store.url("bundles/a b.bin") == url


def test_only_its_user_can_read_a_store(store: Store, tmp_path: Path) -> None:
    store.put_bytes(b"x", "deep/er/file")
    store.fetch(store.url("deep/er/file"), tmp_path / "got")
    for path in ((tmp_path / "new"), *(tmp_path / "new").rglob("*"), tmp_path / "got"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_content_is_never_replaced(store: Store) -> None:
    store.put_bytes(b"first", "name")
    url = store.put_bytes(b"second", "name")
    assert store.read_text(url) == "first"


def test_a_put_that_breaks_off_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(PlatformUnhealthy, match="No space left") as caught:
        store.put_bytes(b"x", "name")
    assert "free disk space" in caught.value.hint
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert not store.exists("name")


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with pytest.raises(PlatformUnhealthy, match="No space left on device"):
            Store(f"file://{disk}/store").put_bytes(os.urandom(200_000), "name")
        assert not [path for path in disk.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_tail_is_the_last_lines(store: Store) -> None:
    text = "".join(f"line {number} {'x' * 500}\n" for number in range(100))
    url = store.put_bytes(text.encode(), "log")
    assert store.read_text(url, tail=3) == "".join(text.splitlines(keepends=True)[-3:])
    assert store.read_text(url, tail=1000) == text
    assert store.read_text(url, tail=0) == ""
    assert store.read_text(url) == text


def test_what_is_not_there_is_said_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing at"):
        store.fetch(store.url("nope"), tmp_path / "got")
    with pytest.raises(NotFound):
        store.read_text(store.url("nope"), tail=5)
    assert not store.exists("nope")
    store.delete(store.url("nope"))
    assert not list(tmp_path.glob(".*"))


def test_deleted_content_is_gone(store: Store) -> None:
    url = store.put_bytes(b"x", "name")
    store.delete(url)
    assert not store.exists("name")


@pytest.mark.parametrize("name", ["../up", "/absolute", "a/../../b", ""])
def test_a_name_cannot_leave_the_store(name: str, store: Store) -> None:
    with pytest.raises(ConfigurationError):
        store.put_bytes(b"x", name)


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="file://, s3://, gs://, abfs://"):
        Store("ftp://host/path")


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b/p", "aws"), ("gs://b", "gcp"), ("abfs://c", "azure")]
)
def test_a_missing_library_names_its_extra(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(module.fsspec, "filesystem", absent)
    with pytest.raises(ConfigurationError, match=rf"helix-deploy\[{extra}\]"):
        Store(url)


def test_no_cloud_library_is_imported_for_a_file_store() -> None:
    code = (
        "import sys; from project.store import Store; Store('file:///tmp/x'); "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('s3fs', 'gcsfs', 'adlfs', 'boto3', 'botocore', 'aiohttp')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class _ClientError(Exception):
    response = {"ResponseMetadata": {"HTTPStatusCode": 403}}


class _HttpError(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class NoCredentialsError(Exception):
    """Named as botocore names its own."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_ClientError("no"), PermissionDenied),
        (_HttpError(429), Throttled),
        (_HttpError(503), Transient),
        (_HttpError(404), NotFound),
        (_HttpError(400), ConfigurationError),
        (NoCredentialsError("none"), PermissionDenied),
        (ConnectionResetError("reset"), Transient),
        (OSError(errno.EDQUOT, "quota"), PlatformUnhealthy),
        (RuntimeError("who knows"), Transient),
    ],
)
def test_errors_of_cloud_libraries_are_translated(error: Exception, expected: type) -> None:
    with pytest.raises(expected) as caught, translated("s3://bucket/name"):
        raise error
    assert type(caught.value) is expected


def test_a_log_can_be_read_while_it_grows(store: Store, tmp_path: Path) -> None:
    with LogWriter(store, "d1/build.log", tmp_path / "logs") as log:
        log.write("one")
        assert store.read_text(log.url) == "one\n"
        log.write("two\n")
        assert store.read_text(log.url, tail=1) == "two\n"
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    with LogWriter(store, "d1/build.log", tmp_path / "logs") as again:
        again.write("second attempt")
    assert store.read_text(again.url) == "one\ntwo\nsecond attempt\n"
