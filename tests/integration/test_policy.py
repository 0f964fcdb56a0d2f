"""Policies with the real cosign and the real osv-scanner, a real engine, and a real registry."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import docker
import pytest
from docker.errors import DockerException
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.policy import PolicyActivities, check_settings
from activities.services import Services
from model.artifact import Artifact, BuildSettings, Image
from model.deployment import DeployRequest, Origin
from model.errors import ConfigurationError, PolicyViolation
from model.instance import Instance, Target
from model.policy import Policy, Severity
from model.steps import Checked, PolicyInput
from registries.oci import OciRegistry
from tests.services.images import put_image
from tests.services.need import missing
from tests.services.registry import TestRegistry, secured_registry
from tests.services.signing import Signer, install, tools, vulnerability_database

pytestmark = [pytest.mark.registry]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    with secured_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory, registry: TestRegistry) -> Signer:
    return Signer(tmp_path_factory.mktemp("ada") / "keys", registry)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory, registry: TestRegistry) -> Signer:
    return Signer(tmp_path_factory.mktemp("eve") / "keys", registry)


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tools()}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-logins"))


class World:
    """One worker, and images of one repository."""

    def __init__(self, folder: Path, registry: TestRegistry) -> None:
        self.registry = registry
        self.target = registry.target(f"shop-{uuid4().hex[:8]}")
        self.services = Services(
            store=cast(Any, None),
            ledger=cast(Any, None),
            queue="test",
            logs_dir=folder,
            scratch_dir=folder,
            secret=lambda instance, reference: SecretStr(registry.password),
        )

    def push(self) -> Image:
        """A new image in the registry."""
        opened = OciRegistry(self.target, self.registry.context)
        try:
            digest = put_image(opened.api, "v1", os.urandom(8))
            return Image(repository=opened.repository, digest=digest)
        finally:
            opened.close()

    def instance(self, policy: Policy, **changes: Any) -> Instance:
        found = Instance(
            project="shop",
            name="prod",
            target=Target(kind="docker"),
            registry=self.target,
            policy=policy,
        )
        return found.model_copy(update=changes)

    def check(
        self, image: Image, policy: Policy, promoted: Image | None = None, **changes: Any
    ) -> tuple[str, ...]:
        """What the activity finds."""
        request = DeployRequest(instance=self.instance(policy, **changes))
        if promoted is not None:
            there = {
                "artifact": Artifact(image=promoted),
                "origin": Origin(instance=self.instance(Policy()), release=1),
            }
            request = request.model_copy(update=there)
        given = PolicyInput(deployment="d-1", request=request, artifact=Artifact(image=image))
        found = ActivityEnvironment().run(PolicyActivities(self.services).check_policy, given)
        assert isinstance(found, Checked)
        return found.notes

    def refusal(self, image: Image, policy: Policy, **changes: Any) -> ApplicationError:
        with pytest.raises(ApplicationError) as caught:
            self.check(image, policy, **changes)
        assert self.registry.password not in str(caught.value)
        return caught.value


@pytest.fixture
def world(tmp_path: Path, registry: TestRegistry) -> World:
    return World(tmp_path, registry)


def signed_by(*signers: Signer, **more: Any) -> Policy:
    return Policy(signed_by=tuple(one.public_key.read_text() for one in signers), **more)


def test_a_signed_image_may_run_and_any_other_may_not(
    world: World, signer: Signer, stranger: Signer
) -> None:
    image = world.push()
    refused = world.refusal(image, signed_by(signer))
    assert refused.type == "PolicyViolation"
    assert "no signatures found" in str(refused) and "cosign sign" in str(refused)
    stranger.sign(image.reference)
    assert world.refusal(image, signed_by(signer)).type == "PolicyViolation"
    signer.sign(image.reference)
    [note] = world.check(image, signed_by(signer))
    assert note.startswith("signed by the key sha256:")
    other = world.push()
    assert world.refusal(other, signed_by(signer)).type == "PolicyViolation"


def test_one_of_several_keys_is_enough(world: World, signer: Signer, stranger: Signer) -> None:
    image = world.push()
    signer.sign(image.reference)
    assert world.check(image, signed_by(stranger, signer))


def test_a_prebuilt_image_is_signed_where_it_comes_from(world: World, signer: Signer) -> None:
    image = world.push()
    signer.sign(image.reference)
    copied = image.model_copy(update={"repository": f"{world.registry.host}/elsewhere"})
    build = BuildSettings(kind="image", image=f"{image.repository}:v1")
    assert world.check(copied, signed_by(signer), build=build)
    assert world.check(copied, signed_by(signer), promoted=image), "so is one that was promoted"
    unsigned = world.push().model_copy(update={"repository": copied.repository})
    assert world.refusal(unsigned, signed_by(signer), build=build).type == "PolicyViolation"


def test_an_sbom_must_be_attached_and_signed_where_keys_are_named(
    world: World, signer: Signer, stranger: Signer
) -> None:
    image = world.push()
    signer.sign(image.reference)
    assert "no SBOM attached" in str(world.refusal(image, Policy(sbom=True)))
    stranger.attach_sbom(image.reference)
    assert world.check(image, Policy(sbom=True)) == ("CycloneDX SBOM attached",)
    assert "that the policy trusts" in str(world.refusal(image, signed_by(signer, sbom=True)))
    signer.attach_sbom(image.reference)
    notes = world.check(image, signed_by(signer, sbom=True))
    assert len(notes) == 2 and "CycloneDX SBOM attached, signed by the key" in notes[1]


def test_a_registry_that_does_not_answer_is_no_verdict(tmp_path: Path, signer: Signer) -> None:
    with secured_registry(tmp_path / "r") as registry:
        world = World(tmp_path, registry)
        image = world.push()
        wrong = World(tmp_path, registry)
        wrong.services.secret = lambda instance, reference: SecretStr("canary-wrong")
        refused = wrong.refusal(image, signed_by(signer))
        assert refused.type == "PermissionDenied" and "canary" not in str(refused)
        registry.stop()
        assert world.refusal(image, signed_by(signer)).type == "Transient"
        assert world.refusal(image, Policy(sbom=True)).type == "Transient"


def test_credentials_stay_off_the_command_line_and_leave_no_file(
    world: World, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "cosign").write_text(
        f'#!/bin/sh\necho "$@" >> {seen}\nls -l "$DOCKER_CONFIG" >> {seen}\n'
        f'echo "$DOCKER_CONFIG" > {seen}.folder\n'
        f'cat "$DOCKER_CONFIG/config.json" > {seen}.config\n'
    )
    (fake / "cosign").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}{os.pathsep}{os.environ['PATH']}")
    world.check(world.push(), signed_by(signer))
    text = seen.read_text()
    assert world.registry.password not in text and "-rw-------" in text
    config = json.loads(Path(f"{seen}.config").read_text())
    found = base64.b64decode(config["auths"][world.registry.host]["auth"]).decode()
    assert found == f"{world.registry.username}:{world.registry.password}"
    assert not Path(Path(f"{seen}.folder").read_text().strip()).exists()


def test_a_missing_tool_is_said_before_anything_is_built(
    world: World, signer: Signer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for policy, program in (
        (signed_by(signer), "cosign"),
        (Policy(sbom=True), "cosign"),
        (Policy(max_severity=Severity.HIGH), "osv-scanner"),
    ):
        with pytest.raises(ConfigurationError, match=f"needs {program}.*go install"):
            check_settings(world.instance(policy), world.services)
    check_settings(world.instance(Policy()), world.services)


def test_what_the_settings_say_is_refused_at_once(world: World) -> None:
    policy = Policy(registries=("ghcr.io",), approval=True)
    with pytest.raises(PolicyViolation) as caught:
        check_settings(world.instance(policy), world.services)
    assert "does not allow images in 127.0.0.1" in str(caught.value)
    assert "wants an approval" in str(caught.value)
    here = Policy(registries=(world.registry.host,))
    check_settings(world.instance(here), world.services)


# --- vulnerabilities -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        missing("engine", f"no engine answers: {error}", "run: make tools")
    yield client
    client.close()


@pytest.fixture
def scanned(
    engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Makes images with packages, and a scanner that knows what is wrong with them."""
    database = vulnerability_database(tmp_path / "database")
    monkeypatch.setenv("OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY", str(database))
    made: list[str] = []

    def make(**packages: str) -> Image:
        context = tmp_path / uuid4().hex
        context.mkdir()
        (context / "empty").touch()
        lines = install(context, packages)
        (context / "Dockerfile").write_text(f"FROM scratch\nCOPY empty /empty\n{lines}")
        made.append(f"policy-{context.name}")
        image, _ = engine.images.build(path=str(context), rm=True, tag=made[-1])
        return Image(repository="shop", id=str(image.id))

    yield make
    for one in made:
        engine.images.remove(one)


