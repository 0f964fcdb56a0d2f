"""The `fly` and `ecr` tables that HelixDB's own command wrote drive our providers, unchanged, and
what that command ignored is what the platform gets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from helix_deploy.testing import Driver
from model.artifact import Artifact, Image
from model.errors import ConfigurationError
from model.fly import fly_app
from model.instance import Instance
from model.platform import Release
from project.load import load_project
from project.resolve import resolve
from providers import fly_app as fly_app_module
from providers.base import CloudProvider, Context
from providers.catalog import PROVIDERS
from registries.base import RegistryContext
from registries.catalog import REGISTRIES
from tests.fakes.aws_images import aws_with_images
from tests.fakes.fly import TOKEN, FakeFly, find_spec
from tests.services.images import put_image

DATA = Path(__file__).parent.parent / "data" / "helix_toml"
DIGESTS = [f"sha256:{digit * 64}" for digit in "ab"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with queries, as every project of those files has."""
    for folder in ("db", "src/queries"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "schema.hx").write_text("N::Book { title: String }\n")
    return tmp_path


def instance_of(project: Path, file: str, name: str) -> Instance:
    """An instance of one of the files, as it is."""
    shutil.copy(DATA / file, project / "helix.toml")
    return resolve(load_project(project / "helix.toml"), name)


def release(instance: Instance, number: int, digest: str, repository: str) -> Release:
    image = Image(repository=repository, digest=digest)
    return Release(
        number=number,
        deployment=f"0000-{number}",
        instance=instance,
        artifact=Artifact(image=image),
    )


@dataclass
class Machine:
    """What a fly table asks for."""

    file: str
    name: str
    guest: tuple[str, int, int]
    """Kind of processor, how many, MB."""
    volume: str
    size: int
    region: str = ""
    private: bool = False
    env: dict[str, str] = field(default_factory=dict)


FLY = (
    Machine("v2.0/A5.toml", "edge", ("shared", 8, 2048), "helix_bookshop_edge_data", 20, "ams"),
    Machine(
        "v2.1/B4.toml", "edge", ("performance", 8, 16384), "helix_bookshop_edge_data", 100, "ams",
        private=True,
    ),
    Machine("matrix/v04_fly.toml", "prod", ("performance", 4, 8192), "helix_shop_prod_data", 20),
    Machine(
        "matrix/v29_private_str_less.toml", "prod", ("performance", 4, 8192),
        "helix_shop_prod_data", 20, "ams", private=True,
    ),
    Machine(
        "matrix/v33_only_fly_db.toml", "prod", ("performance", 4, 8192), "helix_shop_prod_data", 20,
    ),
)  # fmt: skip


@pytest.fixture
def fly(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFly]:
    with FakeFly(spec=find_spec()) as fake:
        monkeypatch.setenv("FLY_FLAPS_BASE_URL", fake.address)
        monkeypatch.setenv("FLY_API_BASE_URL", fake.address)
        monkeypatch.setattr(fly_app_module, "READ_EVERY", 0.0)
        yield fake
        assert fake.violations == []


def token(reference: str) -> SecretStr:
    if reference != "env:FLY_API_TOKEN":
        raise ConfigurationError(f"{reference} leads nowhere")
    return SecretStr(TOKEN)


@pytest.mark.parametrize("wanted", FLY, ids=lambda one: one.file)
def test_a_fly_table_is_what_the_machine_gets(fly: FakeFly, project: Path, wanted: Machine) -> None:
    instance = instance_of(project, wanted.file, wanted.name)
    app = fly_app(instance.project, instance.name)
    assert instance.registry is not None
    assert instance.registry.repository == f"registry.fly.io/{app}"

    def opened(given: Release | None) -> CloudProvider:
        provider: CloudProvider = PROVIDERS.load("fly")(instance, Context(secret=token))
        return provider

    for number, digest in enumerate(DIGESTS, 1):
        given = release(instance, number, digest, instance.registry.repository)
        assert Driver(opened).deploy(given).error is None
    [machine] = fly.serving(app)
    kind, cpus, memory = wanted.guest
    config = machine["config"]
    assert config["guest"] == {"cpu_kind": kind, "cpus": cpus, "memory_mb": memory}
    assert config["image"].endswith(DIGESTS[-1])
    assert config["env"]["HELIX_DATA_DIR"] == config["mounts"][0]["path"] == "/data"
    assert machine["region"] == (wanted.region or "ams")
    [volume] = fly.apps[app]["volumes"].values()
    assert (volume["name"], volume["size_gb"]) == (wanted.volume, wanted.size)
    assert len(fly.data(app, wanted.volume)) == len(DIGESTS), "one volume for both releases"
    assert bool(fly.apps[app]["ips"]) is not wanted.private
    assert bool(config["services"]) is not wanted.private


@pytest.mark.registry
@pytest.mark.parametrize(
    ("file", "name", "repository", "region"),
    [
        ("v2.0/A5.toml", "image", "helix-bookshop-image", "us-east-1"),
        ("v2.1/B4.toml", "image", "helix-bookshop-image", "us-east-1"),
        ("matrix/v05_ecr.toml", "img", "helix-shop-img", "eu-west-1"),
    ],
)
def test_an_ecr_table_is_where_the_tag_moves(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    name: str,
    repository: str,
    region: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    (project / "aws").mkdir()
    with aws_with_images(project / "aws") as (aws, images):
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        instance = instance_of(project, file, name)
        assert instance.registry is not None
        # The one thing that cannot be had here is Amazon's own host for the images.
        here: dict[str, Any] = {**instance.registry.settings, "registry_host": images.host}
        target = instance.registry.model_copy(update={"settings": here})

        def registry() -> Any:
            return REGISTRIES.load("ecr")(target, RegistryContext())

        opened = registry()
        opened.ensure_repository()
        found = aws.client("ecr", region).describe_repositories()["repositories"]
        assert [one["repositoryName"] for one in found] == [repository]
        provider = PROVIDERS.load("ecr")(instance, Context(registry=registry))
        driver = Driver(lambda given: provider)
        for number, content in enumerate((b"one", b"two"), 1):
            digest = put_image(opened.api, f"src-{number}", content)
            given = release(instance, number, digest, opened.repository)
            assert driver.deploy(given).error is None
            assert opened.find("latest") == digest
        assert provider.public_url() == f"{images.host}/{repository}:latest"
