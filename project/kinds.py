"""The kinds of `[cloud.<instance>.<kind>]`: one model a kind."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from project.database import DbConfig
from project.table import U16, BuildMode, Port, Table


class Kind(DbConfig):
    """The table of one kind under `[cloud.<instance>]`."""

    KIND: ClassVar[str]
    RUNTIME: ClassVar[bool] = True
    """False: the kind only stores images."""
    STORAGE: ClassVar[dict[str, str]] = {}
    """What object storage in the kind's own cloud is reached by, where that is not AWS."""
    MAKES_BUCKETS: ClassVar[bool] = False
    """Whether its own cloud has object storage that HelixDB can use, where its provider makes the
    bucket."""
    KEEPS: ClassVar[frozenset[str]] = frozenset()
    """Keys that its provider wants in its settings, though they are a part of `Instance` too."""


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
    gateway_url: str | None = None
    """Where queries go, if they are to be part of the health check."""
    token: str | None = None
    """A secret reference to the user's key; what HelixDB's command stored at login if absent."""
    endpoint: str | None = None
    """Another address of Helix Cloud's API."""


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
    profile: str | None = None
    """The profile of AWS's configuration to use."""
    endpoint_url: str | None = None
    """Another address of the AWS API."""
    registry_host: str | None = None
    """Another host for the images themselves, such as a private endpoint."""
    build_mode: BuildMode = "release"
    """How the engine is compiled; also names the image's tag."""


class OnEngine(Runtime):
    """What every kind that speaks to a Docker engine can be told."""

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
    network: str | None = None
    """A network of the engine to join."""


class Docker(OnEngine):
    """A container on a Docker engine: this machine's, or another's over SSH or TLS."""

    KIND = "docker"

    address: str | None = None
    """The address on the engine's machine to publish the port on."""
    edge: str | None = None
    """The image of the proxy in front of releases; caddy:2 if absent, no proxy if empty."""


class Swarm(OnEngine):
    """A service on a Docker Swarm."""

    KIND = "swarm"

    replicas: Annotated[int, Field(ge=1)] = 1
    """How many containers; a database with a volume has one."""
    constraints: list[str] = []
    """Where they may run, such as node.labels.disk==ssd."""
    publish_mode: Literal["ingress", "host"] = "ingress"
    """ingress: the port is open on every node. host: on the container's own node only."""
    monitor: Annotated[float, Field(gt=0)] = 5
    """Seconds for which Swarm watches each new container before it believes in it."""
    secret_files: bool = False
    """Secrets become files under /run/secrets, and <NAME>_FILE names each."""


class Aws(Runtime):
    """Amazon ECS on Fargate."""

    KIND = "aws"
    MAKES_BUCKETS = True

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
    MAKES_BUCKETS = True
    STORAGE = {"endpoint_url": "https://storage.googleapis.com", "region": "auto"}

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
    """Another address of Google's APIs: Cloud Run, Secret Manager and Logging."""


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
    """The environment's storage that holds the volume: an NFS share."""
    identity: str | None = None
    """The managed identity that pulls from acr: a user-assigned one's id, or system-environment."""
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
    start_deadline: Annotated[int, Field(ge=1)] = 600
    """Seconds a pod may take to be scheduled, pull its image and start."""


class ImageStore(Kind):
    """What every kind that only stores images can be told."""

    RUNTIME = False

    build_mode: BuildMode = "release"
    """HelixDB v2: how the engine is compiled; also names the image's tag."""
    username: str | None = None
    """The user; what `docker login` stored if it is absent."""
    password: str | None = None
    """A secret reference to the password or token."""
    registry_host: str | None = None
    """Another host for the images themselves, such as a private endpoint or a proxy."""


class StoredImage(ImageStore):
    """What a package's kind that only stores images is told, besides its own settings."""

    repository: str
    """The host and path, without a tag."""


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
    endpoint: str | None = None
    """Another address of the Artifact Registry API."""


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