def at_most(severity: Severity, *ignore: str) -> Policy:
    return Policy(max_severity=severity, ignore=ignore)


@pytest.mark.engine
def test_a_vulnerability_that_is_too_bad_keeps_a_release_away(world: World, scanned: Any) -> None:
    image = scanned(leftpad="1.0", rightpad="1.0", nopad="1.0")
    refused = world.refusal(image, at_most(Severity.HIGH))
    assert refused.type == "PolicyViolation"
    assert "critical TEST-2026-0001 in leftpad 1.0" in str(refused)
    assert "TEST-2026-0002" not in str(refused)
    assert 'ignore = ["TEST-2026-0001"]' in str(refused)
    assert "2 vulnerabilities" in str(world.refusal(image, at_most(Severity.LOW)))
    assert "3 vulnerabilities" in str(world.refusal(image, at_most(Severity.NONE)))
    [note] = world.check(image, at_most(Severity.CRITICAL))
    assert "3 known vulnerabilities, the worst: critical TEST-2026-0001" in note
    [note] = world.check(image, at_most(Severity.MEDIUM, "TEST-2026-0001"))
    assert "2 known vulnerabilities, the worst: medium TEST-2026-0002" in note


@pytest.mark.engine
def test_an_image_with_nothing_wrong_may_run(world: World, scanned: Any) -> None:
    assert world.check(scanned(leftpad="2.0"), at_most(Severity.NONE)) == (
        "scanned: no known vulnerability",
    )
    assert world.check(scanned(), at_most(Severity.NONE)) == (
        "scanned: no package that the scanner knows",
    )


@pytest.mark.engine
def test_a_database_that_lacks_what_is_needed_is_no_clean_bill(
    world: World, scanned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigurationError, match="download-offline-databases"):
        check_settings(world.instance(at_most(Severity.HIGH)), world.services)
    (tmp_path / "osv-scanner").mkdir()
    refused = world.refusal(scanned(leftpad="1.0"), at_most(Severity.HIGH))
    assert refused.type == "ConfigurationError" and "PyPI" in str(refused)
