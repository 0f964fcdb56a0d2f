"""The whole of helix.toml as models: what every key means, its type, and its default.

Nothing here reads a file. Types are strict, as HelixDB's own CLIs are: a string is never taken for
a number. Unknown keys are kept and never refused (`extra="allow"`); the reader warns about them.
The JSON Schema and the reference page are generated from these models, so a field's description is
what a person reads there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue


class Table(BaseModel):
    """A table of helix.toml."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    ALIASES: ClassVar[dict[str, str]] = {}
    """Other spellings of a key that some HelixDB CLI or its documentation has used."""
    VALUES: ClassVar[dict[str, dict[str, Any]]] = {}
    """Key -> other spellings of its values."""


U16 = Annotated[int, Field(ge=0, le=2**16 - 1)]
U32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Field(ge=0, le=2**64 - 1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1)]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)")


def _seconds(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number of seconds, or a duration such as «30s», «5m», «2h»")
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("a number of seconds, or a duration such as «30s», «5m», «2h»")
        return float(match[1]) * _UNITS[match[2]]
    return value


def _words(value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=float | str),
    Field(ge=0, le=10 * 365 * 86400.0),
]
"""Seconds as a number, or a duration such as "30s", "5m", "2h"."""
Words = Annotated[list[str], BeforeValidator(_words, json_schema_input_type=list[str] | str)]
"""A command: a list of words, or one string that is split as a shell would."""


def _either(short: Callable[[str], dict[str, Any]]) -> Callable[[Any], Any]:
    """Lets one string stand for a whole table."""
    return lambda value: short(value) if isinstance(value, str) else value


BuildMode = Literal["dev", "debug", "release"]


# --- the project ---------------------------------------------------------------------------------


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


# --- the database --------------------------------------------------------------------------------


class VectorConfig(Table):
    """The vector index of a HelixDB v2."""

    m: U32 = 16
    """Neighbours per node of the index."""
    ef_construction: U32 = 128
    """Candidates looked at while the index is built."""
    ef_search: U32 = 768
    """Candidates looked at in a search."""
    db_max_size_gb: U32 = 20
    """The most the database may grow to, in GB."""


class GraphConfig(Table):
    """The graph of a HelixDB v2."""

    secondary_indices: list[str] = []
    """Properties that get an index of their own."""


class DbConfig(Table):
    """The settings of a HelixDB v2, written directly into the instance's table."""

    mcp: bool = True
    """Serve the Model Context Protocol under /mcp/."""
    bm25: bool = True
    """Keep a full-text index."""
    vector_config: VectorConfig = VectorConfig()
    """The vector index."""
    graph_config: GraphConfig = GraphConfig()
    """The graph."""
    schema_: str | None = Field(None, alias="schema")
    """The schema, if it is not in a schema.hx."""
    embedding_model: str | None = "text-embedding-ada-002"
    """The model that makes embeddings; a prefix such as gemini: chooses the provider."""
    graphvis_node_label: str | None = None
    """The property that the dashboard labels nodes with."""


# --- where an instance runs ----------------------------------------------------------------------


class S3Storage(Table):
    """The object storage of a local HelixDB v3 (`storage = "s3"`)."""

    bucket: Name
    """The bucket."""
    prefix: str = "db/"
    """Where in the bucket."""
    region: str = "us-east-1"
    """The bucket's region."""
    endpoint_url: str | None = Field(None, pattern=r"^https?://")
    """The address of a storage that is not AWS."""
    allow_http: bool = False
    """Allow an address without TLS."""


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
    storage: Literal["memory", "disk", "s3"] = "memory"
    """HelixDB v3: where the data is kept. `memory` loses it with the container."""
    s3: S3Storage | None = None
    """HelixDB v3: the object storage, for `storage = "s3"`."""


class Kind(DbConfig):
    """The table of one kind under `[cloud.<instance>]`."""

    KIND: ClassVar[str]
    RUNTIME: ClassVar[bool] = True
    """False: the kind only stores images."""


class Runtime(Kind):
    """What every kind that runs containers can be told, besides its own settings."""

    port: Port | None = None
    """The port the container listens on."""
    image: str | None = None
    """A prebuilt image to run instead of building one."""
    volume: str | None = None
    """A volume for the data, as <name>:<mount>."""
    build_mode: BuildMode = "release"
    """HelixDB v2: how the engine is compiled."""


