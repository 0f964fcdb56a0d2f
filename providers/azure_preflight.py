"""What can be known to fail on Container Apps before anything is changed."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from azure.mgmt.appcontainers import models as az

from model.errors import ConfigurationError, NotFound, PermissionDenied, QuotaExceeded
from model.instance import Instance
from providers import azure_app as aca
from providers.azure_api import Api
from providers.azure_app import AzureSettings

INSTEAD = (
    "or remove the volume and keep the data in an S3-compatible store elsewhere (Blob Storage does "
    'not speak S3): [deploy.{name}.object_storage] with bucket = "…", endpoint_url = "https://…", '
    'access_key = "env:…" and secret_key = "env:…"; see docs/providers/azure.md'
)
APPS = "Microsoft.App/containerApps"
ENVIRONMENTS = "Microsoft.App/managedEnvironments"
NEEDED = (
    f"{APPS}/read",
    f"{APPS}/write",
    f"{APPS}/delete",
    f"{APPS}/listSecrets/action",
    f"{APPS}/revisions/read",
    f"{APPS}/revisions/activate/action",
    f"{APPS}/revisions/deactivate/action",
    f"{APPS}/revisions/replicas/read",
    f"{ENVIRONMENTS}/read",
    f"{ENVIRONMENTS}/join/action",
)
"""Permissions without which a deployment fails half-way."""
SHORT_LIVED = {"acr", "ecr", "gar"}
"""Registries whose own logins end after hours, while Azure pulls whenever it starts a container."""


class Preflight:
    """The checks of one instance. Reads only.

    Args:
        notes: where warnings for the person go.
    """

    def __init__(
        self, api: Api, instance: Instance, settings: AzureSettings, notes: list[str]
    ) -> None:
        self._api = api
        self._instance = instance
        self._settings = settings
        self._notes = notes
        self._table = f"[cloud.{instance.name}.azure]"
        self._deploy = f"[deploy.{instance.name}]"

    def run(self, is_new: bool) -> None:
        """Look at the table, the registry, the environment, its storage, the permissions, the
        quota.

        Raises:
            ConfigurationError, NotFound, PermissionDenied, QuotaExceeded: with what to set or make.
        """
        self._check_table()
        self._check_registry(is_new)
        self._check_permissions()
        environment = self._check_environment()
        self._check_volumes(environment)
        self._check_quota(environment)
        if self._instance.stop_first:
            self._notes.append("the old revision is stopped first, which interrupts service")
        elif is_new:
            self._notes.append(
                "a first release has its traffic while it is checked: the weights of a container "
                "app add up to 100"
            )
        if self._instance.stop_grace > aca.LONGEST_GRACE:
            self._notes.append(f"Azure kills a container {aca.LONGEST_GRACE} s after SIGTERM")

    def _check_table(self) -> None:
        own, instance = self._settings, self._instance
        name = aca.app_name(own, instance)
        if not aca.APP_NAME.fullmatch(name):
            raise ConfigurationError(
                f"«{name}» cannot name a container app: 2 to 32 lower-case letters, digits and "
                "single hyphens, the first a letter",
                hint=f'set app = "…" in {self._table}',
            )
        quarters, gib = own.cpu * 4, re.fullmatch(r"([0-9.]+)Gi", own.memory)
        if not (gib and quarters.is_integer() and 1 <= quarters <= 16) or (
            float(gib[1]) != own.cpu * 2
        ):
            raise ConfigurationError(
                f"Container Apps has no container with {own.cpu:g} processors and {own.memory}",
                hint="cpu goes from 0.25 to 4 in steps of 0.25, and memory is twice as many Gi: "
                f'cpu = {own.cpu:g} goes with memory = "{own.cpu * 2:g}Gi"',
            )
        taken = {
            one
            for one in {*instance.env, *instance.secrets}
            if one == aca.MARK or one.startswith(aca.RESERVED)
        }
        if taken:
            raise ConfigurationError(
                f"{', '.join(sorted(taken))} is set by Azure or by us",
                hint=f"remove it from {self._deploy}",
            )
        if own.min_replicas > own.max_replicas:
            raise ConfigurationError(
                f"min_replicas is {own.min_replicas}, and max_replicas {own.max_replicas}",
                hint=f"correct one of them in {self._table}",
            )

    def _check_registry(self, is_new: bool) -> None:
        registry, name = self._instance.registry, self._instance.name
        if registry is None:
            if self._instance.build.kind != "image":
                raise ConfigurationError(
                    f"Container Apps pulls the image of «{name}», and no registry is named",
                    hint=f'add [deploy.{name}.registry] with kind = "acr" and a repository',
                )
            return
        if registry.kind not in SHORT_LIVED or registry.settings.get("username"):
            return
        if registry.kind == "acr":
            if not self._settings.identity:
                raise ConfigurationError(
                    "Container Apps pulls from acr with a managed identity, and none is named",
                    hint=f"set identity in {self._table} to the id of one that has AcrPull: see "
                    "docs/providers/azure.md",
                )
            if self._settings.identity == "system" and is_new:
                raise ConfigurationError(
                    "a new app's own identity has no role yet that lets it pull from acr",
                    hint=f"set identity in {self._table} to a user-assigned one that has AcrPull",
                )
            return
        raise ConfigurationError(
            f"a login of the registry kind «{registry.kind}» ends after hours, and Container Apps "
            "pulls whenever it starts a container",
            hint='use a registry of kind "acr", or set username and password of one whose login '
            "lasts",
        )

    def lacking(self) -> list[str]:
        """The permissions that these credentials lack on the resource group.

        Raises:
            PermissionDenied: nor may they ask for that.
        """
        allowed = self._api.allowed(self._scope)
        wanted = [*NEEDED]
        if "/" in (self._settings.identity or ""):
            wanted.append("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action")
        return [one for one in wanted if not _granted(one, allowed)]

    @property
    def _instead(self) -> str:
        return INSTEAD.format(name=self._instance.name)

    @property
    def _scope(self) -> str:
        own = self._settings
        return f"/subscriptions/{own.subscription_id}/resourceGroups/{own.resource_group}"

    def _check_permissions(self) -> None:
        try:
            lacking = self.lacking()
        except PermissionDenied as error:
            self._notes.append(f"permissions were not checked: {error.message}")
            return
        if lacking:
            raise PermissionDenied(
                f"these credentials lack {', '.join(lacking)} on {self._scope}",
                hint="give them the role in docs/providers/azure.md, or Container Apps Contributor",
            )

    def _check_environment(self) -> az.ManagedEnvironment:
        own, name = self._settings, aca.environment_name(self._settings, self._instance)
        try:
            found: az.ManagedEnvironment = self._api.read(
                self._api.client.managed_environments.get,
                own.resource_group,
                name,
                doing=f"{ENVIRONMENTS}/read",
            )
        except NotFound as error:
            raise NotFound(
                f"there is no Container Apps environment «{name}» in {own.resource_group}",
                hint=f"make it: az containerapp env create -n {name} -g {own.resource_group} "
                f"-l {own.location}; or set environment in {self._table}",
                request_id=error.request_id,
            ) from None
        ready = aca.plain(found.properties.provisioning_state if found.properties else "")
        if ready != "Succeeded":
            raise ConfigurationError(
                f"the environment «{name}» is not ready: {ready}",
                hint=f"see: az containerapp env show -n {name} -g {own.resource_group}",
            )
        if _plain(found.location) != _plain(own.location):
            raise ConfigurationError(
                f"the environment «{name}» is in {found.location}, and location is {own.location}",
                hint=f"correct it in {self._table}: an app is where its environment is",
            )
        return found

    def _check_volumes(self, environment: az.ManagedEnvironment) -> None:
        own, volumes = self._settings, self._instance.volumes
        if self._instance.single_writer and own.max_replicas > 1:
            raise ConfigurationError(
                f"{own.max_replicas} replicas would have the same data open at once",
                hint="set max_replicas = 1: HelixDB has a single writer",
            )
        if not volumes:
            return
        if any(volume.path for volume in volumes):
            raise ConfigurationError(
                "Container Apps has no machine whose folder a volume could be",
                hint=f"give the volume a name instead of a path, {self._instead}",
            )
        if not own.storage:
            raise ConfigurationError(
                "a volume needs an NFS share of Azure Files, and none is named",
                hint=f"set storage in {self._table} to one of the environment, {self._instead}",
            )
        try:
            found: az.ManagedEnvironmentStorage = self._api.read(
                self._api.client.managed_environments_storages.get,
                own.resource_group,
                str(environment.name),
                own.storage,
                doing=f"{ENVIRONMENTS}/storages/read",
            )
        except NotFound as error:
            raise NotFound(
                f"the environment «{environment.name}» has no storage «{own.storage}»",
                hint="make it: az containerapp env storage set --storage-type NfsAzureFile …; see "
                "docs/providers/azure.md",
                request_id=error.request_id,
            ) from None
        nfs = found.properties.nfs_azure_file if found.properties else None
        if nfs is None:
            raise ConfigurationError(
                f"the storage «{own.storage}» is an SMB share, which has neither the locks nor the "
                "permissions that a database needs",
                hint=f"set storage in {self._table} to an NFS share, {self._instead}",
            )
        if aca.plain(nfs.access_mode) == "ReadOnly":
            raise ConfigurationError(
                f"the storage «{own.storage}» can only be read",
                hint="set its access mode to ReadWrite",
            )

    def _check_quota(self, environment: az.ManagedEnvironment) -> None:
        own = self._settings
        try:
            usages: list[az.Usage] = self._api.read(
                self._api.client.managed_environment_usages.list,
                own.resource_group,
                str(environment.name),
                doing=f"{ENVIRONMENTS}/usages/read",
            )
        except (PermissionDenied, NotFound) as error:
            self._notes.append(f"the quota was not checked: {error.message}")
            return
        wanted = own.cpu * max(1, own.min_replicas)
        for one in usages:
            name = str(one.name.value if one.name else "")
            if "ConsumptionCores" not in name:
                continue
            left = float(one.limit or 0) - float(one.current_value or 0)
            if wanted > left:
                raise QuotaExceeded(
                    f"the environment «{environment.name}» has {left:g} processors left of its "
                    f"{float(one.limit or 0):g}, and a new revision takes {wanted:g}",
                    hint="ask for more under «Usage + quotas» of the subscription, or set less cpu "
                    "or min_replicas",
                )


def _plain(location: str) -> str:
    """A location without the blanks and capitals of its name for people."""
    return location.lower().replace(" ", "")


def _granted(action: str, allowed: list[tuple[list[str], list[str]]]) -> bool:
    """Whether some role allows an action and does not except it."""

    def among(patterns: list[str]) -> bool:
        return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)

    return any(among(actions) and not among(excepted) for actions, excepted in allowed)
