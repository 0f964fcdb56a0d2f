"""Applies a file of manifests as kubectl does, on the server, and hears what it is warned of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import yaml

Json = dict[str, Any]

PLURALS = {
    "Namespace": "namespaces",
    "ServiceAccount": "serviceaccounts",
    "ConfigMap": "configmaps",
    "Secret": "secrets",
    "Deployment": "deployments",
    "PodDisruptionBudget": "poddisruptionbudgets",
}


def read(file: Path) -> list[Json]:
    """The objects of a file, in their order."""
    return [one for one in yaml.safe_load_all(file.read_text()) if one]


def path_of(manifest: Json) -> str:
    """Where the API server keeps it."""
    version, about = manifest["apiVersion"], manifest["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    inside = f"/namespaces/{about['namespace']}" if "namespace" in about else ""
    return f"{root}{inside}/{PLURALS[manifest['kind']]}/{about['name']}"


def apply(api: httpx.Client, manifests: Iterable[Json]) -> list[str]:
    """Apply them, strictly. Returns the warnings.

    Raises:
        AssertionError: one is refused.
    """
    warnings: list[str] = []
    for one in manifests:
        answer = api.patch(
            path_of(one),
            params={"fieldManager": "tests", "fieldValidation": "Strict"},
            headers={"content-type": "application/apply-patch+yaml"},
            content=yaml.safe_dump(one),
        )
        assert answer.is_success, answer.text
        warnings += answer.headers.get_list("warning")
    return warnings
