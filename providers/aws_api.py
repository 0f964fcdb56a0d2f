"""AWS's API through boto3: one session, no retries of its own, and only our own errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import create_loader

from model.aws_errors import translate
from model.errors import PermissionDenied

NO_RETRIES = Config(
    connect_timeout=5, read_timeout=9, retries={"mode": "standard", "total_max_attempts": 1}
)

MODELS = create_loader()
"""Reads AWS's service models from disk once for all; a session of its own takes 0.2 s for them."""


class AwsApi:
    """Calls by their name: `api("ecs", "describe_services", cluster="main", services=["shop"])`.

    Args:
        region: the AWS region.
        profile: the profile of AWS's configuration; None: what AWS's own chain of credentials finds
            (environment, web identity, SSO, files, container or machine role).
        endpoint_url: another address for all services; None: `AWS_ENDPOINT_URL`, else AWS's own.
    """

    def __init__(self, region: str, profile: str | None, endpoint_url: str | None) -> None:
        self._endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        core = botocore.session.Session()
        core.register_component("data_loader", MODELS)
        with _translated("sts"):
            self._session = boto3.session.Session(
                profile_name=profile, region_name=region, botocore_session=core
            )

    def __call__(self, service: str, operation: str, /, **arguments: Any) -> dict[str, Any]:
        """One call.

        Raises:
            HelixError: by the table of `model.aws_errors`, with the permission's name.
        """
        with _translated(service, operation):
            answer: dict[str, Any] = getattr(self._client(service), operation)(**arguments)
            return answer

    def pages(self, service: str, operation: str, key: str, /, **arguments: Any) -> Iterator[Any]:
        """The items under `key`, of one page after the other."""
        with _translated(service, operation):
            paginator = self._client(service).get_paginator(operation)
            for page in paginator.paginate(**arguments):
                yield from page.get(key, ())

    def close(self) -> None:
        """Give back the connections."""
        for client in self._clients.values():
            client.close()

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(
                service, config=NO_RETRIES, endpoint_url=self._endpoint_url
            )
        return self._clients[service]


def tag_value(text: str) -> str:
    """The text with only what AWS allows in the value of a tag."""
    return re.sub(r"[^A-Za-z0-9 _.:/=+@-]", "_", text)[:256]


@contextmanager
def _translated(service: str, operation: str = "") -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        name = "".join(part.title() for part in operation.split("_"))
        raise translate(error, service, name) from None
    except FileNotFoundError as error:
        raise PermissionDenied(
            f"{service}: AWS_WEB_IDENTITY_TOKEN_FILE names {error.filename}, which is not there",
            hint="let the CI write its OpenID Connect token there; see docs/providers/aws.md",
        ) from None
