"""`helix push` to Azure: the ARM API is a stand-in, the registry behind ACR's calls a real one, and
the images are really pulled from it and really run."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest

from registries.acr import USER
from tests.e2e.kind_suite import KindSuite, Stand, toml_values
from tests.fakes.azure import GROUP, IDENTITY, LOCATION, SUBSCRIPTION, FakeAzure
from tests.fakes.azure_acr import FakeAcr, acr_registry
from tests.fakes.azure_apps import App
from tests.fakes.azure_engine import engine_runner

pytestmark = [pytest.mark.engine, pytest.mark.registry]


class Azure(Stand):
    """Container Apps and a registry of ACR's, with a managed identity that pulls."""

    dockerfile = None
    first_words = "version {version} begins"
    silent_in = "deploy"
    """Azure itself waits for the port to open."""

    def __init__(self, cloud: FakeAzure, acr: FakeAcr) -> None:
        self.cloud, self.acr = cloud, acr
        self.env = cloud.env
        self._trust = ssl.create_default_context(cafile=str(cloud.certificates.ca))

    def tables(self, project: str, volume: bool) -> str:
        target = {
            "subscription_id": SUBSCRIPTION,
            "resource_group": GROUP,
            "location": LOCATION,
            "environment": "helix-shop",
            "identity": IDENTITY,
            "public": True,
            "port": 8080,
            "endpoint": self.cloud.address,
        }
        registry = {
            "kind": "acr",
            "repository": f"{self.acr.login_server}/{project}",
            "registry_host": self.acr.host,
        }
        return (
            f"[cloud.dev.azure]\n{toml_values(**target)}\n"
            f"[deploy.dev.registry]\n{toml_values(**registry)}"
        )

    def serves(self, project: str) -> list[str]:
        app = self.app(project)
        if app is None:
            return []
        answer = httpx.get(f"https://{app.front.host}/", verify=self._trust, timeout=10)
        return [answer.json()["version"]] if answer.status_code == 200 else []

    def remains(self, project: str) -> list[str]:
        with self.cloud.lock:
            return [one for one in self.cloud.apps.all if project in one]

    def app(self, project: str) -> App | None:
        """What the project made."""
        with self.cloud.lock:
            found = [app for app in self.cloud.apps.all.values() if project in app.name]
            return found[0] if found else None


class TestAzure(KindSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def stand(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
        folder = tmp_path_factory.mktemp("azure")
        images: list[FakeAcr] = []

        def login() -> dict[str, str]:
            return {"username": USER, "password": images[0].issue("the environment's puller")}

        runner = engine_runner(login)
        with (
            FakeAzure(folder / "tls", run=runner, seconds=0.2, tick=0.1) as cloud,
            acr_registry(folder, cloud.certificates) as acr,
        ):
            images.append(acr)
            yield Azure(cloud, acr)
            assert cloud.violations == []
