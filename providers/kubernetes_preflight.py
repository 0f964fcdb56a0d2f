"""What can be known to fail on a cluster before anything is changed. Reads only."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from model.errors import ConfigurationError, Conflict, NotFound, PermissionDenied
from model.instance import Instance
from model.names import LABEL_INSTANCE
from providers import kubernetes_objects as objects
from providers.kubernetes_api import Api
from providers.kubernetes_objects import KubernetesSettings
from providers.kubernetes_permissions import FORWARD, Permissions, needed

Json = dict[str, Any]
DOCUMENT = "docs/providers/kubernetes.md"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def who(api: Api) -> tuple[str, datetime | None]:
    """Whom the API server takes us for, and until when the token is good, if it says so."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    found = api.cluster(
        "AuthenticationV1Api", "create_self_subject_review", body, doing="create selfsubjectreviews"
    )
    return str(found["status"]["userInfo"]["username"]), _expiry(api.token)


def _expiry(token: str) -> datetime | None:
    """When a token ends, if it is one that says so (a JWT). It is not verified: the API server has
    just done that."""
    with suppress(ValueError, IndexError, KeyError, TypeError):
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    return None


class Preflight:
    """The checks of one instance.

    Args:
        notes: where warnings for the person go.
    """

    def __init__(
        self, api: Api, instance: Instance, settings: KubernetesSettings, notes: list[str]
    ) -> None:
        self._api = api
        self.instance = instance
        self._settings = settings
        self._notes = notes
        self._table = f"[cloud.{instance.name}.kubernetes]"

    def run(self) -> None:
        """Look at the table, the namespace, our permissions, the disks, and what quotas and
        policies say.

        Raises:
            ConfigurationError, PermissionDenied, QuotaExceeded, Conflict: with what to set.
        """
        self._check_table()
        self._check_namespace()
        self._check_permissions()
        for volume in self.instance.volumes:
            self._check_claim(objects.claim_name(volume))
        self._try()
        if self.instance.stop_first:
            self._notes.append("the pod is replaced: requests fail until the new one is healthy")
        if beyond := objects.beyond_probe(self.instance.health_check):
            self._notes.append(
                "nodes take any answer from 200 to 399 for healthy, whatever "
                f"{' and '.join(beyond)} in health_check say"
            )

    def _check_table(self) -> None:
        own, instance = self._settings, self.instance
        deploy = f"[deploy.{instance.name}]"
        if instance.registry is None and instance.build.kind != "image":
            raise ConfigurationError(
                "nodes pull images from a registry, and none is named",
                hint=f'add [deploy.{instance.name}.registry] with kind = "oci" and a repository',
            )
        for volume in instance.volumes:
            if volume.path or not objects.claim_name(volume):
                raise ConfigurationError(
                    f"«{volume.path or volume.name}» cannot be a claim: a pod may run on any node",
                    hint=f'name the volume in {deploy}: volume = "data:{volume.mount}"',
                )
        if instance.volumes and not instance.stop_first:
            raise ConfigurationError(
                "two releases would have the same volume open at once",
                hint=f'remove strategy = "start-first" from {deploy}',
            )
        if instance.stop_first and own.replicas != 1:
            raise ConfigurationError(
                f"{own.replicas} pods cannot take turns",
                hint=f"set replicas = 1 in {self._table}: with a volume, object storage, or "
                'strategy = "stop-first", there is a single writer',
            )
        if own.replicas == 0 and instance.health_check.kind != "none":
            raise ConfigurationError(
                "without a pod there is nothing to check",
                hint=f'set replicas in {self._table}, or kind = "none" in health_check',
            )

    def _check_namespace(self) -> None:
        name = self._api.namespace
        try:
            found = self._api.cluster(
                "CoreV1Api", "read_namespace", name, doing=f"get namespaces {name}"
            )
        except NotFound:
            raise ConfigurationError(
                f"there is no namespace «{name}» on {self._api.host}",
                hint=f"make it: kubectl create namespace {name}; or correct namespace in "
                f"{self._table}",
            ) from None
        except PermissionDenied:
            return  # what we may do in it is asked next
        if found["status"].get("phase") == "Terminating":
            raise Conflict(f"the namespace «{name}» is being deleted", hint="use another")

    def _check_permissions(self) -> None:
        ours = Permissions(self._api)
        if lacking := ours.lacking(needed(self.instance, self._settings)):
            raise PermissionDenied(
                f"in the namespace {self._api.namespace} we lack {'; '.join(lacking)}",
                hint=f"apply the Role in {DOCUMENT}",
            )
        checked = self.instance.health_check.kind in ("http", "tcp")
        if checked and ours.lacking([FORWARD]):
            self._notes.append(
                "without the permission to create pods/portforward, releases are not checked from "
                "here: their readiness decides"
            )

    def _check_claim(self, name: str) -> None:
        found = self._api.find("PersistentVolumeClaim", name)
        if found is None:
            self._check_storage_class()
            return
        owner = (found["metadata"].get("annotations") or {}).get(LABEL_INSTANCE)
        if owner not in (None, self.instance.key):
            raise Conflict(
                f"the claim {name} holds the data of {owner}",
                hint=f"name the volume otherwise in [deploy.{self.instance.name}]",
            )
        size = self._settings.volume_size
        has = found["spec"]["resources"]["requests"]["storage"]
        if size and size != has:
            self._notes.append(
                f"the claim {name} has {has} and stays as it is; to grow it: kubectl edit pvc "
                f"{name}"
            )

    def _check_storage_class(self) -> None:
        wanted = self._settings.storage_class
        try:
            listed = self._api.cluster(
                "StorageV1Api", "list_storage_class", doing="list storageclasses"
            )["items"]
        except PermissionDenied:
            return  # a claim without a disk shows in the pod's state
        known = [str(one["metadata"]["name"]) for one in listed]
        if wanted and wanted not in known:
            raise ConfigurationError(
                f"the cluster has no storage class «{wanted}»",
                hint=f"set storage_class in {self._table} to one of: {', '.join(known)}",
            )
        if not wanted and not any(_is_default(one) for one in listed):
            raise ConfigurationError(
                "the cluster has no default storage class",
                hint=f"set storage_class in {self._table} to one of: {', '.join(known) or 'none'}",
            )

    def _try(self) -> None:
        """Ask the API server to make such a pod, but not to keep it: quotas, limits, pod security,
        accounts and policies all have their say."""
        registry = self.instance.registry
        image = registry.repository if registry and registry.repository else "image"
        name = f"{objects.base_name(self.instance)}-trial"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": objects.metadata(self.instance, name, {}),
            "spec": objects.pod(self.instance, self._settings, image, "trial"),
        }
        self._api.create(pod, dry_run=True)


def _is_default(storage_class: Json) -> bool:
    notes = storage_class["metadata"].get("annotations") or {}
    return notes.get(DEFAULT_CLASS) == "true"
