"""Every builder this machine has, on a real engine. No image is pulled: the base is busybox."""

from __future__ import annotations

import io
import os
import random
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import docker
import pytest
from docker.errors import DockerException
from pydantic import SecretStr

from builders.base import Builder, BuildJob
from builders.buildx import BuildxBuilder
from builders.choose import ORDER, choose
from builders.cli import CliBuilder
from model.artifact import BuildSettings
from model.errors import (
    BuildFailed,
    ConfigurationError,
    NotFound,
    PlatformUnhealthy,
    Transient,
)
from tests.services.contexts import IGNORE_CASES, with_shell, write
from tests.services.need import missing

pytestmark = pytest.mark.engine
LABEL = "helix.test.builders"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        missing("engine", f"no engine answers: {error}", "run: make tools")
    yield client
    client.close()


@pytest.fixture(scope="module")
def run_id(engine: docker.DockerClient) -> Iterator[str]:
    """A name of this test run: every image made carries it, and goes with it."""
    name = uuid4().hex[:12]
    yield name
    for image in engine.images.list(filters={"label": f"{LABEL}={name}"}):
        with suppress(DockerException):
            engine.images.remove(str(image.id), force=True)


@pytest.fixture(params=ORDER, ids=lambda cls: cls.name)
def builder(request: pytest.FixtureRequest, engine: docker.DockerClient) -> Builder:
    found: Builder | None = request.param.probe()
    if found is None:
        pytest.skip(f"{request.param.name} is not on this machine")
    return found


Make = Callable[..., BuildJob]


@pytest.fixture
def job(tmp_path: Path, run_id: str) -> Make:
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def make(dockerfile: str = "", **more: object) -> BuildJob:
        context = with_shell(tmp_path / "context", dockerfile)
        given: dict[str, object] = {
            "context": context,
            "settings": BuildSettings(),
            "tag": f"helix-test-{run_id}:{uuid4().hex[:8]}",
            "labels": {LABEL: run_id},
            "scratch": scratch,
        }
        return BuildJob(**{**given, **more})  # type: ignore[arg-type]

    return make


def content(engine: docker.DockerClient, image: str, path: str) -> dict[str, bytes | None]:
    """The files of an image under a path; links have no content."""
    container = engine.containers.create(image, command=["-"])
    try:
        data = b"".join(container.get_archive(path)[0])
    finally:
        container.remove(force=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            member.name: file.read() if (file := tar.extractfile(member)) else None
            for member in tar
            if not member.isdir()
        }


def test_an_image_is_built_labelled_and_named(
    builder: Builder, job: Make, engine: docker.DockerClient, run_id: str
) -> None:
    lines: list[str] = []
    given = job(
        "ARG WHO=x\nRUN echo hello-$WHO\nCOPY Dockerfile /c\n",
        log=lines.append,
        settings=BuildSettings(args={"WHO": run_id}),
    )
    image = builder.build(given)
    found = engine.images.get(given.tag)
    assert found.id == image
    assert found.labels[LABEL] == run_id
    assert any(f"hello-{run_id}" in line for line in lines)
    assert not list(given.scratch.iterdir())  # type: ignore[union-attr]
    again = job("ARG WHO=x\nRUN echo hello-$WHO\nCOPY Dockerfile /c\n", settings=given.settings)
    assert builder.build(again) == image  # the cache was kept


def test_a_stage_is_chosen(builder: Builder, job: Make, engine: docker.DockerClient) -> None:
    given = job("ENV STAGE=1\nFROM scratch AS last\nCOPY busybox /b\n")
    text = (
        (given.context / "Dockerfile")
        .read_text()
        .replace("FROM scratch\n", "FROM scratch AS one\n", 1)
    )
    (given.context / "Dockerfile").write_text(text)
    job_one = BuildJob(
        given.context, BuildSettings(target="one"), given.tag, given.labels, scratch=given.scratch
    )
    image = engine.images.get(builder.build(job_one))
    assert "STAGE=1" in image.attrs["Config"]["Env"]


