"""A release's secrets in Secrets Manager: one entry a release, so that a restore brings back the
values that went with it."""

from __future__ import annotations

import json
import re
from contextlib import suppress

from model.errors import Conflict, NotFound
from model.instance import Instance
from model.names import LABEL_INSTANCE
from providers.aws_api import AwsApi, tag_value
from providers.aws_task import token
from providers.base import Context

KINDS = ("env", "pull")
"""The values of the environment, and the registry's user name and password."""


class Secrets:
    """The entries of one instance."""

    def __init__(self, api: AwsApi, instance: Instance, context: Context, service: str) -> None:
        self._api = api
        self._instance = instance
        self._context = context
        self._service = service

    def store(self, deployment: str) -> dict[str, str]:
        """Resolve the instance's references and store the values.

        Returns:
            Environment name -> where ECS finds the value.
        """
        references = self._instance.secrets
        if not references:
            return {}
        values = {
            name: self._context.secret(reference).get_secret_value()
            for name, reference in references.items()
        }
        arn = self._put(deployment, "env", values)
        return {name: f"{arn}:{name}::" for name in values}

    def store_pull(self, deployment: str) -> str:
        """Store the registry's credentials; the empty string if ECS needs none, as for ECR, from
        which the execution role may pull."""
        found = self._context.pull()
        if found is None or found.username == "AWS":
            return ""
        values = {"username": found.username, "password": found.password.get_secret_value()}
        return self._put(deployment, "pull", values)

    def delete(self, deployment: str) -> None:
        """Delete what a deployment stored. Idempotent."""
        for kind in KINDS:
            self._delete(self._name(deployment, kind))

    def delete_all(self) -> None:
        """Delete what any deployment stored, even one that died half way."""
        filters = [{"Key": "name", "Values": [f"helix/{self._service}/"]}]
        found = self._api.pages("secretsmanager", "list_secrets", "SecretList", Filters=filters)
        for name in [str(one["Name"]) for one in found]:
            self._delete(name)

    def _put(self, deployment: str, kind: str, values: dict[str, str]) -> str:
        name = self._name(deployment, kind)
        try:
            made = self._api(
                "secretsmanager",
                "create_secret",
                Name=name,
                ClientRequestToken=token(deployment, kind),
                SecretString=json.dumps(values),
                Tags=[{"Key": LABEL_INSTANCE, "Value": tag_value(self._instance.key)}],
            )
        except Conflict:  # an earlier attempt's
            made = self._api("secretsmanager", "describe_secret", SecretId=name)
        return str(made["ARN"])

    def _delete(self, name: str) -> None:
        with suppress(NotFound):
            self._api(
                "secretsmanager", "delete_secret", SecretId=name, ForceDeleteWithoutRecovery=True
            )

    def _name(self, deployment: str, kind: str) -> str:
        text = f"helix/{self._service}/{deployment}/{kind}"
        return re.sub(r"[^A-Za-z0-9/_+=.@-]", "-", text)
