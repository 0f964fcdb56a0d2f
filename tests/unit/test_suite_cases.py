"""Which cases of the public suite a kind is held to: those that its capabilities do not exclude."""

from __future__ import annotations

from typing import ClassVar

import pytest

from helix_deploy.testing import ProviderSuite
from model.platform import Capabilities
from providers.base import CloudProvider
from providers.catalog import PROVIDERS

WHOLE = ProviderSuite.cases()
SWITCHES = sorted({one for declared in WHOLE.values() for one in declared})


def held_to(capabilities: Capabilities) -> set[str]:
    """The cases of a kind that declares this."""
    declared = capabilities

    class Kind(CloudProvider):
        capabilities: ClassVar[Capabilities] = declared

    class Held(ProviderSuite, of=Kind):
        pass

    return set(Held.cases())


def test_who_declares_nothing_is_held_to_all_that_a_provider_can_do() -> None:
    class Held(ProviderSuite):
        pass

    left_out = {name for name, declared in WHOLE.items() if False in declared.values()}
    assert set(Held.cases()) == set(WHOLE) - left_out
    assert set(ProviderSuite.cases()) == set(WHOLE), "the suite itself is as it was"


@pytest.mark.parametrize("name", SWITCHES)
def test_what_a_kind_cannot_do_is_not_among_its_cases(name: str) -> None:
    cannot = {"programs": {"takes": frozenset({"bundle"})}}.get(name, {name: False})
    capabilities = Capabilities().model_copy(update=cannot)
    expected = {
        case
        for case, declared in WHOLE.items()
        if all(getattr(capabilities, one) is said for one, said in declared.items())
    }
    assert held_to(capabilities) == expected
    assert expected != held_to(Capabilities())


def test_every_kind_that_runs_programs_is_held_to_the_same_cases() -> None:
    kinds = [PROVIDERS.load(kind).capabilities for kind in PROVIDERS.builtin]
    found = [held_to(one) for one in kinds if one.programs]
    assert len(found) >= 7
    assert all(one == found[0] for one in found)
