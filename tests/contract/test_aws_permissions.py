"""Least permissions on AWS: what the page says, what the code says, and what is called are one; and
what credentials lack is told by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from model.errors import AuthExpired, PermissionDenied
from model.instance import HealthCheck, Instance, ObjectStorage, Volume
from providers.aws_permissions import NEEDS
from tests.contract.test_aws_provider import GOOD, NEXT, Cloud, answers, cloud
from tests.fakes.aws import REGION, Fault

__all__ = ["answers", "cloud"]

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "aws.md"
IMPLIED = {"secretsmanager:TagResource", "elasticfilesystem:TagResource", "iam:PassRole"}
"""What AWS asks for besides the permission of a call: for the tags and roles that go with it."""


def policy() -> dict[str, Any]:
    """The policy document of the page."""
    (found,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    document: dict[str, Any] = json.loads(found)
    return document


def in_the_page() -> set[str]:
    actions: set[str] = set()
    for statement in policy()["Statement"]:
        one = statement["Action"]
        actions |= {one} if isinstance(one, str) else set(one)
    return actions


def in_the_code() -> set[str]:
    return {action for need in NEEDS for action in need.actions}


def test_the_page_has_what_the_code_has() -> None:
    assert in_the_page() == in_the_code()


def tour(cloud: Cloud) -> Iterator[Instance]:
    """One instance a way to use ECS."""
    iam = cloud.aws.client("iam")
    role = iam.create_role(RoleName="task", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    _, group = cloud.balancer()
    unchecked = HealthCheck(kind="none")
    secrets = {"TOKEN": "env:TOKEN"}
    yield cloud.instance(settings={"target_group": group}, health_check=unchecked, secrets=secrets)
    yield cloud.instance(volume=True)
    yield cloud.instance(settings={"public_ip": True}, health_check=unchecked)
    for grant in (True, False):  # the grant of the first is what the second is allowed
        storage = ObjectStorage(bucket=f"acme-{grant}".lower(), region=REGION, grant=grant)
        yield cloud.instance(
            settings={"task_role": role}, object_storage=storage, health_check=unchecked
        )


def test_the_page_has_what_is_called_and_nothing_else(cloud: Cloud) -> None:
    for instance in tour(cloud):
        provider = cloud.provider(instance)
        provider.identity()
        provider.preflight()
        bucket = provider.bucket()
        if bucket is not None:
            if not bucket.storage.grant:
                cloud.aws.client("iam").put_role_policy(
                    RoleName="task", PolicyName="all", PolicyDocument=json.dumps(ALL)
                )
            bucket.check()
            bucket.ensure()
            cloud.aws.client("s3").put_object(Bucket=bucket.name, Key="db/1", Body=b"x")
        provider._secrets.store("0000-9")
        rotated = cloud.provider(instance, secret=lambda reference: SecretStr("rotated"))
        rotated._secrets.store("0000-9")  # the attempt after one that died
        driver = cloud.driver()
        for number, digest in enumerate((GOOD, NEXT, GOOD), 1):
            result = driver.deploy(cloud.release(number, digest, instance))
            assert result.error is None, result.error
        assert result.previous is not None
        provider.public_url()
        list(provider.logs())
        provider.prune([])
        driver.restore(cloud.release(4, NEXT, instance), provider.current())
        try:
            provider.destroy(data=True)
        except Exception as error:
            assert "files" in str(error)  # of EFS, which only a person can remove
        if bucket is not None:
            bucket.remove()
    _network_interfaces(cloud)
    called = cloud.aws.permissions
    assert called - in_the_page() == set()
    assert in_the_page() - called - IMPLIED == set()


ALL = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


def _network_interfaces(cloud: Cloud) -> None:
    """A public address is that of the task's network interface, which tasks here do not have."""
    from providers.aws_network import task_address
    from providers.aws_task import AwsSettings

    api = cloud.provider()._api
    made = cloud.aws.client("ec2").create_network_interface(SubnetId=cloud.subnet)
    interface = made["NetworkInterface"]["NetworkInterfaceId"]
    details = [
        {"name": "privateIPv4Address", "value": "10.0.0.9"},
        {"name": "networkInterfaceId", "value": interface},
    ]
    task = {"attachments": [{"type": "ElasticNetworkInterface", "details": details}]}
    task_address(api, AwsSettings(region=REGION, public_ip=True), task)


