"""What is sent to Helix Cloud, and how it is known again.

Helix Cloud keeps the last sources and the helix.toml that came with them, and nothing of ours. So
that helix.toml ends with a comment of ours, which says which release it is; HelixDB's CLIs read
over it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import tomlkit

from model.base import Record, digest_of
from model.instance import Instance
from model.platform import Release, Revision
from providers.helix_api import Json

QUERIES = "queries.json"
"""The compiled queries of an enterprise cluster, beside its sources."""
MARK = "# helix-deploy: "
SCHEMA = "schema.hx"


class Mark(Record):
    """What our comment says."""

    deployment: str
    release: int
    artifact: str
    config: str


class Content(Record):
    """A bundle that is, or was, deployed."""

    files: dict[str, str]
    """Path relative to the queries folder -> text."""
    queries: str = ""
    """The compiled queries (enterprise), as base64."""
    helix_toml: str = ""
    env: dict[str, str] = {}
    """Environment variables; never secrets."""

    @property
    def digest(self) -> str:
        """Names the files, whoever deployed them."""
        return digest_of(sorted(self.files.items()))

    @property
    def mark(self) -> Mark | None:
        """Our comment; None if somebody else deployed it."""
        for line in reversed(self.helix_toml.splitlines()):
            if line.startswith(MARK):
                return Mark.model_validate_json(line.removeprefix(MARK))
        return None

    def revision(self) -> Revision:
        """What the pipeline keeps of it."""
        mark = self.mark
        if mark is None:
            return Revision(id=self.digest)
        return Revision(
            id=self.digest,
            release=mark.release,
            deployment=mark.deployment,
            artifact=mark.artifact,
            config=mark.config,
        )


def content_of(release: Release, files: Mapping[str, bytes]) -> Content:
    """A release's bundle, ready to be sent.

    Args:
        files: of the bundle.
    """
    instance = release.instance
    mark = Mark(
        deployment=release.deployment,
        release=release.number,
        artifact=release.artifact.identity,
        config=instance.config_digest,
    )
    queries = files.get(QUERIES, b"")
    return Content(
        files={
            path: content.decode() for path, content in sorted(files.items()) if path != QUERIES
        },
        queries=base64.b64encode(queries).decode(),
        helix_toml=f"{_toml(instance)}\n{MARK}{mark.model_dump_json()}\n",
        env=instance.env,
    )


def content_from(snapshot: Json) -> Content:
    """What Helix Cloud says it has."""
    files = snapshot.get("source_files") or snapshot.get("hx_files") or {}
    return Content(
        files={str(path): str(text) for path, text in files.items()},
        helix_toml=str(snapshot.get("helix_toml") or ""),
    )


def body_of(
    content: Content, instance: Instance, secrets: Mapping[str, str], *, enterprise: bool
) -> Json:
    """The body of a deployment."""
    shared: Json = {"instance_name": instance.name, "helix_toml": content.helix_toml}
    if enterprise:
        return shared | {
            "queries_json_b64": content.queries,
            "queries_json_size_bytes": len(base64.b64decode(content.queries)),
            "source_files": content.files,
        }
    schema = [text for path, text in content.files.items() if path.endswith(SCHEMA)]
    return shared | {
        "schema": "\n".join(schema),
        "queries": {
            path: text for path, text in content.files.items() if not path.endswith(SCHEMA)
        },
        "env_vars": {**content.env, **secrets},
        "build_mode": instance.build_mode or "dev",
        "build_mode_override": None,
    }


def _toml(instance: Instance) -> str:
    """The part of helix.toml that is this instance, as HelixDB's CLI sends it."""
    settings: dict[str, Any] = {
        key: value
        for key, value in instance.target.settings.items()
        if key not in ("endpoint", "token") and value is not None
    }
    if instance.target.kind == "enterprise":
        table: dict[str, Any] = {"enterprise": {instance.name: settings}}
    else:
        settings["build_mode"] = instance.build_mode or "dev"
        if instance.env:
            settings["env_vars"] = instance.env
        table = {"cloud": {instance.name: {"helix": settings}}}
    project = {"name": instance.project, "queries": instance.build.context}
    return tomlkit.dumps({"project": project, **table})


def dumped(content: Content) -> bytes:
    """As it is kept."""
    return content.model_dump_json().encode()


def loaded(data: bytes) -> Content:
    """The reverse of `dumped`."""
    return Content.model_validate(json.loads(data))
