"""The whole of helix.toml as models: what every key means, its type, and its default.

Nothing here reads a file.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from project.database import DbConfig, S3Storage
from project.kinds import CloudTable
from project.table import U16, U64, BuildMode, Name, Table


class ProjectTable(Table):
    """What the project is called, and where its queries are."""

    name: Name
    """The project's name. Images, containers, apps and volumes are named after it."""
    id: str | None = None
    """The project's id in Helix Cloud, written by HelixDB's CLI."""
    workspace_id: str | None = None
    """The workspace's id in Helix Cloud, written by HelixDB's CLI."""
    queries: str | None = None
    """The folder of the .hx files, relative to this file. HelixDB v2: ./db/, v3: db."""
    container_runtime: Literal["docker", "podman"] = "docker"
    """The container engine for local instances."""


class LocalTable(DbConfig):
    """An instance on this machine's container engine."""

    port: U16 | None = None
    """The port on this machine; 6969 if it is absent."""
    build_mode: BuildMode = "dev"
    """HelixDB v2: how the engine is compiled. `debug` is an old spelling of `dev`."""
    image: str | None = None
    """HelixDB v3: the image to run; ghcr.io/helixdb/helixdb if it is absent."""
    tag: str | None = None
    """HelixDB v3: the tag of the image; v0.0.4 if it is absent."""
    pull: str | None = None
    """HelixDB v3: when its CLI pulls the image."""
    storage: Literal["memory", "disk", "s3"] = "memory"
    """HelixDB v3: where the data is kept. `memory` loses it with the container."""
    s3: S3Storage | None = None
    """HelixDB v3: the object storage, for `storage = "s3"`."""


class EnterpriseTable(DbConfig):
    """An instance on a Helix Enterprise cluster."""

    cluster_id: str | None = Field(None, pattern=r"\S")
    """The cluster to deploy to."""
    database: str | None = Field(None, pattern=r"^(cluster|tenant):[A-Za-z0-9_-]{1,128}$")
    """cluster:<id> or tenant:<id>, as the newest HelixDB CLI writes it instead of cluster_id."""
    workspace_id: str | None = None
    """The workspace's id."""
    project_id: str | None = None
    """The project's id."""
    gateway_url: str | None = None
    """Where queries go."""
    query_auth_header: str = "Authorization"
    """The header that carries the key of a query."""
    query_auth_env: str = "HELIX_API_KEY"
    """The environment variable that holds the key of a query."""
    availability_mode: str | None = None
    """dev or ha."""
    gateway_node_type: str | None = None
    """The size of the gateway's machines."""
    db_node_type: str | None = None
    """The size of the database's machines."""
    min_instances: U64 = 1
    """The fewest database machines."""
    max_instances: U64 = 1
    """The most database machines."""
    token: str | None = None
    """A secret reference to the user's key; what HelixDB's command stored at login if absent."""
    endpoint: str | None = None
    """Another address of Helix Cloud's API."""

    @model_validator(mode="after")
    def _names_its_cluster(self) -> EnterpriseTable:
        if self.cluster_id is None and self.database is None:
            raise ValueError("the key cluster_id is missing")
        return self


class HelixToml(Table):
    """A helix.toml: a project, its instances, and how they are deployed."""

    project: ProjectTable
    local: dict[str, LocalTable] = {}
    """Instances on this machine."""
    cloud: dict[str, CloudTable] = {}
    """Instances elsewhere."""
    enterprise: dict[str, EnterpriseTable] = {}
    """Instances on Helix Enterprise."""
