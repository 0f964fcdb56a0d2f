"""Every kind of registry at once: real registries, with the clouds' own APIs played before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue, SecretStr

from model.errors import ConfigurationError
from model.instance import RegistryTarget
from registries.base import Credentials
from registries.distribution import Distribution, Trust
from registries.reference import Reference
from tests.fakes.aws import PASSWORD as AWS_PASSWORD
from tests.fakes.aws import REGION
from tests.fakes.aws_images import aws_with_images, locked
from tests.fakes.azure import FakeAzure
from tests.fakes.azure_acr import USER as ACR_USER
from tests.fakes.azure_acr import acr_registry
from tests.fakes.gcp_images import gcp_with_images
from tests.services.certificates import Certificates
from tests.services.registry import PASSWORD, USERNAME, TestRegistry, token_registry

KINDS = ("acr", "docker_hub", "ecr", "gar", "ghcr", "oci")
SECRETS = {"env:REGISTRY_PASSWORD": PASSWORD}


@dataclass
class Store:
    """One kind of registry."""

    kind: str
    images: TestRegistry
    """Where the images really are."""
    settings: dict[str, JsonValue]
    place: str = ""
    """What stands before an image's name in `repository`."""
    path: str = ""
    """Where that is in the real registry."""
    who: tuple[str, str] = (USERNAME, PASSWORD)
    """Who may look."""
    environ: dict[str, str] = field(default_factory=dict)
    """What its SDK finds in the environment."""
    front: str = ""
    """Host and port that clients speak to, if that is not where the images are."""
    tls: Certificates | None = None
    """What the front speaks TLS with."""
    lock: Callable[[], AbstractContextManager[str]] | None = None
    """For a registry without accounts of ours: in this block it refuses everybody. Yields whom."""

    @property
    def host(self) -> str:
        """What clients speak to."""
        return self.front or self.images.host

    def target(self, name: str, host: str = "") -> RegistryTarget:
        """A repository here.

        Args:
            host: reach the images there instead.
        """
        settings = {**self.settings, **({"registry_host": host} if host else {})}
        if self.kind == "ecr":
            settings["repository_name"] = name
        repository = "" if self.kind == "ecr" else f"{self.place}{name}"
        return RegistryTarget(kind=self.kind, repository=repository, settings=settings)

    def look(self, name: str) -> Distribution:
        """The real registry's own view of a repository."""
        user, password = self.who
        credentials = Credentials(user, SecretStr(password))
        place = Reference.parse(f"{self.images.host}/{self.path}{name}")
        trust = Trust(ca=self.tls.ca if self.tls else None)
        return Distribution(place, lambda: credentials, trust)

    def digest(self, name: str, version: str) -> str | None:
        """What that says of a tag or digest."""
        with self.look(name) as api:
            return api.digest(version)


def secret(reference: str) -> SecretStr:
    """Resolves the references that the settings have."""
    if reference not in SECRETS:
        raise ConfigurationError(f"{reference} leads nowhere")
    return SecretStr(SECRETS[reference])


@contextmanager
def every_store(folder: Path) -> Iterator[dict[str, Store]]:
    """Run all of them; kind -> store."""
    (folder / "ecr").mkdir()
    with (
        token_registry(folder / "tokens") as images,
        aws_with_images(folder / "ecr") as (aws, ecr),
        gcp_with_images(folder / "gar") as (cloud, gar),
        FakeAzure(folder / "tls") as azure,
        acr_registry(folder / "acr", azure.certificates) as acr,
    ):
        assert acr.images is not None
        assert gar.tokens is not None
        gar.tokens.users[USERNAME] = PASSWORD
        account: dict[str, JsonValue] = {
            "username": USERNAME,
            "password": "env:REGISTRY_PASSWORD",
        }
        elsewhere: dict[str, JsonValue] = {**account, "registry_host": images.host}
        amazon: dict[str, JsonValue] = {
            "region": REGION,
            "auth_type": "AwsCli",
            "endpoint_url": aws.url,
            "registry_host": ecr.host,
        }
        google: dict[str, JsonValue] = {"endpoint": cloud.endpoint, "registry_host": gar.host}
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        file = {"GOOGLE_APPLICATION_CREDENTIALS": str(cloud.web.account_file(folder))}
        pkg = "europe-west1-docker.pkg.dev/acme/helix/"
        private: dict[str, JsonValue] = {"registry_host": acr.host}
        yield {
            "acr": Store(
                "acr",
                acr.images,
                private,
                f"{acr.login_server}/",
                who=(ACR_USER, acr.issue("the tests")),
                environ=azure.env,
                front=acr.host,
                tls=azure.certificates,
            ),
            "oci": Store("oci", images, account, f"{images.host}/team/", "team/"),
            "ghcr": Store("ghcr", images, elsewhere, "ghcr.io/acme/", "acme/"),
            "docker_hub": Store("docker_hub", images, elsewhere, "hub/", "hub/"),
            "ecr": Store(
                "ecr",
                ecr,
                amazon,
                who=("AWS", AWS_PASSWORD),
                environ=keys,
                lock=lambda: locked(folder / "ecr"),
            ),
            "gar": Store("gar", gar, google, pkg, "acme/helix/", environ=file),
        }
