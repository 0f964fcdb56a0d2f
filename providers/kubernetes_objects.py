"""What we ask of a cluster for one instance: names, labels and manifests.

Everything here is a function of the release and of what the API server said; nothing calls
anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from model import names
from model.errors import ConfigurationError
from model.instance import HealthCheck, Instance, Volume
from model.platform import Release, Revision
from providers.base import PullCredentials

Json = dict[str, Any]

MANAGED = {"app.kubernetes.io/managed-by": "helix-deploy"}
CONTAINER = "app"
PORT = "app"
"""The name of the container's port: a service finds it by that, whatever its number."""
FRONT = "helix.front"
"""The annotation that says how people reach the release: it comes back with a rollback."""
REPLICAS = "helix.replicas"
"""The annotation that says how many pods a Deployment has when it runs."""
SINGLE = "single"
"""The role of a pod that never runs twice at once."""
NOBODY = "none"
"""The deployment that the service selects before any release is promoted."""
LONGEST_NAME = 40
"""Characters of the name that all others begin with: a StatefulSet's pods add 22."""
DEFAULT_SIZE = "10Gi"


class KubernetesSettings(BaseModel):
    """`[cloud.<instance>.kubernetes]`."""

    model_config = ConfigDict(extra="ignore")

    context: str | None = None
    """The context of the kubeconfig; the current one if absent."""
    kubeconfig: str | None = None
    """The kubeconfig file on the worker."""
    namespace: str = "default"
    """The namespace."""
    replicas: int = Field(1, ge=0)
    """How many pods; a database with a volume has one."""
    storage_class: str | None = None
    """The storage class of the volume; the cluster's default if absent."""
    volume_size: str | None = None
    """The volume's size, such as 20Gi."""
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """How the service is reached."""
    host: str | None = None
    """The name the ingress answers to; no ingress if absent."""
    ingress_class: str | None = None
    """The ingress class; the cluster's default if absent."""
    cpu: str | None = None
    """Processors of a pod, such as 500m."""
    memory: str | None = None
    """Memory of a pod, such as 512Mi."""
    service_account: str | None = None
    """The account pods run as."""
    start_deadline: int = Field(600, ge=1)
    """Seconds a pod may take to be scheduled, pull its image and start."""


class Handle(BaseModel):
    """What any worker needs to go on with a release."""

    kind: Literal["Deployment", "StatefulSet"]
    name: str
    deployment: str
    """The label of the deployment that made it."""
    release: int
    """The newest release when the handle was made: a newer one since then supersedes it."""
    undo: str = ""
    """The label of the deployment whose release this one replaces after a failure."""


class Front(BaseModel):
    """How people reach a release."""

    port: int
    type: str = "ClusterIP"
    host: str = ""
    ingress_class: str = ""

    @classmethod
    def of(cls, annotated: Mapping[str, Any] | None) -> Front | None:
        """What an object's annotations say."""
        said = _annotations(annotated).get(FRONT)
        return cls.model_validate_json(said) if said else None


@dataclass(frozen=True)
class Marks:
    """What the labels and annotations of a pod template say."""

    instance: str
    deployment: str
    label: str
    """The deployment as a label has it."""
    release: int
    artifact: str
    config: str

    @classmethod
    def of(cls, template: Mapping[str, Any]) -> Marks:
        """Read them, of a template or of an object that has the same ones."""
        said = _annotations(template)
        labels = (template.get("metadata") or {}).get("labels") or {}
        return cls(
            instance=said.get(names.LABEL_INSTANCE, ""),
            deployment=said.get(names.LABEL_DEPLOYMENT, ""),
            label=labels.get(names.LABEL_DEPLOYMENT, ""),
            release=int(labels.get(names.LABEL_RELEASE) or 0),
            artifact=said.get(names.LABEL_ARTIFACT, ""),
            config=said.get(names.LABEL_CONFIG, ""),
        )

    def revision(self, kind: str, identity: str) -> Revision:
        """The release as the pipeline knows it."""
        return Revision(
            id=f"{kind.lower()}/{identity}",
            release=self.release,
            deployment=self.deployment,
            artifact=self.artifact,
            config=self.config,
            detail={"kind": kind, "name": identity},
        )


