"""What a deployment on ECS needs to be allowed, as data.

docs/providers/aws.md has it as a policy; a test holds the two, and the calls that are made, against
each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from model.errors import NotFound, PermissionDenied
from model.instance import Instance
from providers.aws_api import AwsApi
from providers.aws_task import AwsSettings, service_name


@dataclass(frozen=True)
class Need:
    """Actions on one resource, and when they are needed."""

    actions: tuple[str, ...]
    resource: str = "*"
    """With {region}, {account}, {service}, {bucket}, {execution_role} and {task_role}."""
    when: str = ""
    """A part of the instance that not every one has (see `needed`); always if empty."""


NEEDS = (
    Need((
        "sts:GetCallerIdentity",
        "ecs:DescribeClusters", "ecs:DescribeServices", "ecs:CreateService", "ecs:UpdateService",
        "ecs:DeleteService", "ecs:TagResource", "ecs:ListServiceDeployments",
        "ecs:DescribeServiceRevisions", "ecs:ListTaskDefinitions", "ecs:DescribeTaskDefinition",
        "ecs:RegisterTaskDefinition", "ecs:DeregisterTaskDefinition", "ecs:DeleteTaskDefinitions",
        "ecs:ListTasks", "ecs:DescribeTasks", "secretsmanager:ListSecrets",
    )),
    Need(("ec2:DescribeSubnets", "ec2:DescribeSecurityGroups"), when="network"),
    Need(("ec2:DescribeNetworkInterfaces",), when="public_ip"),
    Need(
        (
            "elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeListeners",
            "elasticloadbalancing:DescribeLoadBalancers",
        ),
        when="target_group",
    ),
    Need(
        (
            "elasticfilesystem:DescribeAccessPoints", "elasticfilesystem:CreateAccessPoint",
            "elasticfilesystem:DeleteAccessPoint", "elasticfilesystem:TagResource",
            "elasticfilesystem:DescribeMountTargets",
        ),
        when="volumes",
    ),
    Need(
        ("logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:FilterLogEvents"),
        "arn:aws:logs:{region}:{account}:log-group:/helix/{service}",
    ),
    Need(
        (
            "secretsmanager:CreateSecret", "secretsmanager:TagResource",
            "secretsmanager:DescribeSecret", "secretsmanager:DeleteSecret",
        ),
        "arn:aws:secretsmanager:{region}:{account}:secret:helix/{service}/any",
        when="secrets",
    ),
    Need(
        (
            "s3:CreateBucket", "s3:DeleteBucket", "s3:ListBucket", "s3:ListBucketVersions",
            "s3:GetBucketTagging", "s3:PutBucketTagging", "s3:PutBucketPublicAccessBlock",
            "s3:PutEncryptionConfiguration", "s3:PutBucketVersioning",
        ),
        "arn:aws:s3:::{bucket}",
        when="object_storage",
    ),
    Need(("s3:DeleteObjectVersion",), "arn:aws:s3:::{bucket}/any", when="object_storage"),
    Need(("iam:SimulatePrincipalPolicy",), "{task_role}", when="role"),
    Need(("iam:PutRolePolicy", "iam:DeleteRolePolicy"), "{task_role}", when="grant"),
    Need(("iam:PassRole",), "{execution_role}", when="execution_role"),
    Need(("iam:PassRole",), "{task_role}", when="task_role"),
)  # fmt: skip
"""Everything, by the resource it is about. A policy may be narrower than `*` where it says `*`."""


def needed(instance: Instance, settings: AwsSettings, account: str) -> Iterator[Need]:
    """What this instance needs, with the resources filled in."""
    storage = instance.object_storage
    storage = None if storage is None or storage.endpoint_url else storage
    keys = "AWS_ACCESS_KEY_ID" in instance.secrets
    wanted = {
        "": True,
        "network": bool(settings.subnets),
        "public_ip": settings.public_ip,
        "target_group": bool(settings.target_group),
        "volumes": bool(instance.volumes),
        "secrets": bool(instance.secrets),
        "object_storage": storage is not None,
        "role": storage is not None and not storage.grant and not keys,
        "grant": storage is not None and storage.grant,
        "execution_role": bool(settings.execution_role),
        "task_role": bool(settings.task_role),
    }
    about = {
        "region": settings.region,
        "account": account,
        "service": service_name(instance, settings),
        "bucket": storage.bucket if storage else "",
        "execution_role": settings.execution_role or "",
        "task_role": settings.task_role or "",
    }
    for need in NEEDS:
        if wanted[need.when]:
            yield Need(need.actions, need.resource.format(**about), need.when)


def lacking(api: AwsApi, instance: Instance, settings: AwsSettings) -> list[str] | None:
    """What the caller's own policies do not allow of it, by IAM's simulator. None where the caller
    may not ask. Reads only."""
    caller = api("sts", "get_caller_identity")
    principal = _principal(caller["Arn"])
    found: list[str] = []
    if principal.endswith(":root"):
        return found
    with suppress(PermissionDenied, NotFound):
        for need in needed(instance, settings, caller["Account"]):
            answer = api(
                "iam",
                "simulate_principal_policy",
                PolicySourceArn=principal,
                ActionNames=list(need.actions),
                ResourceArns=[need.resource],
            )
            found += [
                str(one["EvalActionName"])
                for one in answer["EvaluationResults"]
                if one["EvalDecision"] != "allowed"
            ]
        return sorted({*found})
    return None


def _principal(arn: str) -> str:
    """Whose policies count: for a session of a role, the role's."""
    head, _, rest = arn.partition(":assumed-role/")
    if not rest:
        return arn
    return f"{head.replace(':sts:', ':iam:')}:role/{rest.split('/')[0]}"
