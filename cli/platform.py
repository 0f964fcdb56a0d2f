"""A provider for a command that only looks, such as status and logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.instance import Instance
    from providers.base import CloudProvider


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
    from worker.settings import load

    kind = PROVIDERS.load(instance.target.kind)
    check_settings(kind.Settings, instance.target.settings, instance.key)
    env_file = load().env_file(instance.key)
    context = Context(secret=lambda reference: secrets.resolve(reference, extra_env_file=env_file))
    provider: CloudProvider = kind(instance, context)
    try:
        yield provider
    finally:
        provider.close()