@pytest.mark.parametrize(
    ("dockerfile", "line", "said"),
    [
        ("RUN true\nRUN echo about-to-fail && \\\n  exit 3\n", 5, "about-to-fail"),
        ("COPY nothing-there /x\n", 4, "nothing-there"),
        ("FROBNICATE x\n", 4, "FROBNICATE"),
    ],
    ids=["command", "missing file", "syntax"],
)
def test_a_failed_build_names_the_line_and_shows_the_output(
    dockerfile: str, line: int, said: str, builder: Builder, job: Make
) -> None:
    given = job(dockerfile)
    with pytest.raises(BuildFailed, match=f"Dockerfile line {line} ") as caught:
        builder.build(given)
    assert said in str(caught.value)
    assert len(caught.value.evidence.splitlines()) <= 20
    assert not list(given.scratch.iterdir())  # type: ignore[union-attr]


def test_a_registry_that_does_not_answer_is_worth_another_attempt(
    builder: Builder, job: Make
) -> None:
    given = job()
    (given.context / "Dockerfile").write_text("FROM 127.0.0.1:1/nothing/here:1\n")
    with pytest.raises(Transient, match="127.0.0.1:1/nothing/here:1"):
        builder.build(given)


def test_a_base_image_that_does_not_exist_is_not_found(
    builder: Builder, job: Make, tmp_path: Path
) -> None:
    from tests.services.registry import plain_registry

    given = job()
    with plain_registry(tmp_path / "registry") as registry:
        (given.context / "Dockerfile").write_text(f"FROM {registry.host}/nothing:1\n")
        with pytest.raises(NotFound, match=f"{registry.host}/nothing:1") as caught:
            builder.build(given)
    assert caught.value.hint


def test_a_missing_dockerfile_is_said_so(builder: Builder, job: Make) -> None:
    with pytest.raises(ConfigurationError, match="there is no Nope"):
        builder.build(job(settings=BuildSettings(dockerfile="Nope")))


def test_a_cancelled_build_leaves_no_process(builder: Builder, job: Make) -> None:
    seconds = str(random.randint(10**6, 10**7))
    began = threading.Event()

    def beat() -> None:
        if _running(f"sleep {seconds}"):
            began.set()
        if began.is_set():
            raise KeyboardInterrupt

    given = job(f"RUN /bin/busybox sleep {seconds}\n", beat=beat)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        builder.build(given)
    assert time.monotonic() - started < 15
    deadline = time.monotonic() + 12  # the engine gives a command ten seconds to end
    while left := _running(f"sleep {seconds}") + _running(str(given.scratch)):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert not list(given.scratch.iterdir())  # type: ignore[union-attr]


def test_a_secret_is_used_and_never_shown(
    builder: Builder, job: Make, engine: docker.DockerClient
) -> None:
    if "secret" not in builder.features:
        pytest.skip(f"{builder.name} has no build secrets")
    secret, lines, commands = f"very-{uuid4().hex}", [], set()
    nonce = uuid4().hex

    def beat() -> None:
        commands.update(_running(""))

    given = job(
        f"RUN --mount=type=secret,id=key echo {nonce} && /bin/busybox cat /run/secrets/key && "
        "/bin/busybox wc -c < /run/secrets/key && /bin/busybox sleep 1\n",
        secrets={"key": SecretStr(secret)},
        log=lines.append,
        beat=beat,
    )
    image = builder.build(given)
    assert any(line.endswith(str(len(secret))) for line in lines)  # it was there
    assert any("***" in line for line in lines)
    shown = "\n".join([*lines, *commands, str(engine.images.get(image).history())])
    assert secret not in shown
    assert not list(given.scratch.iterdir())  # type: ignore[union-attr]


def test_a_frontend_that_cannot_be_fetched_is_done_without(builder: Builder, job: Make) -> None:
    given = job("RUN true\n")
    path = given.context / "Dockerfile"
    path.write_text(f"# syntax=127.0.0.1:1/docker/dockerfile:1.7\n{path.read_text()}")
    builder.build(given)


def test_caches_can_be_mounted(builder: Builder, job: Make) -> None:
    given = job("RUN --mount=type=cache,target=/cache echo x > /cache/y\n")
    if "mount" in builder.features:
        builder.build(given)
    else:
        with pytest.raises(BuildFailed, match="mount"):
            builder.build(given)


