"""`helix push` of a database whose data is in a bucket: made, opened and kept by the pipeline.

The clouds are stand-ins, and so is the database: it knows nothing but its container's environment,
and writes and reads objects by the SDK.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.contract.bucket_suite import Storage
from tests.contract.test_buckets import S3, Gcs
from tests.e2e.kind_suite import KindProject, Stand, machine_for, make_kind_project, toml_values
from tests.e2e.machine import Machine
from tests.e2e.test_clouds import Aws, Gcp
from tests.fakes.aws import AwsServer
from tests.fakes.aws_images import aws_with_images
from tests.fakes.gcp import FakeGcp
from tests.fakes.gcp_images import gcp_with_images
from tests.fakes.gcs import FakeGcs, fake_gcs
from tests.services.registry import TestRegistry

pytestmark = [pytest.mark.engine, pytest.mark.registry]

KEY = {"STORAGE_KEY_ID": "GOOG1ETEST", "STORAGE_KEY": "canary-storage-key"}
NAMED = {"access_key": "env:STORAGE_KEY_ID", "secret_key": "env:STORAGE_KEY"}
"""How helix.toml names that key."""


class BucketStand(Stand):
    """A cloud whose instance keeps its data in a bucket of its own name."""

    opened_by: dict[str, object] = NAMED
    """What [deploy.dev.object_storage] says of the release's access."""

    @abstractmethod
    def storage(self) -> Storage:
        """The cloud's object storage."""

    @abstractmethod
    def read(self, project: str) -> list[str]:
        """The releases whose objects the running database read as it began."""

    def bucket(self, project: str) -> Storage:
        """The project's bucket, which may not be there."""
        found = self.storage()
        found.name = f"{project}-data"
        return found

    def table(self, project: str) -> str:
        """The object storage's table."""
        values = {"bucket": f"{project}-data", "prefix": "shop/", **self.opened_by}
        return f"\n[deploy.dev.object_storage]\n{toml_values(**values)}\n"


class AwsKeys(Aws, BucketStand):
    """S3, opened with a key."""

    env = {**Aws.env, **KEY}

    def storage(self) -> Storage:
        return S3(self.aws)

    def tables(self, project: str, volume: bool) -> str:
        return super().tables(project, volume) + self.table(project)

    def read(self, project: str) -> list[str]:
        ecs = self.aws.client("ecs")
        arns = ecs.list_tasks(cluster="main", serviceName=f"helix-{project}-dev")["taskArns"]
        (task,) = ecs.describe_tasks(cluster="main", tasks=arns)["tasks"]
        place = task["attachments"][0]["details"][0]["value"]
        found: list[str] = httpx.get(f"http://{place}:8080/data", timeout=5).json()
        return found


class AwsRole(AwsKeys):
    """S3, opened with the task's role, which is given what it needs."""

    opened_by = {"grant": True}

    def __init__(self, aws: AwsServer, images: TestRegistry) -> None:
        super().__init__(aws, images)
        self.iam = aws.client("iam")
        role = self.iam.create_role(RoleName="task", AssumeRolePolicyDocument="{}")["Role"]
        self.role = role["Arn"]

    def tables(self, project: str, volume: bool) -> str:
        head = "[cloud.dev.aws]\n"
        more = f'{head}task_role = "{self.role}"\n'
        return super().tables(project, volume).replace(head, more)

    def remains(self, project: str) -> list[str]:
        policies = self.iam.list_role_policies(RoleName="task")["PolicyNames"]
        return [*super().remains(project), *(one for one in policies if project in one)]


