"""The store on an S3 server, with the library people use for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.errors import NotFound
from project.source import fetch, snapshot
from project.store import LogWriter, Store
from tests.services.contexts import write
from tests.services.s3 import s3 as server


@pytest.fixture(scope="module")  # the library remembers the first server for the whole process
def s3() -> Iterator[str]:
    pytest.importorskip("s3fs")
    with server() as environment, pytest.MonkeyPatch.context() as ours:
        for name, value in environment.items():
            ours.setenv(name, value)
        yield environment["HELIX_STORE_URL"]


def test_a_source_travels_through_a_bucket(s3: str, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\n", "a/b": "x" * 100_000})
    source = snapshot(context, Store(s3))
    assert source.url.startswith(f"{s3}/sources/")
    assert snapshot(context, Store(s3)) == source
    fetch(source, tmp_path / "out")
    assert (tmp_path / "out/a/b").read_text() == "x" * 100_000


def test_a_log_is_uploaded_when_it_is_closed(s3: str, tmp_path: Path) -> None:
    store = Store(s3)
    with LogWriter(store, "d/build.log", tmp_path) as log:
        log.write("one")
        assert (tmp_path / "d/build.log").read_text() == "one\n"
        with pytest.raises(NotFound):
            store.read_text(log.url)
        log.write("two")
    assert store.read_text(log.url) == "one\ntwo\n"
    assert store.read_text(log.url, tail=1) == "two\n"


def test_what_is_not_in_the_bucket_is_not_found(s3: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Store(s3).fetch(f"{s3}/nope", tmp_path / "got")
    with pytest.raises(NotFound):
        Store("s3://no-such-bucket/x").put_bytes(b"x", "name")
