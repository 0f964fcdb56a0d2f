"""Buckets of S3 against moto's server, and of Cloud Storage against a stand-in of its JSON API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from requests import Session

from helix_deploy.testing import Killed
from model.errors import ConfigurationError, HelixError
from model.instance import Instance, ObjectStorage, Target
from providers.aws import AwsProvider
from providers.aws_api import AwsApi
from providers.base import Context
from providers.bucket import Bucket
from providers.gcp import GcpProvider
from tests.contract.bucket_suite import BucketSuite, Storage
from tests.fakes.aws import REGION, AwsServer, Fault, aws_server
from tests.fakes.gcs import FakeBucket, FakeGcs, fake_gcs

KEYS = {"AWS_ACCESS_KEY_ID": "env:KEY", "AWS_SECRET_ACCESS_KEY": "env:SECRET"}


def instance(target: Target, key: str, storage: ObjectStorage, **more: Any) -> Instance:
    project, name = key.split("/")
    return Instance(project=project, name=name, target=target, object_storage=storage, **more)


# --- S3 -------------------------------------------------------------------------------------------


class S3(Storage):
    def __init__(self, aws: AwsServer) -> None:
        self.aws = aws
        self.s3 = aws.client("s3")

    def bucket(
        self,
        *,
        key: str = "shop/prod",
        create: bool = True,
        role: str = "",
        grant: bool = False,
        secrets: dict[str, str] | None = None,
        notes: list[str] | None = None,
    ) -> Bucket:
        storage = ObjectStorage(bucket=self.name, region=REGION, create=create, grant=grant)
        settings: dict[str, Any] = {"region": REGION, "endpoint_url": self.aws.url}
        if role:
            settings["task_role"] = role
        target = Target(kind="aws", settings=settings)
        secrets = ({} if role else KEYS) if secrets is None else secrets
        one = instance(target, key, storage, secrets=secrets)
        found = AwsProvider(one, Context(notes=[] if notes is None else notes)).bucket()
        assert found is not None
        return found

    def exists(self) -> bool:
        return self.name in [one["Name"] for one in self.s3.list_buckets()["Buckets"]]

    def is_protected(self) -> bool:
        try:
            closed = self.s3.get_public_access_block(Bucket=self.name)
            rule = self.s3.get_bucket_encryption(Bucket=self.name)
        except self.s3.exceptions.ClientError:
            return False
        versioning = self.s3.get_bucket_versioning(Bucket=self.name)
        default = rule["ServerSideEncryptionConfiguration"]["Rules"][0]
        return (
            all(closed["PublicAccessBlockConfiguration"].values())
            and default["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
            and versioning["Status"] == "Enabled"
        )

    def make(self) -> None:
        place = {"LocationConstraint": REGION}
        self.s3.create_bucket(Bucket=self.name, CreateBucketConfiguration=place)

    def put(self, key: str) -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=b"x")

    def keys(self) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.name).get("Contents", ())
        return [one["Key"] for one in found]

    def take(self) -> None:
        self.aws.faults.append(Fault(f"HEAD /{self.name}", "403", 403))

    def lose_the_next_answer(self) -> None:
        self.aws.faults.append(Fault(f"PUT /{self.name}", happens=True))

    @contextmanager
    def kill_after(self, calls: int) -> Iterator[None]:
        left, call = calls, AwsApi.__call__

        def dying(api: AwsApi, service: str, operation: str, /, **arguments: Any) -> Any:
            nonlocal left
            answer = call(api, service, operation, **arguments)
            left -= operation.startswith(("create_", "put_", "delete_"))
            if left == 0:
                raise Killed
            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AwsApi, "__call__", dying)
            yield


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with aws_server() as aws:
        yield S3(aws)


class TestS3(BucketSuite):
    @pytest.fixture
    def storage(self, s3: S3) -> S3:
        return s3


def role(s3: S3, *statements: dict[str, Any]) -> str:
    """The ARN of a new task role with these statements."""
    iam = s3.aws.client("iam")
    arn = iam.create_role(RoleName="task", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    if statements:
        iam.put_role_policy(RoleName="task", PolicyName="own", PolicyDocument=json.dumps(document))
    return str(arn)


def test_a_release_without_role_and_keys_is_refused(s3: S3) -> None:
    with pytest.raises(ConfigurationError, match="nothing to open the bucket") as caught:
        s3.bucket(secrets={}).check()
    assert "task_role" in caught.value.hint and "access_key" in caught.value.hint


def test_a_role_that_lacks_something_is_refused_by_name(s3: S3) -> None:
    allowed = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    with pytest.raises(ConfigurationError, match="lacks s3:PutObject, s3:DeleteObject") as caught:
        s3.bucket(role=role(s3, allowed)).check()
    assert "grant = true" in caught.value.hint


def test_a_role_that_may_all_is_taken(s3: S3) -> None:
    s3.bucket(role=role(s3, {"Effect": "Allow", "Action": "s3:*", "Resource": "*"})).check()


def test_where_roles_may_not_be_asked_about_it_says_so(s3: S3) -> None:
    s3.aws.faults.append(Fault("SimulatePrincipalPolicy", "AccessDenied", 403, times=2))
    notes: list[str] = []
    s3.bucket(role=role(s3), notes=notes).check()
    assert any("iam:SimulatePrincipalPolicy" in note for note in notes)


def test_granting_gives_the_role_this_bucket_and_nothing_else(s3: S3) -> None:
    arn = role(s3)
    granting = s3.bucket(role=arn, grant=True)
    granting.check()
    for _ in range(2):
        granting.ensure()
    s3.bucket(role=arn).check()
    iam = s3.aws.client("iam")
    assert iam.list_role_policies(RoleName="task")["PolicyNames"] == ["helix-acme-data"]
    policy = iam.get_role_policy(RoleName="task", PolicyName="helix-acme-data")["PolicyDocument"]
    resources = {one["Resource"] for one in policy["Statement"]}
    assert resources == {"arn:aws:s3:::acme-data", "arn:aws:s3:::acme-data/db/*"}
    for _ in range(2):
        granting.remove()
        assert iam.list_role_policies(RoleName="task")["PolicyNames"] == []


def test_a_refused_call_names_the_permission_as_policies_have_it(s3: S3) -> None:
    s3.aws.faults.append(Fault(f"PUT /{s3.name}", "AccessDenied", 403))
    with pytest.raises(HelixError, match="s3:CreateBucket"):
        s3.bucket().ensure()


# --- Cloud Storage --------------------------------------------------------------------------------


class Gcs(Storage):
    def __init__(self, gcs: FakeGcs) -> None:
        self.gcs = gcs

    def bucket(
        self, *, key: str = "shop/prod", create: bool = True, secrets: dict[str, str] = KEYS
    ) -> Bucket:
        storage = ObjectStorage(bucket=self.name, region="auto", create=create)
        settings: dict[str, Any] = {"project_id": "acme", "region": "europe-west1"}
        # Nothing of this goes to the gRPC address: buckets are asked for by HTTP.
        target = Target(kind="gcp", settings={**settings, "endpoint": "http://127.0.0.1:9"})
        found = GcpProvider(instance(target, key, storage, secrets=secrets), Context()).bucket()
        assert found is not None
        return found

    def exists(self) -> bool:
        return self.name in self.gcs.buckets

    def is_protected(self) -> bool:
        found = self.gcs.buckets[self.name].resource
        access = found.get("iamConfiguration", {})
        return bool(
            access.get("publicAccessPrevention") == "enforced"
            and access["uniformBucketLevelAccess"]["enabled"]
            and found["versioning"]["enabled"]
        )

    def make(self) -> None:
        self.gcs.buckets[self.name] = FakeBucket({"kind": "storage#bucket", "name": self.name})

    def put(self, key: str) -> None:
        objects = self.gcs.buckets[self.name].objects
        objects.append((key, len(objects) + 1))

    def keys(self) -> list[str]:
        return sorted({key for key, _ in self.gcs.buckets[self.name].objects})

    def take(self) -> None:
        self.gcs.foreign.add(self.name)

    def lose_the_next_answer(self) -> None:
        self.gcs.lost.add("POST")

    @contextmanager
    def kill_after(self, calls: int) -> Iterator[None]:
        left, request = calls, Session.request

        def dying(session: Session, method: str, *words: Any, **more: Any) -> Any:
            nonlocal left
            answer = request(session, method, *words, **more)
            left -= method != "GET"
            if left == 0:
                raise Killed
            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "request", dying)
            yield


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gcs]:
    with fake_gcs() as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        yield Gcs(fake)


class TestGcs(BucketSuite):
    @pytest.fixture
    def storage(self, gcs: Gcs) -> Gcs:
        return gcs


def test_a_release_without_a_key_learns_how_to_make_one(gcs: Gcs) -> None:
    with pytest.raises(ConfigurationError) as caught:
        gcs.bucket(secrets={}).check()
    assert "gcloud storage hmac create" in caught.value.hint


def test_it_is_made_where_the_service_runs(gcs: Gcs) -> None:
    gcs.bucket().ensure()
    assert gcs.gcs.buckets[gcs.name].resource["location"] == "europe-west1"
