"""What a deployment would change, in words that give no value of the environment away."""

from __future__ import annotations

from typing import Any

from model.changes import changes, interruption
from model.instance import HealthCheck, Instance, Target, Volume
from model.platform import Revision


def instance(**settings: Any) -> Instance:
    return Instance(project="shop", name="prod", target=Target(kind="docker"), **settings)


def said(before: Instance | None, after: Instance) -> list[str]:
    return [str(one) for one in changes(before, after)]


def test_the_same_configuration_changes_nothing() -> None:
    assert said(instance(env={"A": "1"}), instance(env={"A": "1"})) == []


def test_names_of_the_environment_are_shown_and_values_are_not() -> None:
    before = instance(env={"A": "secret-1", "GONE": "secret-2"}, secrets={"S": "env:ONE"})
    after = instance(env={"A": "secret-3", "NEW": "secret-4"}, secrets={"S": "env:TWO"})
    text = said(before, after)
    assert "secret" not in "".join(text).replace("secret S", "")
    assert [line[:6] for line in text] == ["~ env ", "- env ", "+ env ", "~ secr"]


def test_a_new_instance_shows_all_it_has() -> None:
    text = said(None, instance(publish=80, volumes=(Volume(name="data", mount="/data"),)))
    assert "+ publish: 80" in text and "+ volume /data: data" in text


def test_settings_inside_a_table_are_named_by_their_path() -> None:
    before, after = instance(), instance(health_check=HealthCheck(path="/healthz"))
    assert said(before, after) == ["~ health_check.path: / → /healthz"]


def test_what_a_swap_does_to_requests() -> None:
    stateful = instance(volumes=(Volume(name="data", mount="/data"),))
    assert "beside" in interruption(instance(), False, False)
    assert "wait" in interruption(stateful, True, False)
    assert "fail" in interruption(stateful, False, False)
    assert "nothing runs" in interruption(stateful, False, True)


def test_a_release_that_came_back_under_another_identity_is_the_same() -> None:
    ran = Revision(id="version-8", deployment="d-1")
    assert ran.is_same(Revision(id="version-8"))
    assert ran.is_same(Revision(id="version-12", deployment="d-1"))
    assert not ran.is_same(Revision(id="version-12", deployment="d-2"))
    assert not Revision(id="a").is_same(Revision(id="b"))
