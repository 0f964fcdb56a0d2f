"""What the steps share: the stores, and how a provider or a registry is opened for one activity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr, ValidationError

from activities import beat
from model.errors import ConfigurationError
from model.instance import Instance

if TYPE_CHECKING:
    from ledger.ledger import Ledger
    from project.store import Store
    from providers.base import CloudProvider, PullCredentials
    from registries.base import Registry


@dataclass
class Services:
    """Made once by the worker; safe to use from any of its threads."""

    store: Store
    """Sources and logs, by URL."""
    ledger: Ledger
    queue: str
    """The task queue that only this worker polls."""
    logs_dir: Path
    """Where logs grow while a step runs."""
    scratch_dir: Path
    """Where a build unpacks its source; emptied when the worker starts."""
    secret: Callable[[Instance, str], SecretStr]
    """Resolves a secret reference of an instance.

    Raises:
        ConfigurationError: it leads nowhere.
    """

    @contextmanager
    def registry(self, instance: Instance) -> Iterator[Registry | None]:
        """The instance's registry for the length of the block; None if it has none."""
        from registries.base import RegistryContext
        from registries.catalog import REGISTRIES

        target = instance.registry
        if target is None:
            yield None
            return
        registry_class = REGISTRIES.load(target.kind)
        check_settings(registry_class.Settings, target.settings, f"registry of {instance.key}")
        registry: Registry = registry_class(
            target, RegistryContext(secret=partial(self.secret, instance), report=beat.report)
        )
        try:
            yield registry
        finally:
            registry.close()

    @contextmanager
    def provider(self, instance: Instance) -> Iterator[CloudProvider]:
        """The instance's provider for the length of the block."""
        from project.bundles import Bundles
        from providers.base import Context
        from providers.catalog import PROVIDERS

        provider_class = PROVIDERS.load(instance.target.kind)
        check_settings(provider_class.Settings, instance.target.settings, instance.key)
        with ExitStack() as opened:
            context = Context(
                secret=partial(self.secret, instance),
                pull=lambda: self._pull_credentials(instance),
                registry=lambda: opened.enter_context(self.registry(instance)),
                bundles=Bundles(self.store),
                report=beat.report,
            )
            provider: CloudProvider = provider_class(instance, context)
            opened.callback(provider.close)
            yield provider

    def _pull_credentials(self, instance: Instance) -> PullCredentials | None:
        from providers.base import PullCredentials

        with self.registry(instance) as registry:
            if registry is None or (found := registry.credentials()) is None:
                return None
            return PullCredentials(registry.host, found.username, found.password)


def check_settings(model: type, settings: object, where: str) -> None:
    """Check a kind's settings against its own model.

    Raises:
        ConfigurationError: every key that is wrong, at once.
    """
    try:
        model.model_validate(settings)  # type: ignore[attr-defined]
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
        )
        raise ConfigurationError(
            f"settings of {where}: {problems}", hint="run: helix validate"
        ) from None
