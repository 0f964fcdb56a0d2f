"""`helix doctor INSTANCE`: who you are there, what is missing, and which permissions are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import checkup
from cli.main import app
from tests.fakes.aws import REGION, AwsServer, Fault, aws_server

Doctor = Callable[..., dict[str, dict[str, str]]]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    """AWS with a cluster, and credentials of its root."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with aws_server() as server:
        server.client("ecs").create_cluster(clusterName="main")
        ec2 = server.client("ec2")
        network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        made = ec2.create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")
        monkeypatch.setenv("SUBNET", made["Subnet"]["SubnetId"])
        yield server


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Ask the doctor about an instance of a file; of the machine itself he says nothing here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELIX_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(checkup, "CHECKS", ())

    def ask(toml: str, expect: int = 0) -> dict[str, dict[str, str]]:
        (tmp_path / "Dockerfile").write_text("FROM scratch\n")
        (tmp_path / "helix.toml").write_text('[project]\nname = "shop"\n' + toml)
        done = CliRunner().invoke(app, ["doctor", "prod", "--json"])
        assert done.exit_code == expect, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return {one["what"].removeprefix("prod: "): one for one in found["findings"]}

    return ask


def ecs(aws: AwsServer, **more: str) -> str:
    settings = {
        "region": REGION,
        "cluster": "main",
        "execution_role": "arn:aws:iam::123456789012:role/execution",
        "image": "registry.test/shop:1",
        "endpoint_url": aws.url,
        **more,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines.append(f'subnets = ["{os.environ["SUBNET"]}"]')
    return "[cloud.prod.aws]\n" + "\n".join(lines) + "\n"


def user(aws: AwsServer, monkeypatch: pytest.MonkeyPatch, *actions: str) -> None:
    """Be a user who may do this."""
    iam = aws.client("iam")
    iam.create_user(UserName="ci")
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="ci", PolicyName="own", PolicyDocument=document)
    key = iam.create_access_key(UserName="ci")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])


def test_who_you_are_and_what_you_may_not_do(
    aws: AwsServer, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(aws, monkeypatch, "ecs:*", "sts:*", "iam:*", "secretsmanager:*", "ec2:*")
    aws.faults.append(Fault("DescribeSubnets", "UnauthorizedOperation", 403))
    found = doctor(ecs(aws), expect=1)
    assert found["platform"]["text"] == f"arn:aws:iam::123456789012:user/ci at AWS {REGION}"
    lacking = "logs:CreateLogGroup, logs:DeleteLogGroup, logs:FilterLogEvents"
    assert found["permissions"]["text"] == f"lacking {lacking}"
    assert "docs/providers/aws.md" in found["permissions"]["hint"]
    assert found["set-up"]["state"] == "ok"
    assert "ec2:DescribeSubnets" in found["note"]["text"]


def test_what_is_missing_on_the_platform(aws: AwsServer, doctor: Doctor) -> None:
    found = doctor(ecs(aws, cluster="nowhere"), expect=1)
    assert "there is no ECS cluster «nowhere»" in found["set-up"]["text"]
    assert "aws ecs create-cluster" in found["set-up"]["hint"]


def test_what_is_missing_of_the_bucket(aws: AwsServer, doctor: Doctor) -> None:
    found = doctor(ecs(aws) + '[deploy.prod]\nobject_storage = "acme"\n', expect=1)
    assert "nothing to open the bucket «acme» with" in found["set-up"]["text"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ExpiredToken", "aws sso login"),
        ("InvalidClientTokenId", "allow sts:GetCallerIdentity"),
    ],
)
def test_credentials_that_are_old_or_wrong(
    aws: AwsServer, doctor: Doctor, code: str, said: str
) -> None:
    aws.faults.append(Fault("GetCallerIdentity", code, 403))
    found = doctor(ecs(aws), expect=1)
    assert code in found["platform"]["text"] and said in found["platform"]["hint"]
    assert "set-up" not in found and "permissions" not in found


def test_no_credentials_at_all(
    aws: AwsServer, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    found = doctor(ecs(aws), expect=1)
    assert "aws configure" in found["platform"]["hint"]


def test_a_kind_that_only_stores_images_is_its_registry(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = '[cloud.prod.oci]\nrepository = "127.0.0.1:9/shop"\ninsecure = true\n'
    found = doctor(table, expect=1)
    assert "127.0.0.1:9" in found["platform"]["text"]
    assert "registry" not in found


def test_a_fly_token_that_is_missing(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLY_API_TOKEN", "FLY_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    table = '[cloud.prod.fly]\nvm_size = "shared-cpu-1x"\nvolume_initial_size = 1\n'
    found = doctor(table + 'auth_type = "ApiKey"\nvolume = "d:/data"\n', expect=1)
    assert "FLY_API_TOKEN" in found["platform"]["text"] + found["platform"]["hint"]
