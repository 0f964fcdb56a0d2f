"""Runs a command-line builder: in a process group of its own, with a configuration of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from builders.base import Builder, BuildJob
from builders.dockerfile import Dockerfile
from builders.images import pull
from builders.output import Output, attended
from model.errors import BuildFailed, ConfigurationError, HelixError

_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL when a build is cancelled."""

_unreachable: set[str] = set()
"""Frontends that could not be fetched once: they are not waited for again by this process."""


class CommandBuilder(Builder):
    """A builder that is a command: buildx, or a docker CLI with BuildKit in it."""

    command: tuple[str, ...]
    """What the build's own arguments are appended to."""
    variables: Mapping[str, str]
    """What its environment needs beside this process's."""

    def build(self, job: BuildJob) -> str:
        """See `Builder.build`.

        A `# syntax=` line whose frontend cannot be fetched is left out, and the engine's own
        frontend takes its place; the log says so.
        """
        dockerfile = job.context / job.settings.dockerfile
        parsed = Dockerfile(_read(dockerfile))
        for base in parsed.bases(job.settings.args, job.settings.target):
            # BuildKit speaks plain HTTP to loopback, whatever the registry there speaks; the
            # engine finds out, and BuildKit then takes the image from it.
            if re.match(r"(127\.|localhost:|\[::1\])", base):
                pull(base, job.logins, Output(job).line, job.beat, platform=job.settings.platform)
        with tempfile.TemporaryDirectory(prefix="helix-build-", dir=job.scratch) as folder:
            scratch = Path(folder)
            file = dockerfile
            if parsed.syntax in _unreachable:
                file = _plain(parsed, dockerfile, scratch, job)
            try:
                return self._run(job, file, scratch)
            except HelixError as error:
                if file is not dockerfile or not _about_frontend(error, parsed.syntax):
                    raise
                _unreachable.add(parsed.syntax)
            return self._run(job, _plain(parsed, dockerfile, scratch, job), scratch)

    def _run(self, job: BuildJob, file: Path, scratch: Path) -> str:
        settings, image = job.settings, scratch / "image"
        command = [*self.command, "--progress=plain", "--iidfile", str(image)]
        command += ["--file", str(file), "--tag", job.tag]
        command += [f"--target={settings.target}"] if settings.target else []
        command += [f"--platform={settings.platform}"] if settings.platform else []
        for name, value in sorted(settings.args.items()):
            command += ["--build-arg", f"{name}={value}"]
        for name, value in sorted(job.labels.items()):
            command += ["--label", f"{name}={value}"]
        for number, (name, secret) in enumerate(sorted(job.secrets.items())):
            path = scratch / f"secret-{number}"
            _write(path, secret.get_secret_value())
            command += ["--secret", f"id={name},src={path}"]
        output = Output(job)
        with _configuration(job) as config:
            environment = {
                **{k: v for k, v in os.environ.items() if k not in ("BUILDX_BUILDER",)},
                "DOCKER_CONFIG": str(config),
                "BUILDX_CONFIG": str(config / "buildx"),
                "DOCKER_CLI_HINTS": "false",
                **self.variables,
            }
            code = run([*command, str(job.context)], job, output, environment)
        if code != 0:
            raise output.error()
        found = image.read_text().strip() if image.exists() else ""
        if not found:
            raise BuildFailed(
                f"{self.name} ended without naming an image", evidence="\n".join(output.tail)
            )
        return found


def run(
    command: Sequence[str],
    job: BuildJob,
    output: Output,
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> int:
    """Run a command to its end and return its exit code; each line goes to `output`.

    Whatever ends this early, a cancel above all, also ends the command and all its children: first
    SIGTERM, on which BuildKit stops its work, then SIGKILL.
    """
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigurationError(
            f"{command[0]} cannot be run: {error.strerror}", hint="see `helix doctor`"
        ) from None
    assert process.stdout is not None
    try:
        for line in attended(process.stdout, job.beat):
            output.line(line)
        return process.wait()
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process and everything it started; nothing happens if all are gone."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def _configuration(job: BuildJob) -> Iterator[Path]:
    """A DOCKER_CONFIG of mode 0700 for one build: this machine's own, with the job's logins."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    config: dict[str, object] = {}
    with suppress(OSError, ValueError):
        config = json.loads((own / "config.json").read_text())
    config.pop("plugins", None)
    helpers = {**_table(config.get("credHelpers"))}
    auths = {**_table(config.get("auths"))}
    for host, (user, password) in job.logins.items():
        helpers.pop(host, None)
        pair = f"{user}:{password.get_secret_value()}".encode()
        auths[host] = {"auth": b64encode(pair).decode()}
    config |= {"auths": auths, "credHelpers": helpers}
    if job.logins:
        config.pop("credsStore", None)  # it would be asked instead of `auths`
    with tempfile.TemporaryDirectory(prefix="helix-docker-", dir=job.scratch) as folder:
        for name in ("contexts", "cli-plugins", "ca.pem", "cert.pem", "key.pem"):
            if (own / name).exists():
                os.symlink((own / name).resolve(), Path(folder, name))
        _write(Path(folder, "config.json"), json.dumps(config))
        yield Path(folder)


def _about_frontend(error: HelixError, syntax: str) -> bool:
    """Whether a build ended because the frontend of its `# syntax=` line cannot be fetched."""
    repository = syntax.split("@")[0].rpartition("/")[2].split(":")[0]
    owner = syntax.rpartition("/")[0].rpartition("/")[2]
    return bool(syntax) and f"{owner}/{repository}" in error.message


def _table(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _plain(parsed: Dockerfile, dockerfile: Path, scratch: Path, job: BuildJob) -> Path:
    """The Dockerfile without its `# syntax=` line, and its own ignore file beside it."""
    job.log(f"the frontend {parsed.syntax} cannot be fetched: building with the engine's own")
    file = scratch / "Dockerfile"
    file.write_text(parsed.without_syntax, errors="surrogateescape")
    ignore = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    if ignore.exists():
        (scratch / "Dockerfile.dockerignore").write_text(_read(ignore))
    return file


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no {path.name} in the source",
            hint="create it, or set `dockerfile` to its path relative to the context",
        ) from None


def _write(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