def _annotations(of: Mapping[str, Any] | None) -> Mapping[str, str]:
    found: Mapping[str, str] = ((of or {}).get("metadata") or {}).get("annotations") or {}
    return found


# Names --------------------------------------------------------------------------------------------


def base_name(instance: Instance) -> str:
    """The instance's name on the cluster, and of its service: a DNS label."""
    wanted = names.base_name(instance.project, instance.name).lower()
    name = re.sub(r"[^a-z0-9]+", "-", wanted).strip("-")
    return _short(name, LONGEST_NAME)


def label(text: str) -> str:
    """A text as the value of a label."""
    return _short(re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._"), 63)


def release_name(instance: Instance, deployment: str) -> str:
    """The one name of what a deployment makes.

    Args:
        deployment: its id, or its label.
    """
    tail = re.sub(r"[^a-z0-9]+", "", names.short_id(label(deployment)).lower())
    return f"{base_name(instance)}-{tail}"


def secret_name(instance: Instance, deployment: str) -> str:
    """The Secret that a deployment makes."""
    return f"{release_name(instance, deployment)}-env"


def pull_name(instance: Instance) -> str:
    """The Secret with the registry's credentials."""
    return f"{base_name(instance)}-pull"


def claim_name(volume: Volume) -> str:
    """The claim of a volume."""
    return re.sub(r"[^a-z0-9.-]+", "-", volume.name.lower()).strip("-.")


def _short(name: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: longest - 9].rstrip('-._')}-{digest}"


# Labels -------------------------------------------------------------------------------------------


def whose(instance: Instance) -> dict[str, str]:
    """The labels by which all that belongs to the instance is found."""
    return {names.LABEL_INSTANCE: base_name(instance)}


def of_deployment(instance: Instance, deployment: str) -> dict[str, str]:
    """The labels of what one deployment made. Those of a selector, too: they never change."""
    return {**whose(instance), names.LABEL_DEPLOYMENT: label(deployment)}


def metadata(
    instance: Instance, name: str, labels: Mapping[str, str], notes: Mapping[str, str] | None = None
) -> Json:
    """The metadata of an object of ours."""
    return {
        "name": name,
        "labels": {**MANAGED, "app.kubernetes.io/name": base_name(instance), **labels},
        "annotations": {names.LABEL_INSTANCE: instance.key, **(notes or {})},
    }


def release_metadata(release: Release, name: str) -> Json:
    """The metadata of what one release made, and of its pods."""
    instance = release.instance
    labels = {
        **of_deployment(instance, release.deployment),
        names.LABEL_RELEASE: str(release.number),
    }
    notes = {
        names.LABEL_DEPLOYMENT: release.deployment,
        names.LABEL_ARTIFACT: release.artifact.identity,
        names.LABEL_CONFIG: instance.config_digest,
        FRONT: front(instance).model_dump_json(),
    }
    return metadata(instance, name, labels, notes)


def front(instance: Instance) -> Front:
    """How the release is to be reached."""
    own = KubernetesSettings.model_validate(instance.target.settings)
    return Front(
        port=instance.publish or instance.port,
        type=own.service_type,
        host=own.host or "",
        ingress_class=own.ingress_class or "",
    )


# Manifests ----------------------------------------------------------------------------------------


def deployment(release: Release, settings: KubernetesSettings, template: Json) -> Json:
    """A release that runs beside the one before. Its pods change with no other release."""
    about = release_metadata(release, release_name(release.instance, release.deployment))
    about["annotations"][REPLICAS] = str(settings.replicas)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": about,
        "spec": {
            "replicas": settings.replicas,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": settings.start_deadline,
            "selector": {"matchLabels": of_deployment(release.instance, release.deployment)},
            "template": template,
        },
    }