class HelixCloud(Kind):
    """Helix Cloud: managed by HelixDB."""

    KIND = "helix"

    cluster_id: str
    """The cluster to deploy to."""
    region: str | None = None
    """The cluster's region."""
    build_mode: BuildMode = "dev"
    """How the queries are compiled."""
    env_vars: dict[str, str] = {}
    """Environment variables of the cluster. Put secrets into [deploy] instead."""


VmSize = Literal[
    "shared-cpu-1x",
    "shared-cpu-2x",
    "shared-cpu-4x",
    "shared-cpu-8x",
    "performance-1x",
    "performance-2x",
    "performance-4x",
    "performance-8x",
    "performance-16x",
    "a10",
    "a100-40gb",
    "a100-80gb",
    "l40s",
]


class Fly(Kind):
    """Fly.io: one machine per instance."""

    KIND = "fly"
    ALIASES = {"privacy": "private"}
    VALUES = {
        "auth_type": {"cli": "Cli", "api_key": "ApiKey"},
        "privacy": {"Private": True, "Public": False},
    }

    vm_size: VmSize
    """The size of the machine."""
    volume: str | None = None
    """The volume, as <name>:<mount>; helix_<project>_<instance>_data:/data if it is absent."""
    volume_initial_size: U16
    """The volume's size in GB."""
    auth_type: Literal["Cli", "ApiKey"]
    """Whose credentials to use: those of flyctl, or a token."""
    private: bool = False
    """No public address."""
    region: str | None = None
    """The region of the machine, such as ams."""
    build_mode: BuildMode = "release"
    """How the engine is compiled."""
    app_name: str | None = None
    """Not used by HelixDB's CLI: the app is called helix-<project>-<instance>."""
    org: str | None = None
    """The Fly organisation of a new app; personal if it is absent."""
    token: str | None = None
    """A secret reference to the Fly token; env:FLY_API_TOKEN if it is absent."""


class Ecr(Kind):
    """Amazon ECR: stores the image and runs nothing."""

    KIND = "ecr"
    RUNTIME = False
    VALUES = {"auth_type": {"aws_cli": "AwsCli"}}

    repository_name: str
    """The repository in the registry."""
    region: str
    """The AWS region of the registry."""
    registry_url: str | None = None
    """The registry's host; that of the account in use if it is absent."""
    auth_type: Literal["AwsCli"]
    """Credentials come from AWS's own chain."""
    build_mode: BuildMode = "release"
    """How the engine is compiled; also names the image's tag."""


class Docker(Runtime):
    """A container on a Docker engine: this machine's, or another's over SSH or TLS."""

    KIND = "docker"

    host: str = ""
    """The engine: unix:///var/run/docker.sock, ssh://user@host:22 or tcp://host:2376. The engine
    the worker finds by itself if it is absent."""
    tls: str | None = None
    """A folder with ca.pem, cert.pem and key.pem, for tcp://."""
    ssh_key: str | None = None
    """The private key file, for ssh://; what ssh finds by itself if it is absent."""
    known_hosts: str | None = None
    """The file of known host keys, for ssh://."""
    publish: Port | None = None
    """The port on the engine's machine."""
    address: str | None = None
    """The address on the engine's machine to publish the port on."""
    network: str | None = None
    """A network of the engine to join."""


class Swarm(Docker):
    """A service on a Docker Swarm."""

    KIND = "swarm"

    replicas: Annotated[int, Field(ge=0)] = 1
    """How many containers; a database with a volume has one."""
    constraints: list[str] = []
    """Where they may run, such as node.labels.disk==ssd."""


class Aws(Runtime):
    """Amazon ECS on Fargate."""

    KIND = "aws"

    region: str
    """The AWS region."""
    profile: str | None = None
    """The profile of AWS's configuration to use."""
    cluster: str | None = None
    """The ECS cluster; `default` if it is absent."""
    service: str | None = None
    """The ECS service; helix-<project>-<instance> if it is absent."""
    cpu: Annotated[int, Field(ge=256)] = 512
    """CPU units; 1024 are one processor."""
    memory: Annotated[int, Field(ge=512)] = 1024
    """Memory in MiB."""
    replicas: Annotated[int, Field(ge=0)] = 1
    """How many tasks."""
    subnets: list[str] = []
    """The subnets of the tasks."""
    security_groups: list[str] = []
    """The security groups of the tasks."""
    public_ip: bool = False
    """Give tasks a public address."""
    target_group: str | None = None
    """The ARN of a load balancer's target group."""
    execution_role: str | None = None
    """The ARN of the role that starts tasks."""
    task_role: str | None = None
    """The ARN of the role that tasks have."""
    file_system: str | None = None
    """The EFS file system that holds the volume."""
    endpoint_url: str | None = None
    """Another address of the AWS API."""


