"""Makes the query bundle of a project for Helix Cloud.

A standard cluster takes the project's `.hx` files, and compiles them itself; if HelixDB's command
is here they are compiled here first, so that a mistake is found before anything is sent. An
enterprise cluster takes a Rust project's sources, and the `queries.json` that the project writes
when it runs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from builders.base import BuildJob
from builders.command import run
from builders.helix import find_helix, named_failure
from builders.output import Output
from model.artifact import MOST_BUNDLE_BYTES, MOST_BUNDLE_FILES
from model.errors import BuildFailed, ConfigurationError
from model.instance import Instance

QUERIES = "queries.json"
RUST_FILES = {"Cargo.toml", "Cargo.lock", "build.rs", "rust-toolchain", "rust-toolchain.toml"}
"""Besides src/ and .cargo/*.toml: what HelixDB's CLI sends of an enterprise project."""
LEFT_OUT = {"target", ".git", ".helix"}


def prepare_bundle(
    instance: Instance, project_dir: Path, log: Callable[[str], None] = lambda line: None
) -> Path:
    """Gather what Helix Cloud is sent, in the folder `.helix/<instance>.bundle`.

    Args:
        instance: its `build.context` is the folder of the queries.
        project_dir: the folder with helix.toml.
        log: takes what a compiler says.

    Raises:
        ConfigurationError: there are no queries, or more than Helix Cloud takes.
        BuildFailed: a query does not compile.
    """
    queries = project_dir / instance.build.context
    if instance.target.kind == "enterprise":
        _compile_rust(instance, queries, log)
        files = [*_files(queries, _is_rust), QUERIES]
    else:
        files = [*_files(queries, lambda path: path.endswith(".hx"))]
        if not files:
            raise ConfigurationError(
                f"there are no .hx files in {queries}",
                hint='set `queries` in [project] to their folder, such as "./db/"',
            )
        _compile_hx(instance, project_dir, log)
    return _gather(queries, files, project_dir / ".helix" / f"{instance.name}.bundle")


def _files(folder: Path, wanted: Callable[[str], bool]) -> Iterator[str]:
    """The paths, relative and with slashes, of the wanted files."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in sorted(names):
            path = Path(parent, name).relative_to(folder).as_posix()
            if wanted(path):
                yield path


def _is_rust(path: str) -> bool:
    hidden = path.startswith(".cargo/") and path.endswith(".toml")
    return path in RUST_FILES or path.startswith("src/") or hidden


def _gather(queries: Path, files: list[str], bundle: Path) -> Path:
    shutil.rmtree(bundle, ignore_errors=True)
    size = 0
    for path in files:
        try:
            content = (queries / path).read_bytes()
            content.decode()
        except UnicodeDecodeError:
            raise ConfigurationError(
                f"{queries / path} is not UTF-8 text", hint="encode it as UTF-8, or move it away"
            ) from None
        size += len(content)
        target = bundle / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o644)  # the bundle's digest is the same on every machine
    for folder in (bundle, *(one for one in bundle.rglob("*") if one.is_dir())):
        folder.chmod(0o755)
    check_size(len(files), size)
    return bundle


def check_size(files: int, size: int) -> None:
    """Refuse what Helix Cloud does not take.

    Args:
        size: bytes.

    Raises:
        ConfigurationError: how much it is, and how much is allowed.
    """
    if files > MOST_BUNDLE_FILES or size > MOST_BUNDLE_BYTES:
        raise ConfigurationError(
            f"the queries are {files} files of {size / 2**20:.1f} MiB together, and Helix Cloud "
            f"takes {MOST_BUNDLE_FILES} of {MOST_BUNDLE_BYTES >> 20} MiB",
            hint="leave out what the queries do not need",
        )


def _compile_hx(instance: Instance, project_dir: Path, log: Callable[[str], None]) -> None:
    command = find_helix()
    if command is None:
        log("HelixDB's helix command is not here: Helix Cloud itself checks the queries")
        return
    with tempfile.TemporaryDirectory(prefix="helix-compile-") as folder:
        words = [command, "compile", "--path", str(project_dir), "--output", folder]
        code, lines = _run(words, instance, project_dir, log)
    if code != 0:
        raise named_failure(lines, code, "helix compile")


def _compile_rust(instance: Instance, queries: Path, log: Callable[[str], None]) -> None:
    """Run the project, which writes `queries.json`. Without cargo, take the one that is there."""
    if not (queries / "Cargo.toml").is_file():
        raise ConfigurationError(
            f"there is no Cargo.toml in {queries}, where the queries should be",
            hint="set `queries` in [project] to the folder of the Rust project",
        )
    written = queries / QUERIES
    cargo = shutil.which("cargo")
    if cargo is None:
        if not written.is_file():
            raise ConfigurationError(
                f"{written} is not there, and cargo, which makes it, is not installed",
                hint="install Rust from https://rustup.rs, or run `cargo run` elsewhere",
            )
        log(f"cargo is not here: {written} is taken as it is")
    else:
        words = [cargo, "run", "--manifest-path", str(queries / "Cargo.toml")]
        code, lines = _run(words, instance, queries, log)
        if code != 0:
            raise BuildFailed(
                f"the query project does not run: {lines[-1] if lines else 'it said nothing'}",
                hint=f"run it yourself: cargo run --manifest-path {queries / 'Cargo.toml'}",
                evidence="\n".join(lines),
            )
    if not written.is_file() or not written.stat().st_size:
        raise BuildFailed(f"the query project wrote no {written}")


def _run(
    words: list[str], instance: Instance, folder: Path, log: Callable[[str], None]
) -> tuple[int, list[str]]:
    job = BuildJob(context=folder, settings=instance.build, tag="", log=log)
    output = Output(job)
    code = run(words, job, output, os.environ, folder)
    return code, list(output.tail)
