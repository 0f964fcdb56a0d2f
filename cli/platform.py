"""A provider for a command that only looks, such as status and logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr

    from model.instance import Instance
    from providers.base import CloudProvider
    from registries.base import Registry


@contextmanager
def open_provider(instance: Instance) -> Iterator[CloudProvider]:
    """The instance's provider, with the secrets of whoever runs the command.

    Raises:
        ConfigurationError: this machine lacks what the kind needs, or its settings are wrong.
    """
    from activities.services import check_settings
    from project import secrets
    from providers.base import Context
    from providers.catalog import PROVIDERS
    from registries.base import RegistryContext
    from registries.open import open_registry
    from worker.settings import load

    kind = PROVIDERS.load(instance.target.kind)
    check_settings(kind.Settings, instance.target.settings, instance.key)
    env_file = load().env_file(instance.key)

    def secret(reference: str) -> SecretStr:
        return secrets.resolve(reference, extra_env_file=env_file)

    with ExitStack() as opened:

        def registry() -> Registry | None:
            if instance.registry is None:
                return None
            context = RegistryContext(secret=secret)
            return opened.enter_context(open_registry(instance.registry, context))

        provider: CloudProvider = kind(instance, Context(secret=secret, registry=registry))
        opened.callback(provider.close)
        yield provider