class Gcp(Runtime):
    """Google Cloud Run."""

    KIND = "gcp"

    project_id: str
    """The Google Cloud project."""
    region: str
    """The region, such as europe-west1."""
    service: str | None = None
    """The Cloud Run service; helix-<project>-<instance> if it is absent."""
    cpu: str = "1"
    """Processors."""
    memory: str = "512Mi"
    """Memory."""
    min_instances: Annotated[int, Field(ge=0)] = 0
    """0 lets it scale to zero."""
    max_instances: Annotated[int, Field(ge=1)] = 1
    """The most containers."""
    public: bool = False
    """Anyone may call it."""
    service_account: str | None = None
    """The account the containers run as."""
    endpoint: str | None = None
    """Another address of the Cloud Run API."""


class Azure(Runtime):
    """Azure Container Apps."""

    KIND = "azure"

    subscription_id: str
    """The subscription."""
    resource_group: str
    """The resource group."""
    location: str
    """The region, such as westeurope."""
    environment: str | None = None
    """The Container Apps environment; helix-<project> if it is absent."""
    app: str | None = None
    """The container app; helix-<project>-<instance> if it is absent."""
    cpu: float = 0.5
    """Processors."""
    memory: str = "1Gi"
    """Memory."""
    min_replicas: Annotated[int, Field(ge=0)] = 0
    """0 lets it scale to zero."""
    max_replicas: Annotated[int, Field(ge=1)] = 1
    """The most containers."""
    public: bool = False
    """Reachable from outside its environment."""
    storage: str | None = None
    """The environment's storage that holds the volume."""
    endpoint: str | None = None
    """Another address of Azure's API."""


class Kubernetes(Runtime):
    """A Kubernetes cluster."""

    KIND = "kubernetes"
    ALIASES = {"kube_context": "context"}

    context: str | None = None
    """The context of the kubeconfig; the current one if it is absent."""
    kubeconfig: str | None = None
    """The kubeconfig file."""
    namespace: str = "default"
    """The namespace."""
    replicas: Annotated[int, Field(ge=0)] = 1
    """How many pods; a database with a volume has one."""
    storage_class: str | None = None
    """The storage class of the volume."""
    volume_size: str | None = None
    """The volume's size, such as 20Gi."""
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """How the service is reached."""
    host: str | None = None
    """The name the ingress answers to."""
    ingress_class: str | None = None
    """The ingress class."""
    cpu: str | None = None
    """Processors of a pod, such as 500m."""
    memory: str | None = None
    """Memory of a pod, such as 512Mi."""
    service_account: str | None = None
    """The account pods run as."""


class ImageStore(Kind):
    """What every kind that only stores images can be told."""

    RUNTIME = False

    build_mode: BuildMode = "release"
    """HelixDB v2: how the engine is compiled; also names the image's tag."""
    username: str | None = None
    """The user; what `docker login` stored if it is absent."""
    password: str | None = None
    """A secret reference to the password or token."""


class Ghcr(ImageStore):
    """The GitHub container registry: stores the image and runs nothing."""

    KIND = "ghcr"

    repository: str
    """ghcr.io/<owner>/<name>."""


class DockerHub(ImageStore):
    """Docker Hub: stores the image and runs nothing."""

    KIND = "docker_hub"

    repository: str
    """<owner>/<name>."""


class Gar(ImageStore):
    """Google Artifact Registry: stores the image and runs nothing."""

    KIND = "gar"

    repository: str
    """<location>-docker.pkg.dev/<project>/<repository>/<name>."""


class Acr(ImageStore):
    """Azure Container Registry: stores the image and runs nothing."""

    KIND = "acr"

    repository: str
    """<registry>.azurecr.io/<name>."""


class Oci(ImageStore):
    """Any registry that speaks the OCI distribution API: stores the image and runs nothing."""

    KIND = "oci"

    repository: str
    """<host>/<path>."""
    ca: str | None = None
    """A file with the registry's certificate authority."""
    insecure: bool = False
    """Plain HTTP, on loopback only."""


