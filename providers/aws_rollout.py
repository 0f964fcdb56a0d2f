"""Whether ECS got a release to run: what it says of our own task definition, and nothing else.

ECS's own waiter `services_stable` is no answer: after the circuit breaker put the previous release
back, the service is as stable as ever. So success takes two words that agree: the service
deployment that targets our task definition is SUCCESSFUL, and the service's primary deployment,
which is completed, runs it. Service deployments are listed for 90 days, and are late by seconds; of
one that is not listed the primary deployment alone tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from model.platform import Phase, Rollout
from providers.aws_api import AwsApi

UNDER_WAY = {"PENDING", "IN_PROGRESS", "STOP_REQUESTED"}
"""The statuses of a service deployment that may yet end well."""
SUCCESSFUL = "SUCCESSFUL"

HOPELESS = (
    r"CannotPullContainerError.*(not found|manifest unknown|denied|unauthorized|no basic auth"
    r"|does not match platform|no match for platform)",
    r"ResourceInitializationError.*(AccessDenied|not authorized|ResourceNotFound|invalid.*secret)",
    r"CannotStartContainerError.*(executable file not found|no such file|exec format error)",
    r"CannotCreateContainerError",
)
"""Why a task stopped, where no other task could do better: the breaker need not be waited for. The
words are those of ECS's developer guide, «Stopped tasks error messages»."""
_HOPELESS = tuple(re.compile(pattern, re.IGNORECASE | re.DOTALL) for pattern in HOPELESS)

RECENT = 20
"""How many of the latest service deployments are looked at, and service revisions per call."""


@dataclass(frozen=True)
class Word:
    """ECS's word about one task definition: its latest service deployment."""

    status: str = ""
    """Empty: ECS lists none, yet or any more."""
    reason: str = ""


def judge(service: dict[str, Any], word: Word, task: str) -> Rollout:
    """How far ECS is with a task definition.

    Args:
        service: as `describe_services` has it.
        word: the latest service deployment that targets the task definition.
        task: the task definition's ARN.
    """
    primary = primary_of(service)
    ours = primary.get("taskDefinition") == task
    state = primary.get("rolloutState", "")
    if word.status and word.status not in UNDER_WAY | {SUCCESSFUL}:
        return Rollout(phase=Phase.FAILED, detail=word.reason or f"ECS says {word.status}")
    if ours and state == "FAILED":
        reason = primary.get("rolloutStateReason", "")
        return Rollout(phase=Phase.FAILED, detail=word.reason or reason or "the rollout failed")
    if word.status == SUCCESSFUL and not ours:
        return Rollout(
            phase=Phase.FAILED,
            detail=f"the service runs {primary.get('taskDefinition', 'nothing')} by now",
        )
    if ours and state == "COMPLETED" and word.status in ("", SUCCESSFUL):
        return Rollout(phase=Phase.RUNNING, detail=_count(primary))
    return Rollout(phase=Phase.STARTING, detail=_count(primary) if ours else "waiting for ECS")


def hopeless(reason: str) -> bool:
    """Whether a task stopped for a reason that stops every other one too."""
    return any(pattern.search(reason) for pattern in _HOPELESS)


def primary_of(service: dict[str, Any]) -> dict[str, Any]:
    """The deployment of the service that ECS works towards."""
    found: list[dict[str, Any]] = service.get("deployments") or []
    return next((one for one in found if one.get("status") == "PRIMARY"), {})


def word_about(api: AwsApi, service: dict[str, Any], task: str) -> Word:
    """The latest service deployment that targets a task definition."""
    briefs = api(
        "ecs",
        "list_service_deployments",
        cluster=service["clusterArn"],
        service=service["serviceArn"],
        maxResults=RECENT,
    )["serviceDeployments"]
    briefs = sorted(briefs, key=lambda one: one["createdAt"], reverse=True)
    revisions = list({one["targetServiceRevisionArn"] for one in briefs})
    if not revisions:
        return Word()
    described = api("ecs", "describe_service_revisions", serviceRevisionArns=revisions)
    mine = {
        one["serviceRevisionArn"]
        for one in described["serviceRevisions"]
        if one.get("taskDefinition") == task
    }
    latest = next((one for one in briefs if one["targetServiceRevisionArn"] in mine), None)
    if latest is None:
        return Word()
    return Word(status=latest["status"], reason=latest.get("statusReason", ""))


def epitaph(task: dict[str, Any]) -> str:
    """Why a task stopped, in one line."""
    parts = [task.get("stoppedReason", "")]
    for container in task.get("containers") or ():
        if container.get("reason"):
            parts.append(container["reason"])
        if container.get("exitCode") is not None:
            parts.append(f"{container['name']} exited with code {container['exitCode']}")
    return "; ".join(part for part in parts if part)


def _count(primary: dict[str, Any]) -> str:
    line = f"{primary.get('runningCount', 0)} of {primary.get('desiredCount', 0)} tasks run"
    failed = primary.get("failedTasks", 0)
    return f"{line}, {failed} failed" if failed else line
