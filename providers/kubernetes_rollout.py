"""What a cluster says about our release: a verdict from its workload and its pods.

The words of a Deployment's conditions and of pods' states are those of k8s.io/api and of
k8s.io/kubernetes/pkg/kubelet. A StatefulSet has neither conditions nor a deadline, so its pod and
the events about it are asked, and the deadline is ours. Nothing here calls anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from model.platform import Phase
from providers.kubernetes_objects import CONTAINER

Json = dict[str, Any]

HOPELESS: dict[str, str] = {
    "CrashLoopBackOff": "",
    "CreateContainerConfigError": "a Secret or ConfigMap that the pod names is missing",
    "CreateContainerError": "",
    "RunContainerError": "correct the command",
    "InvalidImageName": "correct the image's name",
    "ErrImageNeverPull": "",
    "StartError": "correct the command",
}
"""Reason of a container that waits -> what to do. No pod with the same template can escape it."""
PULLING = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}
"""Reasons that may pass, unless the message says that they will not."""
NO_IMAGE = re.compile(
    r"not found|manifest unknown|does not exist|unauthorized|authentication required|denied|"
    r"no basic auth|no match for platform|403 forbidden|x509:",
    re.IGNORECASE,
)
DEATHS: dict[str, str] = {
    "OOMKilled": "it used more memory than it may: raise memory",
    "ContainerCannotRun": "correct the command",
}
"""Reason of a container that ended -> what to do."""


@dataclass(frozen=True)
class Word:
    """What is known of a release, or of one of its pods."""

    phase: Phase
    detail: str
    pod: str = ""
    """The pod whose log shows why."""


def judge_pod(pod: Json) -> Word:
    """What one pod says of itself."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            why = f"{condition.get('reason', '')}: {condition.get('message', '')}"
            return Word(Phase.STARTING, why.strip(": "), name)
    if status.get("reason") == "Evicted" or status.get("phase") == "Failed":
        return Word(Phase.STARTING, f"{status.get('reason')}: {status.get('message', '')}", name)
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in every:
        state = container.get("state") or {}
        if waiting := state.get("waiting"):
            return _waiting(name, waiting, container.get("lastState") or {})
        if ended := state.get("terminated"):
            if container["name"] == CONTAINER:
                return Word(Phase.STARTING, _death(ended), name)
        elif container["name"] == CONTAINER and "running" in state:
            return Word(Phase.RUNNING, "running", name)
    return Word(Phase.STARTING, "the container is being created", name)


def _waiting(name: str, waiting: Json, last: Json) -> Word:
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    why = f"{reason}: {message}" if message else reason
    if ended := last.get("terminated"):
        why = f"{_death(ended)} ({reason})"
    if reason in HOPELESS:
        hint = HOPELESS[reason]
        return Word(Phase.FAILED, f"{why}; {hint}" if hint else why, name)
    if reason in PULLING and NO_IMAGE.search(message):
        return Word(Phase.FAILED, why, name)
    return Word(Phase.STARTING, why or "waiting", name)


def _death(ended: Json) -> str:
    reason = ended.get("reason", "")
    why = f"the container exited with code {ended.get('exitCode')}"
    if reason not in ("", "Error", "Completed"):
        why += f", {reason}"
    hint = DEATHS.get(reason, "")
    return f"{why}; {hint}" if hint else why


def judge_pods(pods: Sequence[Json], wanted: int) -> Word:
    """What the pods of one release say together: the worst that one of them says."""
    living = [one for one in pods if not one["metadata"].get("deletionTimestamp")]
    words = [judge_pod(one) for one in living]
    for word in words:
        if word.phase is Phase.FAILED:
            return word
    running = sum(word.phase is Phase.RUNNING for word in words)
    if running >= wanted:
        return Word(Phase.RUNNING, f"{running} of {wanted} pods run")
    waiting = [word for word in words if word.phase is Phase.STARTING]
    if waiting:
        return waiting[0]
    return Word(Phase.STARTING, f"{running} of {wanted} pods run")