KINDS: dict[str, type[Kind]] = {
    cls.KIND: cls
    for cls in (
        HelixCloud, Fly, Ecr,
        Docker, Swarm, Aws, Gcp, Azure, Kubernetes,
        Ghcr, DockerHub, Gar, Acr, Oci,
    )
}  # fmt: skip
"""Every kind that `[cloud.<instance>.<kind>]` can name without a plug-in."""

KIND_ALIASES = {"HelixCloud": "helix", "Helix": "helix", "FlyIo": "fly", "Ecr": "ecr"}
"""How unreleased HelixDB CLIs spelled them."""


class CloudTable(Table):
    """An instance elsewhere: exactly one table, named for its kind."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    helix: HelixCloud | None = None
    fly: Fly | None = None
    ecr: Ecr | None = None
    docker: Docker | None = None
    swarm: Swarm | None = None
    aws: Aws | None = None
    gcp: Gcp | None = None
    azure: Azure | None = None
    kubernetes: Kubernetes | None = None
    ghcr: Ghcr | None = None
    docker_hub: DockerHub | None = None
    gar: Gar | None = None
    acr: Acr | None = None
    oci: Oci | None = None


class EnterpriseTable(DbConfig):
    """An instance on a Helix Enterprise cluster."""

    cluster_id: Name
    """The cluster to deploy to."""
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


# --- how to deploy -------------------------------------------------------------------------------


Statuses = Annotated[
    list[Annotated[int, Field(ge=100, le=599)]],
    BeforeValidator(_list, json_schema_input_type=list[int] | int),
]


class HealthCheckTable(Table):
    """How to tell that a release works."""

    kind: Literal["http", "tcp", "command", "none"] | None = None
    """What to do: `http` if a path is given, `command` if a command is."""
    path: str | None = None
    """The path to get."""
    port: Port | None = None
    """The container's port to probe; the instance's own if it is absent."""
    status: Statuses | None = None
    """Accepted status codes; any from 200 to 399 if it is absent."""
    body: str | None = None
    """A regular expression that the body must contain."""
    command: Words | None = None
    """What to run inside the container; exit code 0 is healthy."""
    start_period: Seconds | None = None
    """Failures in this first time do not count."""
    interval: Seconds | None = Field(None, gt=0)
    """The time between two probes."""
    timeout: Seconds | None = Field(None, gt=0)
    """The time one probe may take."""
    successes: Annotated[int, Field(ge=1)] | None = None
    """How many in a row make the release healthy."""
    deadline: Seconds | None = Field(None, gt=0)
    """The release must be healthy within this time."""


class BuildTable(Table):
    """How the artifact is made."""

    kind: Literal["dockerfile", "image", "helix", "bundle"] | None = None
    """What it is made from; found out from the other keys and the project's files if absent."""
    context: str | None = None
    """The build context, relative to this file."""
    dockerfile: str | None = None
    """The Dockerfile, relative to the context."""
    image: str | None = None
    """A prebuilt image to take instead of building one."""
    target: str | None = None
    """The stage of the Dockerfile to build."""
    platform: str | None = None
    """Such as linux/amd64."""
    args: dict[str, str] = {}
    """Build arguments. Not for secrets: they stay in the image."""
    secrets: dict[str, str] = {}
    """Build secrets: id to secret reference, for RUN --mount=type=secret,id=…"""


class RegistryTable(Table):
    """Where the instance's images are stored."""

    ALIASES = {"user": "username"}

    kind: str = "oci"
    """oci, ecr, ghcr, docker_hub, gar, acr, or a plug-in's."""
    repository: str = ""
    """The host and path, without a tag."""
    username: str | None = None
    """The user; what `docker login` stored if it is absent."""
    password: str | None = None
    """A secret reference to the password or token."""
    ca: str | None = None
    """A file with the registry's certificate authority."""
    insecure: bool | None = None
    """Plain HTTP, on loopback only."""


class VolumeTable(Table):
    """A place where data outlives the release."""

    mount: Annotated[str, Field(pattern=r"^/")]
    """The absolute path in the container."""
    name: str = ""
    """The platform's volume."""
    path: str = ""
    """A folder on the engine's machine instead; relative to this file for a local instance."""
    size_gb: Annotated[int, Field(ge=0)] = 0
    """The size of a new volume; the platform's default if it is absent."""