class GcpKeys(Gcp, BucketStand):
    """Cloud Storage, opened by S3's API with an HMAC key."""

    def __init__(
        self, cloud: FakeGcp, images: TestRegistry, folder: Path, storage: FakeGcs
    ) -> None:
        super().__init__(cloud, images, folder)
        self.gcs = storage
        self.gcs.hmac = {KEY["STORAGE_KEY_ID"]: KEY["STORAGE_KEY"]}
        cloud.run.storage = storage.url
        self.env = {**self.env, **KEY, "STORAGE_EMULATOR_HOST": storage.url}

    def storage(self) -> Storage:
        return Gcs(self.gcs)

    def tables(self, project: str, volume: bool) -> str:
        return super().tables(project, volume) + self.table(project)

    def read(self, project: str) -> list[str]:
        answer = httpx.get(f"{self.cloud.web.address}/run/helix-{project}-dev/", timeout=5)
        return str(answer.json()["data"]).split(",")


@contextmanager
def stand_in(kind: str, folder: Path) -> Iterator[BucketStand]:
    """A cloud."""
    if kind == "gcp":
        with gcp_with_images(folder) as (cloud, images), fake_gcs() as gcs:
            yield GcpKeys(cloud, images, folder, gcs)
        return
    with aws_with_images(folder) as (aws, images):
        yield (AwsRole if kind == "aws, by its role" else AwsKeys)(aws, images)


@pytest.fixture(scope="module", params=["aws, by its role", "aws, by a key", "gcp"])
def stand(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BucketStand]:
    with stand_in(request.param, tmp_path_factory.mktemp("cloud")) as found:
        yield found


@pytest.fixture(scope="module")
def machine(stand: BucketStand) -> Iterator[Machine]:
    with machine_for(stand) as found:
        yield found


@pytest.fixture
def project(machine: Machine, stand: BucketStand) -> Iterator[KindProject]:
    found = make_kind_project(machine, stand)
    yield found
    found.helix("destroy", "dev", "--data", "--yes", expect=None)


def objects(*releases: str) -> list[str]:
    """The keys of what these releases wrote."""
    return [f"shop/releases/{one}" for one in releases]


def test_the_bucket_is_made_opened_kept_and_removed_when_told_to(
    project: KindProject, stand: BucketStand
) -> None:
    bucket = stand.bucket(project.name)
    project.behave("1")
    plan = project.helix("plan", "dev", "--json", expect=10).document
    assert plan["changed"] is True and not bucket.exists(), "a plan makes nothing"

    project.push()
    assert bucket.is_protected()
    assert project.serves() == ["1"] and stand.read(project.name) == ["1"]
    assert bucket.keys() == objects("1")

    project.behave("2")
    project.push()
    assert project.serves() == ["2"] and stand.read(project.name) == ["1", "2"]

    project.helix("destroy", "dev", "--yes")
    assert project.serves() == [] and bucket.keys() == objects("1", "2")

    project.behave("3")
    said = project.push().text
    assert stand.read(project.name) == ["1", "2", "3"], "a later life finds the data"
    said += project.helix("history", "dev", "--json").out + project.helix("logs", "dev").text
    handed_over = project.machine.home / "state" / "env"  # the worker's, of mode 0600
    files = [one for one in project.machine.home.rglob("*") if one.is_file()]
    files = [one for one in files if handed_over not in one.parents]
    kept = said.encode() + b"".join(one.read_bytes() for one in files)
    assert KEY["STORAGE_KEY"].encode() not in kept, "no key is shown or recorded"

    for _ in range(2):
        project.helix("destroy", "dev", "--yes", "--data")
        assert not bucket.exists()
    assert project.remains() == []


def test_somebody_elses_bucket_is_used_and_never_removed(
    project: KindProject, stand: BucketStand
) -> None:
    bucket = stand.bucket(project.name)
    bucket.make()
    bucket.put("invoices/1")
    project.behave("1")
    project.push()
    assert stand.read(project.name) == ["1"] and not bucket.is_protected()

    told = project.helix("destroy", "dev", "--yes", "--data", expect=2)
    assert "its data stays" in told.text and "shop/" in told.text
    assert project.serves() == []
    assert bucket.keys() == ["invoices/1", *objects("1")]