# --- whose credentials, and what they lack --------------------------------------------------------


def user(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]) -> None:
    """Be a user with this policy."""
    iam = cloud.aws.client("iam")
    iam.create_user(UserName="ci")
    iam.put_user_policy(UserName="ci", PolicyName="own", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName="ci")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])


def without(document: dict[str, Any], *actions: str) -> dict[str, Any]:
    """The policy without some actions."""
    statements = [
        {**one, "Action": [each for each in _listed(one["Action"]) if each not in actions]}
        for one in document["Statement"]
    ]
    return {**document, "Statement": [one for one in statements if one["Action"]]}


def _listed(action: str | list[str]) -> list[str]:
    return [action] if isinstance(action, str) else action


def everything(cloud: Cloud) -> Instance:
    """What needs all of the page's statements, by the names that the page has."""
    return cloud.instance(
        settings={
            "execution_role": "arn:aws:iam::123456789012:role/ecsTaskExecutionRole",
            "public_ip": True,
        },
        object_storage=ObjectStorage(bucket="acme-helix", region=REGION),
        secrets={"AWS_ACCESS_KEY_ID": "env:A", "AWS_SECRET_ACCESS_KEY": "env:B"},
    ).model_copy(update={"volumes": (Volume(mount="/data", name="data"),)})


def test_the_pages_policy_is_enough(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    user(cloud, monkeypatch, policy())
    provider = cloud.provider(everything(cloud))
    assert provider.identity().who == "arn:aws:iam::123456789012:user/ci"
    assert provider.lacking() == []


def test_what_is_lacking_is_told_by_name(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = ("ecs:UpdateService", "logs:CreateLogGroup", "iam:PassRole", "s3:PutBucketTagging")
    user(cloud, monkeypatch, without(policy(), *lacking))
    assert cloud.provider(everything(cloud)).lacking() == sorted(lacking)


def test_who_may_not_ask_is_not_told_that_all_is_well(cloud: Cloud) -> None:
    cloud.aws.faults.append(Fault("SimulatePrincipalPolicy", "AccessDenied", 403))
    assert cloud.provider().lacking() is None


def federate(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """As in CI: a role, and a file with the token of its OpenID Connect provider."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    token = folder / "token"
    token.write_text("a.signed.token")
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.aws.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/deployer")
    monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "ci")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    return token


def test_oidc_in_ci_is_the_role(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    federate(cloud, monkeypatch, tmp_path)
    iam = cloud.aws.client("iam")
    iam.create_role(RoleName="deployer", AssumeRolePolicyDocument="{}")
    document = json.dumps(without(policy(), "ecs:CreateService"))
    iam.put_role_policy(RoleName="deployer", PolicyName="own", PolicyDocument=document)
    provider = cloud.provider(everything(cloud))
    assert provider.identity().who == "arn:aws:sts::123456789012:assumed-role/deployer/ci"
    assert provider.lacking() == ["ecs:CreateService"]
    assert "AssumeRoleWithWebIdentity" in cloud.aws.calls


def test_an_oidc_token_that_is_too_old_says_so(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    federate(cloud, monkeypatch, tmp_path)
    cloud.aws.faults.append(Fault("AssumeRoleWithWebIdentity", "ExpiredTokenException"))
    with pytest.raises(AuthExpired):
        cloud.provider().identity()


def test_an_oidc_token_file_that_is_not_there_is_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = federate(cloud, monkeypatch, tmp_path)
    token.unlink()
    with pytest.raises(PermissionDenied, match=str(token)):
        cloud.provider().identity()