def stateful_set(instance: Instance, template: Json) -> Json:
    """The instance's only pod. Its name is the lock: the controller starts no other before the one
    before has ended, whoever asks. `OnDelete` leaves it to us when that is, so that a template that
    never becomes ready does not keep a better one from being tried."""
    about = metadata(instance, base_name(instance), whose(instance))
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": about,
        "spec": {
            "replicas": 1,
            "serviceName": base_name(instance),
            # Failed releases count, too.
            "revisionHistoryLimit": 2 * instance.keep_releases + 5,
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {**whose(instance), names.LABEL_ROLE: SINGLE}},
            "template": template,
        },
    }


def template(
    release: Release, settings: KubernetesSettings, *, secret: str = "", pull: str = ""
) -> Json:
    """The pods of a release.

    Args:
        secret: the Secret that holds the values of its environment.
        pull: the Secret with which nodes pull its image.

    Raises:
        ConfigurationError: the release has no image in a registry.
    """
    image, instance = release.artifact.image, release.instance
    if image is None or not image.digest:
        raise ConfigurationError(
            f"the release of «{instance.name}» has no image in a registry",
            hint=f'add [deploy.{instance.name}.registry] with kind = "oci" and a repository',
        )
    about = release_metadata(release, "")
    del about["name"]
    if instance.stop_first:
        about["labels"][names.LABEL_ROLE] = SINGLE
    return {"metadata": about, "spec": pod(instance, settings, image.reference, secret, pull)}


def pod(
    instance: Instance, settings: KubernetesSettings, image: str, secret: str = "", pull: str = ""
) -> Json:
    """The specification of a pod."""
    limits = {
        key: value for key, value in (("cpu", settings.cpu), ("memory", settings.memory)) if value
    }
    container: Json = {
        "name": CONTAINER,
        "image": image,
        "env": _environment(instance, secret),
        "ports": [{"name": PORT, "containerPort": instance.port, "protocol": "TCP"}],
        "volumeMounts": [
            {"name": f"volume-{index}", "mountPath": volume.mount}
            for index, volume in enumerate(instance.volumes)
        ],
    }
    if instance.command:
        container["args"] = list(instance.command)
    if limits:
        container["resources"] = {"requests": limits, "limits": limits}
    if probe := _probe(instance):
        container["readinessProbe"] = probe
    spec: Json = {
        "containers": [container],
        "volumes": [
            {
                "name": f"volume-{index}",
                "persistentVolumeClaim": {"claimName": claim_name(volume)},
            }
            for index, volume in enumerate(instance.volumes)
        ],
        # With 0 the API server forgets a pod before it has ended, and lets another start.
        "terminationGracePeriodSeconds": max(1, math.ceil(instance.stop_grace)),
        # Neither credentials nor the names of other services in a pod that did not ask for them.
        "automountServiceAccountToken": bool(settings.service_account),
        "enableServiceLinks": False,
    }
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    if pull:
        spec["imagePullSecrets"] = [{"name": pull}]
    return spec


def _environment(instance: Instance, secret: str) -> list[Json]:
    plain: list[Json] = [{"name": key, "value": value} for key, value in instance.env.items()]
    return plain + [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for key in instance.secrets
    ]


def _probe(instance: Instance) -> Json:
    """Whether a pod gets traffic. It never kills one: a database that is busy is not restarted."""
    check = instance.health_check
    port = check.port or instance.port
    look: dict[str, Json] = {
        "http": {"httpGet": {"path": check.path, "port": port, "scheme": "HTTP"}},
        "tcp": {"tcpSocket": {"port": port}},
        "command": {"exec": {"command": list(check.command)}},
    }
    if check.kind not in look:
        return {}
    return {
        **look[check.kind],
        "periodSeconds": max(1, math.ceil(check.interval)),
        "timeoutSeconds": max(1, math.ceil(check.timeout)),
        "failureThreshold": 3,
    }


