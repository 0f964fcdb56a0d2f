"""The snapshot of a build context: the same everywhere, complete, and nothing but the context."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import socket
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.artifact import Source
from model.errors import ConfigurationError, NotFound
from project import source as module
from project.source import fetch, look, snapshot
from project.store import Store
from tests.services.contexts import write


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/store")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": "FROM scratch\n", "app/main.py": "1\n"})


def names(source: Source, store: Store) -> list[str]:
    """What is in a source, folders with a slash."""
    found = look(source, "", store)[1]
    return sorted(f"{name}/" if kind == "d" else name for name, kind in found.items())


def test_equal_contexts_have_equal_digests_wherever_and_whenever_they_were_made(
    context: Path, store: Store, tmp_path: Path
) -> None:
    first = snapshot(context, store)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "app").mkdir()
    (other / "app/main.py").write_text("1\n")
    (other / "Dockerfile").write_text("FROM scratch\n")
    os.utime(other / "app/main.py", (1, 1))
    elsewhere = Store(f"file://{tmp_path}/another-store")
    second = snapshot(other, elsewhere)
    assert first.digest == second.digest
    archives = [s.url.removeprefix("file://") for s in (first, second)]
    assert Path(archives[0]).read_bytes() == Path(archives[1]).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: (c / "app/main.py").write_text("2\n"),
        lambda c: (c / "app/main.py").chmod(0o755),
        lambda c: (c / "app").chmod(0o700),
        lambda c: (c / "app/main.py").rename(c / "app/main2.py"),
        lambda c: (c / "empty").mkdir(),
        lambda c: (c / "link").symlink_to("app"),
    ],
    ids=["content", "mode", "folder mode", "name", "empty folder", "link"],
)
def test_whatever_a_build_could_see_changes_the_digest(
    change: object, context: Path, store: Store
) -> None:
    before = snapshot(context, store)
    change(context)  # type: ignore[operator]
    assert snapshot(context, store).digest != before.digest


def test_a_link_target_counts(context: Path, store: Store) -> None:
    (context / "link").symlink_to("app")
    before = snapshot(context, store)
    (context / "link").unlink()
    (context / "link").symlink_to("app/main.py")
    assert snapshot(context, store).digest != before.digest


def test_a_source_comes_back_as_it_was(context: Path, store: Store, tmp_path: Path) -> None:
    (context / "run.sh").write_text("#!/bin/sh\n")
    (context / "run.sh").chmod(0o775)
    (context / "secret").write_text("x")
    (context / "secret").chmod(0o600)
    (context / "app/link").symlink_to("../run.sh")
    (context / "folder-link").symlink_to("app")
    (context / ("long" * 50)).write_text("n")
    (context / "ä ö\n").write_text("odd name")
    (context / "empty").mkdir()
    (context / "read-only").mkdir()
    (context / "read-only/file").write_text("r")
    (context / "read-only").chmod(0o555)
    source = snapshot(context, store)
    into = tmp_path / "out"
    fetch(source, into, store)

    def tree(root: Path) -> dict[str, tuple[object, ...]]:
        return {
            str(p.relative_to(root)): (
                ("link", os.readlink(p))
                if p.is_symlink()
                else (oct(p.stat().st_mode), None if p.is_dir() else p.read_bytes())
            )
            for p in root.rglob("*")
        }

    assert tree(into) == tree(context)
    assert source.files == 9
    (context / "read-only").chmod(0o755)
    (into / "read-only").chmod(0o755)


def test_a_name_that_is_no_unicode_survives(context: Path, store: Store, tmp_path: Path) -> None:
    odd = os.fsencode(context) + b"/\xff\xfe"
    with open(odd, "w") as file:
        file.write("x")
    fetch(snapshot(context, store), tmp_path / "out", store)
    assert os.path.exists(os.fsencode(tmp_path) + b"/out/\xff\xfe")


def test_ignored_files_stay_out_but_never_what_the_build_needs_to_begin(
    context: Path, store: Store
) -> None:
    write(context, {".dockerignore": "*\n!app\napp/*.log\n", "junk": "", "app/x.log": ""})
    assert names(snapshot(context, store), store) == [
        ".dockerignore",
        "Dockerfile",
        "app/",
        "app/main.py",
    ]


def test_the_ignore_file_of_a_dockerfile_wins(context: Path, store: Store) -> None:
    write(
        context,
        {
            ".dockerignore": "app\n",
            "build/prod.Dockerfile": "FROM scratch\n",
            "build/prod.Dockerfile.dockerignore": "junk\n",
            "junk": "",
        },
    )
    found = names(snapshot(context, store, dockerfile="build/prod.Dockerfile"), store)
    assert "app/main.py" in found
    assert "junk" not in found
    assert "build/prod.Dockerfile.dockerignore" in found


def test_a_folder_that_is_left_out_appears_for_what_is_brought_back_in_it(
    context: Path, store: Store
) -> None:
    write(context, {".dockerignore": "deep\n!deep/er/keep\n", "deep/er/keep": "", "deep/no": ""})
    found = names(snapshot(context, store), store)
    assert {"deep/", "deep/er/", "deep/er/keep"} <= set(found)
    assert "deep/no" not in found


def test_the_data_of_local_instances_is_never_part_of_a_source(context: Path, store: Store) -> None:
    write(context, {".helix/.volumes/dev/data.mdb": "data"})
    assert not any(".helix" in name for name in names(snapshot(context, store), store))


@pytest.mark.parametrize("target", ["../outside", "app/../../outside"])
def test_a_link_out_of_the_context_is_refused_by_name(
    target: str, context: Path, store: Store
) -> None:
    (context / "app/evil").symlink_to(f"../{target}" if not target.startswith("/") else target)
    with pytest.raises(ConfigurationError, match="app/evil"):
        snapshot(context, store)
    write(context, {".dockerignore": "app/evil\n"})
    snapshot(context, store)


def test_a_folder_behind_a_link_is_not_entered(context: Path, store: Store, tmp_path: Path) -> None:
    (context / "loop").symlink_to(".")
    assert "loop" in names(snapshot(context, store), store)


def test_a_dockerfile_outside_is_refused(context: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "Other").write_text("FROM scratch\n")
    with pytest.raises(ConfigurationError, match="outside"):
        snapshot(context, store, dockerfile="../Other")
    (context / "Linked").symlink_to(tmp_path / "Other")
    with pytest.raises(ConfigurationError, match="outside"):
        snapshot(context, store, dockerfile="Linked")


def test_what_is_missing_is_named(context: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no Dockerfile at .*Nope"):
        snapshot(context, store, dockerfile="Nope")
    with pytest.raises(ConfigurationError, match="not a folder"):
        snapshot(tmp_path / "nowhere", store)
    (tmp_path / "void").mkdir()
    with pytest.raises(ConfigurationError, match="nothing to build"):
        snapshot(tmp_path / "void", store, dockerfile="")


def test_sockets_and_pipes_are_left_out(
    context: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(context / "pipe")
    monkeypatch.chdir(context)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert not {"pipe", "socket"} & set(names(snapshot(context, store), store))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(context: Path, store: Store) -> None:
    (context / "app/main.py").chmod(0)
    with pytest.raises(ConfigurationError, match=r"app/main\.py cannot be read"):
        snapshot(context, store)


def test_an_unchanged_tree_is_not_read_again(
    context: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED", -(10**12))  # as if every file were old
    first = snapshot(context, store, cache=tmp_path / "cache")
    monkeypatch.setattr(module, "_reading", None)  # reading anything now would fail
    assert snapshot(context, store, cache=tmp_path / "cache") == first
    (remembered,) = (tmp_path / "cache").iterdir()
    assert remembered.stat().st_mode & 0o777 == 0o600


def test_a_file_changed_within_a_clock_tick_of_its_reading_is_noticed(
    context: Path, store: Store, tmp_path: Path
) -> None:
    path = context / "app/main.py"
    first = snapshot(context, store, cache=tmp_path / "cache")
    times = path.stat()
    path.write_text("2\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert snapshot(context, store, cache=tmp_path / "cache").digest != first.digest


def test_a_damaged_memory_is_ignored(context: Path, store: Store, tmp_path: Path) -> None:
    first = snapshot(context, store, cache=tmp_path / "cache")
    for file in (tmp_path / "cache").iterdir():
        file.write_text("[1, 2")
    assert snapshot(context, store, cache=tmp_path / "cache") == first


def test_a_file_that_keeps_changing_is_named(context: Path, store: Store) -> None:
    busy = context / "busy.log"
    busy.write_bytes(b"x" * 200_000)

    def report(text: str, done: int, of: int) -> None:
        with busy.open("ab") as file:
            file.write(b"y" * 1000)

    with pytest.raises(ConfigurationError, match=r"busy\.log keeps changing"):
        snapshot(context, store, report=report)


def test_an_absolute_link_means_the_images_own_files(
    context: Path, store: Store, tmp_path: Path
) -> None:
    (context / "app/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    source = snapshot(context, store)
    fetch(source, tmp_path / "out", store)
    assert os.readlink(tmp_path / "out/app/localtime") == "/usr/share/zoneinfo/UTC"


def test_a_file_that_vanishes_while_the_source_is_packed_is_left_out(
    context: Path, store: Store
) -> None:
    gone = context / "zz.tmp"
    gone.write_text("soon gone")

    def report(text: str, done: int, of: int) -> None:
        if text.startswith("packing"):
            gone.unlink(missing_ok=True)

    assert "zz.tmp" not in names(snapshot(context, store, report=report), store)


def test_a_cancelled_snapshot_leaves_nothing_behind(
    context: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    def report(text: str, done: int, of: int) -> None:
        if text.startswith("packing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snapshot(context, store, report=report)
    assert not list(scratch.iterdir())
    assert not list(tmp_path.glob("store/**/*.gz"))


def test_a_large_file_is_streamed(context: Path, store: Store, tmp_path: Path) -> None:
    with (context / "large").open("wb") as file:
        file.truncate(300 << 20)
    tracemalloc.start()
    try:
        fetch(snapshot(context, store), tmp_path / "out", store)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out/large").stat().st_size == 300 << 20
    assert peak < 30 << 20


def test_a_damaged_archive_is_refused_and_can_be_stored_anew(
    context: Path, store: Store, tmp_path: Path
) -> None:
    source = snapshot(context, store)
    archive = Path(source.url.removeprefix("file://"))
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(NotFound, match="damaged"):
        fetch(source, tmp_path / "out", store)
    shutil.rmtree(tmp_path / "out")
    fetch(snapshot(context, store), tmp_path / "out", store)


def test_other_content_under_the_same_name_is_refused(
    context: Path, store: Store, tmp_path: Path
) -> None:
    source = snapshot(context, store)
    (context / "app/main.py").write_text("forged")
    forged = snapshot(context, store)
    shutil.copy(forged.url.removeprefix("file://"), source.url.removeprefix("file://"))
    with pytest.raises(NotFound, match="damaged"):
        fetch(source, tmp_path / "out", store)


@pytest.mark.parametrize("name", ["../escaped", "/abs/../../escaped", "link/escaped"])
def test_nothing_is_ever_written_outside_the_folder(name: str, tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/store")
    content = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=content, mode="wb") as packed,
        tarfile.TarFile(fileobj=packed, mode="w") as tar,
    ):
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    url = store.put_bytes(content.getvalue(), "sources/evil.tar.gz")
    with pytest.raises((ConfigurationError, NotFound)):
        fetch(Source(digest="0" * 64, url=url), tmp_path / "a/out", store)
    assert not (tmp_path / "escaped").exists()


def test_one_text_can_be_read_without_unpacking(context: Path, store: Store) -> None:
    source = snapshot(context, store)
    assert look(source, "./Dockerfile", store)[0] == "FROM scratch\n"
    assert look(source, "Nope", store)[0] is None


_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30
).filter(lambda name: name not in (".", "..", ".dockerignore", ".helix", "Dockerfile"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    files=st.dictionaries(
        _NAMES, st.tuples(st.binary(max_size=2000), st.sampled_from([0o644, 0o755, 0o600, 0o664]))
    ),
    folder=_NAMES,
)
def test_any_tree_comes_back_with_the_digest_it_left_with(
    files: dict[str, tuple[bytes, int]], folder: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("any")
    context, store = root / "context", Store(f"file://{root}/store")
    (context / "0" / folder).mkdir(parents=True)
    for name, (content, mode) in files.items():
        path = context / "0" / folder / name
        path.write_bytes(content)
        path.chmod(mode)
    source = snapshot(context, store, dockerfile="")
    fetch(source, root / "out", store)  # raises if the digest differs
    assert snapshot(root / "out", store, dockerfile="") == source
    shutil.rmtree(root)
