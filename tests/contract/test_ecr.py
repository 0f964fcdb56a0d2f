"""The `ecr` kind: moto's server for ECR's own calls, a real registry for the images. And the kinds
that run nothing, of which it is one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from helix_deploy.testing import Driver
from model.artifact import Artifact, Image
from model.aws_errors import CODES, UNANSWERED, classify, translate
from model.errors import (
    Ambiguous,
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    NothingToRestore,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.instance import HealthCheck, Instance, RegistryTarget, Target
from model.platform import Phase, Release, Revision
from project.load import load_project
from project.resolve import resolve
from providers.base import Context
from providers.catalog import PROVIDERS
from providers.registry_only import RegistryOnlyProvider
from registries.base import RegistryContext
from registries.catalog import REGISTRIES
from registries.distribution import OCI_CONFIG, OCI_MANIFEST, Manifest
from registries.ecr import EcrRegistry
from registries.oci import OciRegistry
from tests.fakes.aws import REGION, AwsServer, Fault
from tests.fakes.aws_images import aws_with_images
from tests.services.registry import TestRegistry, open_registry

pytestmark = pytest.mark.registry

NAME = "helix-bookshop-image"


@dataclass
class Ecr:
    """ECR on loopback."""

    aws: AwsServer
    images: TestRegistry

    def settings(self, **changes: JsonValue) -> dict[str, JsonValue]:
        return {
            "repository_name": NAME,
            "region": REGION,
            "auth_type": "AwsCli",
            "endpoint_url": self.aws.url,
            "registry_host": self.images.host,
            **changes,
        }

    def registry(self, **changes: JsonValue) -> EcrRegistry:
        target = RegistryTarget(kind="ecr", settings=self.settings(**changes))
        return EcrRegistry(target, RegistryContext())

    def store(self, content: str) -> str:
        """Push an image without layers. Returns its digest."""
        registry = self.registry()
        registry.ensure_repository()
        config = json.dumps({"architecture": "amd64", "os": "linux", "it": content}).encode()
        digest = registry.api.upload_bytes(config)
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "size": len(config), "digest": digest},
                "layers": [],
            }
        ).encode()
        manifest = Manifest(OCI_MANIFEST, body, f"sha256:{hashlib.sha256(body).hexdigest()}")
        registry.api.put_manifest(manifest, f"src-{content}")
        return manifest.digest

    def instance(self, build_mode: str = "release") -> Instance:
        return Instance(
            project="bookshop",
            name="image",
            target=Target(kind="ecr", settings=self.settings()),
            registry=RegistryTarget(kind="ecr", settings=self.settings()),
            build_mode=build_mode,
            health_check=HealthCheck(kind="none"),
        )

    def provider(self, build_mode: str = "release") -> RegistryOnlyProvider:
        return RegistryOnlyProvider(self.instance(build_mode), Context(registry=self.registry))

    def driver(self) -> Driver:
        return Driver(lambda release: self.provider())

    def release(self, number: int, digest: str) -> Release:
        image = Image(repository=f"{self.images.host}/{NAME}", digest=digest)
        return Release(
            number=number,
            deployment=f"0000-{number}",
            instance=self.instance(),
            artifact=Artifact(image=image),
        )


@pytest.fixture
def ecr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ecr]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with aws_with_images(tmp_path) as (aws, images):
        yield Ecr(aws, images)


# --- the registry ---------------------------------------------------------------------------------


def test_repository_is_created_once_with_a_scan_of_every_image(ecr: Ecr) -> None:
    for _ in range(2):
        ecr.registry().ensure_repository()
    found = ecr.aws.client("ecr").describe_repositories()["repositories"]
    assert [one["repositoryName"] for one in found] == [NAME]
    assert found[0]["imageScanningConfiguration"] == {"scanOnPush": True}
    assert ecr.aws.calls.count("CreateRepository") == 1


def test_repository_that_another_caller_creates_meanwhile_is_fine(ecr: Ecr) -> None:
    ecr.aws.faults.append(Fault("CreateRepository", "RepositoryAlreadyExistsException"))
    ecr.registry().ensure_repository()


def test_token_is_for_the_real_registry(ecr: Ecr) -> None:
    identity = ecr.registry().authenticate()
    assert identity.who.startswith("arn:aws:") and identity.where == ecr.images.host
    assert identity.expires_at is not None and identity.expires_at > datetime.now(UTC)


def test_token_is_fetched_once_until_it_is_about_to_end(ecr: Ecr) -> None:
    registry = ecr.registry()
    registry.authenticate()
    registry.credentials()
    assert ecr.aws.calls.count("GetAuthorizationToken") == 1


def test_tag_moves_and_moves_back(ecr: Ecr) -> None:
    one, two = ecr.store("one"), ecr.store("two")
    registry = ecr.registry()
    assert registry.tag(one, "latest") is None
    assert registry.tag(two, "latest") == one
    registry.untag("latest", one)
    assert registry.find("latest") == one
    registry.untag("latest", None)
    assert registry.find("latest") is None
    assert registry.find("src-one") == one


def test_host_is_the_tables_else_that_of_the_account(ecr: Ecr) -> None:
    host = f"210987654321.dkr.ecr.{REGION}.amazonaws.com"
    named = ecr.registry(registry_host=None, registry_url=f"https://{host}/")
    assert named.repository == f"{host}/{NAME}"
    found = ecr.registry(registry_host=None)
    assert found.repository == f"123456789012.dkr.ecr.{REGION}.amazonaws.com/{NAME}"


def test_registry_table_of_deploy_names_everything_by_its_repository(ecr: Ecr) -> None:
    place = f"210987654321.dkr.ecr.{REGION}.amazonaws.com/team/shop"
    registry = EcrRegistry(RegistryTarget(kind="ecr", repository=place), RegistryContext())
    assert (registry.repository, registry.repository_name) == (place, "team/shop")
    assert registry._session.region_name == REGION


def test_regions_that_disagree_are_refused(ecr: Ecr) -> None:
    host = "210987654321.dkr.ecr.us-east-1.amazonaws.com"
    with pytest.raises(ConfigurationError, match="us-east-1, but region is eu-west-1"):
        ecr.registry(registry_host=None, registry_url=host)


def test_no_repository_at_all_is_refused(ecr: Ecr) -> None:
    with pytest.raises(ConfigurationError, match="names no repository"):
        ecr.registry(repository_name="")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("ExpiredTokenException", 400, AuthExpired),
        ("AccessDeniedException", 400, PermissionDenied),
        ("ThrottlingException", 400, Throttled),
        ("ServerException", 500, Transient),
    ],
)
def test_errors_are_translated(
    ecr: Ecr, code: str, status: int, expected: type[HelixError]
) -> None:
    ecr.aws.faults.append(Fault("GetAuthorizationToken", code, status))
    with pytest.raises(HelixError) as caught:
        ecr.registry().credentials()
    assert type(caught.value) is expected
    assert "ecr:GetAuthorizationToken" in caught.value.message


# --- the table of HelixDB's own command -----------------------------------------------------------


@pytest.mark.parametrize(("mode", "tag"), [("release", "latest"), ("dev", "dev")])
def test_table_as_helixdb_writes_it_works_unchanged(
    ecr: Ecr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, tag: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", ecr.aws.url)
    folder = tmp_path / "bookshop"
    (folder / "db").mkdir(parents=True)
    (folder / "db" / "schema.hx").write_text("N::Book {}\n")
    (folder / "helix.toml").write_text(
        f"""[project]