def test_a_build_reaches_the_engine_that_docker_host_names(
    builder: Builder, job: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(PlatformUnhealthy) as caught:
        builder.build(job("RUN true\n"))
    assert caught.value.hint


def test_a_private_base_image_is_fetched_with_the_logins_given(
    builder: Builder, job: Make, engine: docker.DockerClient, tmp_path: Path
) -> None:
    from tests.services.registry import PASSWORD, USERNAME, secured_registry

    with secured_registry(tmp_path / "registry") as registry:
        base = builder.build(job("ENV BASE=1\n"))
        name = f"{registry.host}/private/{uuid4().hex[:8]}"
        engine.images.get(base).tag(name, "1")
        auth = {"username": USERNAME, "password": PASSWORD}
        for event in engine.api.push(name, "1", auth_config=auth, stream=True, decode=True):
            assert "error" not in event, event
        engine.images.remove(f"{name}:1")
        given = job(logins={registry.host: (USERNAME, SecretStr(PASSWORD))})
        (given.context / "Dockerfile").write_text(f"FROM {name}:1\nENV OWN=1\n")
        try:
            image = engine.images.get(builder.build(given))
        finally:
            for tagged in engine.images.list(name):
                for tag in tagged.tags:
                    engine.images.remove(tag)
    assert {"BASE=1", "OWN=1"} <= set(image.attrs["Config"]["Env"])
    assert PASSWORD not in str(image.attrs)
    assert not list(given.scratch.iterdir())  # type: ignore[union-attr]


def test_our_ignore_rules_are_those_of_a_real_docker(
    engine: docker.DockerClient, job: Make, tmp_path: Path, run_id: str
) -> None:
    best = next((b for cls in (BuildxBuilder, CliBuilder) if (b := cls.probe())), None)
    if best is None:
        pytest.skip("no docker client that reads .dockerignore")
    wrong = []
    for number, (text, files, kept) in enumerate(IGNORE_CASES):
        context = write(tmp_path / str(number), dict.fromkeys(files, "x"))
        (context / "Dockerfile").write_text(f"FROM scratch\nLABEL {LABEL}={run_id}\nCOPY . /c/\n")
        (context / ".dockerignore").write_text(text)
        image = best.build(
            BuildJob(context, BuildSettings(), f"helix-test-{run_id}:ignore{number}")
        )
        found = {name.removeprefix("c/") for name in content(engine, image, "/c")}
        if found - {"Dockerfile", ".dockerignore"} != set(kept):
            wrong.append((text, sorted(found), kept))
    assert not wrong


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("FROM a\nRUN <<EOF\nx\nEOF\n", BuildSettings(), "here-document"),
        ("FROM a\nCOPY --link a b\n", BuildSettings(), "--link"),
    ],
)
def test_what_the_best_builder_lacks_is_refused(
    text: str, settings: BuildSettings, said: str, engine: docker.DockerClient
) -> None:
    if int(str(engine.version()["Version"]).split(".")[0]) >= 23:
        pytest.skip("this engine knows it all")
    with pytest.raises(ConfigurationError, match=said) as caught:
        choose(settings, text)
    assert "syntax=docker/dockerfile" in caught.value.hint
    choose(settings, f"# syntax=docker/dockerfile:1\n{text}")


def test_the_best_builder_comes_first(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Take away one tool after the other."""
    from builders import buildx, cli
    from builders import choose as module

    module.available.cache_clear()
    first = {cls.name for cls in ORDER if cls.probe()}
    assert choose(BuildSettings(), "FROM a\n").name == next(
        c.name for c in ORDER if c.name in first
    )
    monkeypatch.setattr(buildx, "find_buildx", lambda: None)
    monkeypatch.setattr(cli, "find_cli", lambda: None)
    module.available.cache_clear()
    assert choose(BuildSettings(), "FROM a\nRUN --mount=type=cache x\n").name == "engine"
    with pytest.raises(ConfigurationError, match="secret"):
        choose(BuildSettings(secrets={"k": "env:K"}), "FROM a\n")
    module.available.cache_clear()


def test_no_engine_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(PlatformUnhealthy, match="no engine answers") as caught:
        choose(BuildSettings(), "FROM a\n")
    assert "DOCKER_HOST" in caught.value.hint


def test_buildx_is_found_in_our_own_cache(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "helix-deploy/bin/buildx"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr("builders.buildx._PLUGIN_FOLDERS", ())
    found = BuildxBuilder.probe()
    assert found is not None
    assert found.command[0] == str(path)


def _running(text: str) -> list[str]:
    """The command lines of other processes that contain a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                if text in line:
                    found.append(line)
    return found
