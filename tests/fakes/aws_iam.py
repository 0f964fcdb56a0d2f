"""IAM's policy simulator, which moto leaves out: judged by moto's own reading of policies."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.iam.models import IAMBackend
from moto.iam.responses import IamResponse


def simulate_principal_policy(self: IamResponse) -> ActionResult:
    """Every action on every resource, by the policies of a role or a user; root may do all."""
    given: dict[str, Any] = self._get_params()
    policies = _policies(self.backend, given["PolicySourceArn"])
    results = [
        {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": _decision(policies, action, resource),
        }
        for action in given["ActionNames"]
        for resource in given.get("ResourceArns") or ["*"]
    ]
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


def permits(backend: IAMBackend, role: str, action: str, resource: str) -> bool:
    """Whether a role's policies let it do something."""
    return _decision(_policies(backend, role), action, resource) == "allowed"


def _policies(backend: IAMBackend, arn: str) -> list[Any] | None:
    kind, _, name = arn.split(":", 5)[5].partition("/")
    if kind == "root":
        return None
    if kind == "user":
        inline = [backend.get_user_policy(name, one) for one in backend.list_user_policies(name)]
        return [*inline, *backend.list_attached_user_policies(name)[0]]
    role = backend.get_role(name.rsplit("/", 1)[-1]).name
    found = [backend.get_role_policy(role, one)[1] for one in backend.list_role_policies(role)]
    return [*found, *backend.list_attached_role_policies(role)[0]]


def _decision(policies: list[Any] | None, action: str, resource: str) -> str:
    if policies is None:
        return "allowed"
    found = [IAMPolicy(one).is_action_permitted(action, resource) for one in policies]
    if PermissionResult.DENIED in found:
        return "explicitDeny"
    return "allowed" if PermissionResult.PERMITTED in found else "implicitDeny"
