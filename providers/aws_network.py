"""Where tasks and load balancers are reached."""

from __future__ import annotations

from typing import Any

from model.errors import ConfigurationError, Transient
from providers.aws_api import AwsApi
from providers.aws_task import AwsSettings


def task_address(api: AwsApi, settings: AwsSettings, task: dict[str, Any]) -> str:
    """The public address of a task if it has one, else its own in the network.

    Raises:
        Transient: it has none yet.
    """
    details = {
        one["name"]: one["value"]
        for attachment in task.get("attachments") or ()
        for one in attachment.get("details") or ()
    }
    if settings.public_ip and (interface := details.get("networkInterfaceId")):
        described = api("ec2", "describe_network_interfaces", NetworkInterfaceIds=[interface])
        found = described["NetworkInterfaces"][0].get("Association", {}).get("PublicIp")
        if found:
            return str(found)
    if "privateIPv4Address" not in details:
        raise Transient("the task has no address yet")
    return str(details["privateIPv4Address"])


def load_balancer_url(api: AwsApi, settings: AwsSettings) -> str:
    """Where the load balancer listens that sends to the target group.

    Raises:
        ConfigurationError: none does.
    """
    balancers = [arn for group in target_groups(api, settings) for arn in group["LoadBalancerArns"]]
    if not balancers:
        raise ConfigurationError(
            "no load balancer sends anything to the target group",
            hint="add a listener that forwards to it",
        )
    listeners = api("elbv2", "describe_listeners", LoadBalancerArn=balancers[0])
    described = api("elbv2", "describe_load_balancers", LoadBalancerArns=balancers[:1])
    host = described["LoadBalancers"][0]["DNSName"]
    for listener in listeners["Listeners"]:
        scheme = "https" if listener["Protocol"] in ("HTTPS", "TLS") else "http"
        return f"{scheme}://{host}:{listener['Port']}"
    return f"http://{host}"


def target_groups(api: AwsApi, settings: AwsSettings) -> list[dict[str, Any]]:
    """The target group that the table names; none if it names none."""
    arn = settings.target_group
    if not arn:
        return []
    answer = api("elbv2", "describe_target_groups", TargetGroupArns=[arn])
    found: list[dict[str, Any]] = answer["TargetGroups"]
    return found