class StepTable(Table):
    """How patient one step is."""

    timeout: Seconds | None = Field(None, gt=0)
    """How long one attempt may take."""
    deadline: Seconds | None = Field(None, gt=0)
    """How long all attempts together may take."""
    heartbeat: Seconds | None = Field(None, gt=0)
    """How long a worker may be silent before it is taken for dead."""
    attempts: Annotated[int, Field(ge=1)] | None = None
    """How many attempts at most."""
    backoff: Seconds | None = Field(None, gt=0)
    """The time before the second attempt; doubles from then on."""


class StepsTable(Table):
    """How patient each step is."""

    ALIASES = {"health_check": "health-check"}

    validate_: StepTable | None = Field(None, alias="validate")
    """Reading the configuration and asking the platform."""
    build: StepTable | None = None
    """Making the artifact."""
    authenticate: StepTable | None = None
    """Checking the credentials."""
    push: StepTable | None = None
    """Storing the image."""
    deploy: StepTable | None = None
    """Making the release the running one."""
    health_check: StepTable | None = Field(None, alias="health-check")
    """Probing until it is healthy."""


def _volume(text: str) -> dict[str, Any]:
    """«data:/data» names a volume; «./data:/data» or «/srv/data:/data» a folder."""
    place, colon, mount = text.partition(":")
    if not (place and colon and mount.startswith("/")):
        raise ValueError("<name or folder>:<mount>, such as data:/data")
    return {"path" if place.startswith((".", "/", "~")) else "name": place, "mount": mount}


AnyHealthCheck = Annotated[
    HealthCheckTable,
    BeforeValidator(_either(lambda path: {"path": path}), HealthCheckTable | str),
]
AnyRegistry = Annotated[
    RegistryTable,
    BeforeValidator(_either(lambda repository: {"repository": repository}), RegistryTable | str),
]
AnyVolume = Annotated[VolumeTable, BeforeValidator(_either(_volume), VolumeTable | str)]


class DeploySettings(Table):
    """How an instance is deployed."""

    ALIASES = {"environment": "env", "healthcheck": "health_check", "health-check": "health_check"}

    health_check: AnyHealthCheck | None = None
    """How to tell that a release works; a string is the path of an HTTP check."""
    strategy: Literal["auto", "start-first", "stop-first"] | None = None
    """`auto`: stop-first if there is a volume, else start-first."""
    env: dict[str, str] = {}
    """Environment variables of the container. Not for secrets."""
    secrets: dict[str, str] = {}
    """Environment variables whose values are secrets: name to secret reference, such as
    env:API_KEY or file:/run/secrets/api_key. Only the worker ever reads the value."""
    build: BuildTable | None = None
    """How the artifact is made."""
    registry: AnyRegistry | None = None
    """Where images are stored; a string is the repository, without a tag."""
    port: Port | None = None
    """The port the container listens on."""
    publish: Port | None = None
    """The port on the engine's machine."""
    volumes: list[AnyVolume] | None = None
    """Where data outlives the release; a string is <name or folder>:<mount>."""
    command: Words | None = None
    """Replaces the image's own command."""
    stop_grace: Seconds | None = None
    """The time between SIGTERM and SIGKILL."""
    drain: Seconds | None = None
    """The time the old release may finish its requests in."""
    keep_releases: Annotated[int, Field(ge=1)] | None = None
    """How many earlier releases stay available for a rollback."""
    throw_away: bool | None = None
    """The instance may lose its data."""
    steps: StepsTable = StepsTable()
    """How patient each step is: validate, build, authenticate, push, deploy, health-check."""
    approval: JsonValue = None
    """Who must agree before a release goes on."""
    notifications: JsonValue = None
    """Who is told how a deployment ended."""
    schedule: JsonValue = None
    """When to deploy by itself."""
    freeze: JsonValue = None
    """When not to deploy."""
    policy: JsonValue = None
    """What a release must fulfil."""


class HelixToml(Table):
    """A helix.toml: a project, its instances, and how they are deployed."""

    project: ProjectTable
    local: dict[str, LocalTable] = {}
    """Instances on this machine."""
    cloud: dict[str, CloudTable] = {}
    """Instances elsewhere."""
    enterprise: dict[str, EnterpriseTable] = {}
    """Instances on Helix Enterprise."""
