"""What a deployment needs to be allowed in its namespace, and whether it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from model.instance import Instance
from providers.kubernetes_api import Api
from providers.kubernetes_objects import KubernetesSettings

Json = dict[str, Any]
Permission = tuple[str, str, str]
"""API group, resource, verb."""
Table = dict[tuple[str, str], tuple[str, ...]]
"""Group and resource -> verbs."""

ALWAYS: Table = {
    ("apps", "deployments"): ("get", "list", "create", "patch", "delete"),
    ("apps", "statefulsets"): ("get", "list", "create", "patch", "delete"),
    ("apps", "controllerrevisions"): ("list", "delete"),
    ("", "services"): ("get", "create", "patch", "delete"),
    ("", "secrets"): ("create", "patch", "delete"),
    ("", "pods"): ("list", "create", "delete"),
    ("", "pods/log"): ("get",),
    ("discovery.k8s.io", "endpointslices"): ("list",),
}
"""What every release needs. `create` of pods is only asked for on trial: it shows what quotas and
policies would refuse."""
WITH_VOLUMES: Table = {("", "persistentvolumeclaims"): ("get", "list", "create", "delete")}
WITH_HOST: Table = {("networking.k8s.io", "ingresses"): ("create", "patch", "delete")}
FORWARD: Permission = ("", "pods/portforward", "create")
"""With it a release is checked from here; without it, its readiness decides."""
WITH_COMMAND: Table = {("", "pods/exec"): ("create",)}


def needed(instance: Instance, settings: KubernetesSettings) -> list[Permission]:
    """The permissions that an instance's releases need."""
    tables = [
        ALWAYS,
        WITH_VOLUMES if instance.volumes else {},
        WITH_HOST if settings.host else {},
        WITH_COMMAND if instance.health_check.kind == "command" else {},
    ]
    return [
        (group, resource, verb)
        for table in tables
        for (group, resource), verbs in table.items()
        for verb in verbs
    ]


def may(api: Api, wanted: Permission) -> bool:
    """Whether the API server would let us do this in the namespace."""
    group, resource, verb = wanted
    what, _, part = resource.partition("/")
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "namespace": api.namespace,
                "group": group,
                "resource": what,
                "subresource": part,
                "verb": verb,
            }
        },
    }
    found = api.cluster(
        "AuthorizationV1Api",
        "create_self_subject_access_review",
        body,
        doing="create selfsubjectaccessreviews",
    )
    return bool(found["status"]["allowed"])


class Permissions:
    """What the API server says of ours."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def lacking(self, wanted: Iterable[Permission]) -> list[str]:
        """Those of the wanted ones that we do not have, in words."""
        # The list of rules may be incomplete where not only RBAC decides: then it is asked again.
        return list(
            _grouped(
                one
                for one in wanted
                if not any(_covers(rule, one) for rule in self._rules) and not may(self._api, one)
            )
        )

    @cached_property
    def _rules(self) -> list[Json]:
        """What is listed as allowed in the namespace, in one call."""
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": self._api.namespace},
        }
        found = self._api.cluster(
            "AuthorizationV1Api",
            "create_self_subject_rules_review",
            body,
            doing="create selfsubjectrulesreviews",
        )
        return list(found["status"]["resourceRules"])


def _covers(rule: Json, wanted: Permission) -> bool:
    """Whether a rule of RBAC allows something, of any name."""
    lists = (rule.get("apiGroups"), rule.get("resources"), rule.get("verbs"))
    fits = all({one, "*"} & set(some or ()) for one, some in zip(wanted, lists, strict=True))
    return fits and not rule.get("resourceNames")


def _grouped(lacking: Iterable[Permission]) -> Iterator[str]:
    """`create, patch deployments of apps`, one resource after the other."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for group, resource, verb in lacking:
        verbs.setdefault((group, resource), []).append(verb)
    for (group, resource), some in verbs.items():
        yield f"{', '.join(some)} {resource}" + (f" of {group}" if group else "")