name = "bookshop"

[cloud.image.ecr]
repository_name = "{NAME}"
region = "{REGION}"
registry_url = "{ecr.images.host}"
auth_type = "AwsCli"
build_mode = "{mode}"
"""
    )
    instance = resolve(load_project(folder / "helix.toml"), "image")
    assert instance.registry is not None
    registry: Any = REGISTRIES.load(instance.registry.kind)(instance.registry, RegistryContext())
    registry.ensure_repository()
    digest = ecr.store("one")
    provider = PROVIDERS.load(instance.target.kind)(instance, Context(registry=lambda: registry))
    release = ecr.release(1, digest).model_copy(update={"instance": instance})
    provider.promote(provider.start(release, None))
    assert registry.find(tag) == digest
    assert provider.public_url() == f"{ecr.images.host}/{NAME}:{tag}"


# --- the push is the release ----------------------------------------------------------------------


def test_release_moves_the_tag_and_restore_moves_it_back(ecr: Ecr) -> None:
    one, two = ecr.store("one"), ecr.store("two")
    driver = ecr.driver()
    first = driver.deploy(ecr.release(1, one))
    assert first.error is None and first.previous is None
    second = ecr.release(2, two)
    result = driver.deploy(second)
    assert result.previous == first.revision
    assert ecr.registry().find("latest") == two
    assert driver.restore(second, first.revision) == first.revision
    assert ecr.registry().find("latest") == one
    assert driver.restore(second, first.revision) == first.revision


def test_current_is_the_previous_release_until_promote(ecr: Ecr) -> None:
    one, two = ecr.store("one"), ecr.store("two")
    ecr.driver().deploy(ecr.release(1, one))
    provider = ecr.provider()
    handle = provider.start(ecr.release(2, two), provider.current())
    assert provider.poll(handle).phase is Phase.RUNNING
    assert provider.current() == Revision(id=one, artifact=one)
    for _ in range(2):
        assert provider.promote(handle) == provider.current() == Revision(id=two, artifact=two)


def test_first_release_that_fails_leaves_no_tag(ecr: Ecr) -> None:
    one = ecr.store("one")
    ecr.driver().deploy(ecr.release(1, one))
    for _ in range(2):
        assert ecr.provider().restore("0000-1", None) is None
        assert ecr.registry().find("latest") is None
    assert ecr.registry().find(one) == one


def test_late_promote_is_refused(ecr: Ecr) -> None:
    one, two, three = (ecr.store(name) for name in ("one", "two", "three"))
    ecr.driver().deploy(ecr.release(1, one))
    late = ecr.provider().start(ecr.release(2, two), None)
    ecr.driver().deploy(ecr.release(3, three))
    with pytest.raises(Conflict, match="was moved"):
        ecr.provider().promote(late)
    assert ecr.registry().find("latest") == three


def test_image_that_is_not_there(ecr: Ecr) -> None:
    ecr.store("one")
    missing = f"sha256:{'0' * 64}"
    with pytest.raises(NotFound):
        ecr.provider().start(ecr.release(1, missing), None)
    with pytest.raises(NothingToRestore):
        ecr.provider().restore("0000-1", Revision(id=missing))
    handle = json.dumps({"digest": missing, "before": None})
    assert ecr.provider().poll(handle).phase is Phase.FAILED


def test_destroy_removes_the_tag_and_keeps_the_images(ecr: Ecr) -> None:
    one = ecr.store("one")
    ecr.driver().deploy(ecr.release(1, one))
    for _ in range(2):
        ecr.provider().destroy(data=True)
    assert ecr.provider().current() is None
    assert ecr.registry().find("src-one") == one


def test_nothing_runs(ecr: Ecr) -> None:
    provider = ecr.provider()
    assert provider.capabilities.runtime is False
    with pytest.raises(ConfigurationError, match="no logs"):
        provider.logs()
    nowhere = RegistryOnlyProvider(ecr.instance(), Context())
    with pytest.raises(ConfigurationError, match="names no registry"):
        nowhere.preflight()


def test_any_registry_will_do(ecr: Ecr, tmp_path: Path) -> None:
    with open_registry(tmp_path / "plain") as plain:
        registry = OciRegistry(plain.target("shop"), plain.context)
        config = registry.api.upload_bytes(b"{}")
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "size": 2, "digest": config},
                "layers": [],
            }
        ).encode()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        registry.api.put_manifest(Manifest(OCI_MANIFEST, body, digest), digest)
        provider = RegistryOnlyProvider(ecr.instance(), Context(registry=lambda: registry))
        provider.promote(provider.start(ecr.release(1, digest), None))
        assert registry.find("latest") == digest
        provider.restore("0000-1", None)
        assert registry.find("latest") is None


@pytest.mark.parametrize("kind", ["acr", "docker_hub", "ecr", "gar", "ghcr", "oci"])
def test_every_kind_of_registry_is_a_target(kind: str) -> None:
    assert PROVIDERS.load(kind) is RegistryOnlyProvider


@pytest.mark.parametrize("part", [0.01, 0.1])
def test_every_release_ends_well_while_calls_fail(ecr: Ecr, part: float) -> None:
    digests = [ecr.store(name) for name in ("one", "two", "three", "four")]
    ecr.aws.flaky = part
    for number, digest in enumerate(digests, 1):
        assert ecr.driver().deploy(ecr.release(number, digest)).error is None
    ecr.aws.flaky = 0
    assert ecr.registry().find("latest") == digests[-1]


# --- the table of errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"), [(code, cls) for cls, codes in CODES.items() for code in codes]
)
def test_every_code_means_its_class(code: str, expected: type[HelixError]) -> None:
    assert classify(code, status=400) is expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ECS was unable to assume the role that was provided", Transient),
        ("Unable to Start a service that is still Draining.", Busy),
        ("Creation of service was not idempotent.", Conflict),
        ("The number of services: limit exceeded", QuotaExceeded),
        ("TaskDefinition not found", NotFound),
    ],
)
def test_vague_codes_are_told_apart_by_their_message(
    message: str, expected: type[HelixError]
) -> None:
    assert classify("InvalidParameterException", message, 400) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(429, Throttled), (503, Transient), (403, PermissionDenied), (404, NotFound)],
)
def test_unknown_codes_go_by_their_status(status: int, expected: type[HelixError]) -> None:
    assert classify("SomethingNew", status=status) is expected


@pytest.mark.parametrize("name", sorted(UNANSWERED))
def test_a_write_without_an_answer_is_ambiguous_and_a_read_is_not(name: str) -> None:
    error = type(name, (Exception,), {})("lost")
    assert type(translate(error, "ecs", "CreateService")) is Ambiguous
    assert type(translate(error, "ecs", "DescribeServices")) is Transient


def test_the_permission_is_named_as_policies_have_it() -> None:
    error = Exception("no")
    error.response = {"Error": {"Code": "AccessDenied", "Message": "no"}}  # type: ignore[attr-defined]
    found = translate(error, "elbv2", "DescribeTargetGroups")
    assert "allow elasticloadbalancing:DescribeTargetGroups" in found.hint
