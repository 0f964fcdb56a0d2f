"""Makes the build context of a HelixDB v2 project, with the `helix` command of HelixDB itself.

That command compiles the project's `.hx` files and writes `.helix/<instance>`: a Dockerfile, the
engine's source and the compiled queries. Our own command is called helix as well, so it is told
apart by what it says of itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from builders.base import BuildJob
from builders.command import run
from builders.output import Output
from model.errors import BuildFailed, ConfigurationError
from model.instance import Instance

SETTING = "HELIX_RUST_CLI"
"""The environment variable that names HelixDB's command where it is not found by itself."""

_OURS = "helix-deploy"
_VERSION = re.compile(r"^helix\S*(?:\s+\S+)?\s+v?\d+\.\d+", re.IGNORECASE)
_PLACE = re.compile(r"(?:-->\s*|\b)([\w./-]+\.hx):(\d+)(?::(\d+))?")
_NOISE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def find_helix() -> str | None:
    """The path of HelixDB's own `helix`, or None.

    Raises:
        ConfigurationError: HELIX_RUST_CLI names something else.
    """
    if named := os.environ.get(SETTING):
        if not _is_theirs(named):
            raise ConfigurationError(
                f"{SETTING} names {named}, which is not HelixDB's helix command",
                hint=f"correct it, or unset {SETTING}",
            )
        return named
    return next((path for path in _candidates() if _is_theirs(path)), None)


def prepare_context(
    instance: Instance, project_dir: Path, log: Callable[[str], None] = lambda line: None
) -> Path:
    """Compile the project, and generate the context its image is built from.

    May be repeated: the command makes the folder anew each time.

    Args:
        instance: the name in helix.toml is what is built.
        project_dir: the folder with helix.toml.
        log: takes each line the command says.

    Returns:
        The context, to be made a source of: `.helix/<instance>`.

    Raises:
        ConfigurationError: HelixDB's command is not installed, or it writes no Dockerfile for this
            kind of instance.
        BuildFailed: a query does not compile; the message has its file and line.
    """
    command = find_helix()
    if command is None:
        raise ConfigurationError(
            f"{instance.name} is made of .hx files, and the helix command of HelixDB, which "
            "compiles them, is not installed",
            hint=f"install it from https://docs.helix-db.com, or name it in {SETTING}",
        )
    job = BuildJob(context=project_dir, settings=instance.build, tag="", log=log)
    output = Output(job)
    code = run([command, "build", instance.name], job, output, os.environ, project_dir)
    context = project_dir / ".helix" / instance.name
    if code != 0:
        raise named_failure(list(output.tail), code, "helix build")
    if not (context / instance.build.dockerfile).is_file():
        raise ConfigurationError(
            f"helix build {instance.name} wrote no Dockerfile to {context}",
            hint="HelixDB's command does so for local and Fly instances only: "
            f'build a local one, and set context = ".helix/<it>" in [deploy.{instance.name}.build]',
        )
    return context


def named_failure(lines: list[str], code: int, what: str) -> BuildFailed:
    """The error that HelixDB's command told of, with the place in the `.hx` file if it named one.

    Args:
        lines: the last it said.
        what: which command it was.
    """
    lines = [_NOISE.sub("", line) for line in lines]
    for i, line in enumerate(lines):
        if place := _PLACE.search(line):
            # The diagnostic is the line itself, or, in front of an arrow, the line above it.
            above = lines[i - 1].strip() if i and "-->" in line else line.strip()
            where = ":".join(part for part in place.groups() if part)
            return BuildFailed(
                f"{where} does not compile: {above}",
                hint="correct the query, then push again",
                evidence="\n".join(lines),
            )
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return BuildFailed(f"{what} ended with {code}: {last}", evidence="\n".join(lines))


def _candidates() -> Iterator[str]:
    folders = [*os.environ.get("PATH", "").split(os.pathsep), str(Path.home() / ".local" / "bin")]
    for folder in dict.fromkeys(folders):
        if path := shutil.which("helix", path=folder or "."):
            yield path


def _is_theirs(path: str) -> bool:
    """Whether a command is HelixDB's. A Python script is ours, and is not even started."""
    try:
        with open(path, "rb") as file:
            first = file.read(256).split(b"\n", 1)[0]
        if first.startswith(b"#!") and b"python" in first:
            return False
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return False
    return bool(_VERSION.match(said)) and _OURS not in said