def beyond_probe(check: HealthCheck) -> list[str]:
    """The settings of a health check that a kubelet's probe does not know."""
    return [name for name in ("status", "body") if check.kind == "http" and getattr(check, name)]


def service(instance: Instance, front: Front, deployment: str) -> Json:
    """The service, whose selector says which release has the traffic.

    Args:
        deployment: the label of the deployment whose release has it.
    """
    about = metadata(
        instance, base_name(instance), whose(instance), {FRONT: front.model_dump_json()}
    )
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": about,
        "spec": {
            "type": front.type,
            "selector": {**whose(instance), names.LABEL_DEPLOYMENT: deployment},
            "ports": [{"name": PORT, "port": front.port, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def selected(found: Mapping[str, Any] | None) -> str:
    """The label of the deployment whose release a service selects; empty if there is none."""
    selector = ((found or {}).get("spec") or {}).get("selector") or {}
    chosen = str(selector.get(names.LABEL_DEPLOYMENT, ""))
    return "" if chosen == NOBODY else chosen


def url_of(service: Mapping[str, Any], front: Front | None) -> str:
    """Where people reach a service: its ingress's host, else its load balancer, else, from within
    the cluster, its name. Empty as long as the load balancer has no address."""
    if front is not None and front.host:
        return f"http://{front.host}"
    about, spec = service["metadata"], service["spec"]
    port = spec["ports"][0]["port"]
    if spec.get("type") != "LoadBalancer":
        return f"http://{about['name']}.{about['namespace']}.svc:{port}"
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    for one in balancer.get("ingress") or ():
        if address := one.get("hostname") or one.get("ip"):
            return f"http://{address}:{port}"
    return ""


def replicas_of(deployment: Mapping[str, Any]) -> int:
    """How many pods a Deployment has when it runs."""
    return int(_annotations(deployment).get(REPLICAS) or 1)


def is_single(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is the StatefulSet's."""
    labels = pod["metadata"].get("labels") or {}
    return bool(labels.get(names.LABEL_ROLE) == SINGLE)


def ingress(instance: Instance, front: Front) -> Json:
    """The ingress that leads from a host's name to the service."""
    name = base_name(instance)
    backend = {"service": {"name": name, "port": {"name": PORT}}}
    spec: Json = {
        "rules": [
            {
                "host": front.host,
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
            }
        ]
    }
    if front.ingress_class:
        spec["ingressClassName"] = front.ingress_class
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(instance, name, whose(instance)),
        "spec": spec,
    }


def claim(instance: Instance, volume: Volume, settings: KubernetesSettings) -> Json:
    """The claim of a volume: it belongs to no release."""
    size = settings.volume_size or (f"{volume.size_gb}Gi" if volume.size_gb else DEFAULT_SIZE)
    spec: Json = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if settings.storage_class:
        spec["storageClassName"] = settings.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(instance, claim_name(volume), whose(instance)),
        "spec": spec,
    }


def secret(release: Release, values: Mapping[str, SecretStr]) -> Json:
    """The values of a release's environment: immutable, so that a rollback brings them back."""
    instance = release.instance
    name = secret_name(instance, release.deployment)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": metadata(instance, name, of_deployment(instance, release.deployment)),
        "data": {key: _base64(value.get_secret_value()) for key, value in values.items()},
    }


def pull_secret(instance: Instance, found: PullCredentials) -> Json:
    """The registry's credentials for the nodes: one for all releases, as new as the last one."""
    password = found.password.get_secret_value()
    login = {
        "username": found.username,
        "password": password,
        "auth": _base64(f"{found.username}:{password}"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": metadata(instance, pull_name(instance), whose(instance)),
        "data": {".dockerconfigjson": _base64(json.dumps({"auths": {found.registry: login}}))},
    }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
