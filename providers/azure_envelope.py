"""The container app that we ask Azure for: all of a new one, or what changes of an old one."""

from __future__ import annotations

from collections.abc import Sequence

from azure.mgmt.appcontainers import models as az

from model import names
from model.errors import ConfigurationError
from model.platform import Release
from providers import azure_app as aca
from providers.azure_app import AzureSettings, Target
from providers.azure_secrets import Secrets
from providers.base import Context


class Envelope:
    """Makes the envelopes for one release.

    Args:
        secrets: of the app; those that the release needs are added to them.
    """

    def __init__(
        self, release: Release, settings: AzureSettings, secrets: Secrets, context: Context
    ) -> None:
        self._release = release
        self._instance = release.instance
        self._settings = settings
        self._secrets = secrets
        self._context = context
        self._refs = secrets.put(self._instance.secrets, release.deployment, context.secret)

    def new(self, traffic: Sequence[Target]) -> az.ContainerApp:
        """An app that is not there yet. It remembers which deployment made it."""
        own = self._settings
        environment = aca.environment_name(own, self._instance)
        return az.ContainerApp(
            location=own.location,
            tags={
                names.LABEL_INSTANCE: self._instance.key,
                names.LABEL_DEPLOYMENT: self._release.deployment,
            },
            identity=self._identity(None),
            properties=az.ContainerAppProperties(
                environment_id=f"/subscriptions/{own.subscription_id}/resourceGroups/"
                f"{own.resource_group}/providers/Microsoft.App/managedEnvironments/{environment}",
                configuration=self._configuration(traffic, (), external=own.public),
                template=self._template(""),
            ),
        )

    def change(
        self, app: az.ContainerApp, traffic: Sequence[Target], previous: str
    ) -> az.ContainerApp:
        """What is merged into an app for a new revision: what people set beside it stays.

        Args:
            previous: the revision that was stopped for it; empty if none was.
        """
        registries = aca.configuration(app).registries or ()
        return az.ContainerApp(
            location=str(app.location),
            tags={**(app.tags or {}), names.LABEL_INSTANCE: self._instance.key},
            identity=self._identity(app.identity),
            properties=az.ContainerAppProperties(
                configuration=self._configuration(traffic, registries, external=None),
                template=self._template(previous),
            ),
        )

    def _configuration(
        self,
        traffic: Sequence[Target],
        registries: Sequence[az.RegistryCredentials],
        *,
        external: bool | None,
    ) -> az.Configuration:
        ours = self._registry()
        others = [one for one in registries if ours is None or one.server != ours.server]
        return az.Configuration(
            active_revisions_mode=az.ActiveRevisionsMode.MULTIPLE,
            # Until the next prune nothing may be forgotten that a rollback could need.
            max_inactive_revisions=aca.MOST_INACTIVE,
            ingress=az.Ingress(
                external=external,
                target_port=self._instance.port,
                traffic=aca.weights(traffic),
            ),
            secrets=list(self._secrets.all.values()),
            registries=[*others, *([ours] if ours is not None else [])],
        )

    def _template(self, previous: str) -> az.Template:
        return aca.template(self._release, self._settings, self._refs, previous)

    def _registry(self) -> az.RegistryCredentials | None:
        """What Azure pulls the image with: a managed identity, or a password of the registry.

        Raises:
            ConfigurationError: what `docker login` stored is a token that Azure cannot use.
        """
        registry = self._instance.registry
        if registry is None:
            return None
        if registry.kind == "acr" and not registry.settings.get("username"):
            server = registry.settings.get("registry_host") or registry.repository.split("/")[0]
            return az.RegistryCredentials(server=str(server), identity=self._settings.identity)
        pull = self._context.pull()
        if pull is None:
            return None
        if pull.username.startswith("<"):
            raise ConfigurationError(
                f"docker is logged in to {pull.registry} with a token that Azure cannot use",
                hint=f"set username and password in [deploy.{self._instance.name}.registry]",
            )
        return self._secrets.put_password(pull, self._release.deployment)

    def _identity(self, has: az.ManagedServiceIdentity | None) -> az.ManagedServiceIdentity | None:
        """The managed identity that the app is given, beside those that it has."""
        wanted = self._settings.identity
        if not wanted or wanted == "system-environment":
            return None
        kinds = {one.strip() for one in str(has.type if has else "None").split(",")} - {"None"}
        if wanted == "system":
            return az.ManagedServiceIdentity(type=",".join(sorted({*kinds, "SystemAssigned"})))
        return az.ManagedServiceIdentity(
            type=",".join(sorted({*kinds, "UserAssigned"})),
            user_assigned_identities={wanted: az.UserAssignedIdentity()},
        )
