"""Which permission a request to AWS needs, read off the wire: by the service that it is signed for,
and by AWS's own service models."""

from __future__ import annotations

import re
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from botocore.loaders import create_loader
from botocore.model import ServiceModel

from model.aws_errors import permission

ADMIN = "an-administrator-of-the-test"
"""In the user agent of clients that set the scene; what they call does not count."""
BOTO3_NAMES = {"elasticloadbalancing": "elbv2", "elasticfilesystem": "efs"}
"""What a signature calls a service -> what boto3 does."""
_SCOPE = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/")
_LOADER = create_loader()


def permission_of(environ: dict[str, Any], operation: str) -> str:
    """The permission; empty for a request that does not count.

    Args:
        operation: its name, or «METHOD /path» where the protocol does not name it.
    """
    signed = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    if signed is None or ADMIN in environ.get("HTTP_USER_AGENT", ""):
        return ""
    service = BOTO3_NAMES.get(signed[1], signed[1])
    if " " in operation:
        method, _, path = operation.partition(" ")
        operation = _by_address(service, method, path, environ.get("QUERY_STRING", ""))
    return permission(service, operation)


def _by_address(service: str, method: str, path: str, query: str) -> str:
    """The operation of a REST request: the one with the most fixed words in its query."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    fitting = [
        (len(fixed), name)
        for name, verb, pattern, fixed in _operations(service)
        if verb == method and pattern.fullmatch(path) and fixed.items() <= given.items()
    ]
    return max(fitting)[1] if fitting else f"{method} {path}?{query}"


@cache
def _operations(service: str) -> list[tuple[str, str, re.Pattern[str], dict[str, str]]]:
    model = ServiceModel(_LOADER.load_service_model(service, "service-2"), service)
    found = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        pattern = re.sub(r"\\\{\w+\\\+\\\}", ".+", re.escape(path))
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", pattern)
        fixed = dict(parse_qsl(query, keep_blank_values=True))
        found.append((name, http["method"], re.compile(pattern), fixed))
    return found