def is_seen(found: Json) -> bool:
    """Whether a workload's status is about what was asked for last."""
    seen = (found.get("status") or {}).get("observedGeneration") or 0
    return int(seen) >= int(found["metadata"]["generation"])


def judge_deployment(found: Json, pods: Sequence[Json]) -> Word:
    """What a Deployment says of itself, and its pods of themselves."""
    if not is_seen(found):
        return Word(Phase.STARTING, "the Deployment's controller has not seen it yet")
    word = judge_pods(pods, found["spec"]["replicas"])
    if word.phase is not Phase.STARTING:
        return word
    status = found.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    refused = conditions.get("ReplicaFailure", {})
    if refused.get("status") == "True" and not pods:
        return Word(Phase.FAILED, f"{refused.get('reason')}: {refused.get('message')}")
    progress = conditions.get("Progressing", {})
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return Word(Phase.FAILED, f"ProgressDeadlineExceeded: {word.detail}", word.pod)
    return word


def judge_stateful_set(
    found: Json,
    pods: Sequence[Json],
    before: Sequence[Json],
    refused: str,
    *,
    now: datetime,
    since: datetime | None,
    deadline: float,
) -> Word:
    """What is to be said of a StatefulSet that runs our release.

    Args:
        pods: those of our release.
        before: those of another one.
        refused: the message of the event that says why there is no pod; empty if there is none.
        now: by the API server's clock.
        since: when we asked for the release.
        deadline: seconds in which a pod must run.
    """
    if not is_seen(found):
        return Word(Phase.STARTING, "the StatefulSet's controller has not seen it yet")
    if before:
        name = before[0]["metadata"]["name"]
        node = before[0]["spec"].get("nodeName", "no node")
        word = Word(Phase.STARTING, f"the pod {name} of the release before ends, on {node}")
    else:
        word = judge_pods(pods, found["spec"]["replicas"])
        if not pods and refused:
            return Word(Phase.FAILED, refused)
    late = since is not None and (now - since).total_seconds() > deadline
    if word.phase is Phase.STARTING and late:
        return Word(Phase.FAILED, f"not running after {deadline:.0f} s: {word.detail}", word.pod)
    return word


def available(found: Json, pods: Iterable[Json]) -> bool:
    """Whether the cluster itself calls all pods of the release ready."""
    return ready_count(pods) >= int(found["spec"]["replicas"])


def ready_count(pods: Iterable[Json]) -> int:
    """How many of these pods get traffic if the service selects them."""
    return sum(
        any(
            one["type"] == "Ready" and one["status"] == "True"
            for one in (pod.get("status") or {}).get("conditions") or ()
        )
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
    )


def unready(pods: Iterable[Json]) -> str:
    """What keeps pods that run from being ready, in one line."""
    for pod in pods:
        for one in (pod.get("status") or {}).get("conditions") or ():
            if one["type"] == "Ready" and one["status"] != "True":
                why = one.get("message") or "its readiness probe fails"
                return f"{pod['metadata']['name']} is not ready: {why}"
    return "there is no pod"


# Other words of the cluster -----------------------------------------------------------------------


def applied_at(found: Json, manager: str) -> datetime | None:
    """When a manager of fields applied an object last; None if it never did."""
    stamps = [
        datetime.fromisoformat(one["time"])
        for one in found["metadata"].get("managedFields") or ()
        if one.get("manager") == manager and one.get("operation") == "Apply" and one.get("time")
    ]
    return max(stamps, default=None)


def last_message(events: Iterable[Json], since: datetime | None) -> str:
    """What the newest of some events says; empty if none came since a moment."""
    newest = ""
    for one in sorted(events, key=_event_time):
        stamp = _event_time(one)
        if since is None or (stamp and datetime.fromisoformat(stamp) >= since):
            newest = str(one.get("message", ""))
    return newest


def _event_time(event: Json) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def ready_targets(slices: Iterable[Json]) -> set[str]:
    """The pods to which a service leads, by its endpoint slices."""
    return {
        str((one.get("targetRef") or {}).get("name", ""))
        for each in slices
        for one in each.get("endpoints") or ()
        if (one.get("conditions") or {}).get("ready") is not False
    }
