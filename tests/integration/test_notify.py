"""A message reaches a real server, and what that answers decides what happens next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.notify import NotifyActivities
from model.errors import fatal_codes
from model.instance import Channel, Instance, Target
from model.notice import NotifyInput
from tests.services.receiver import Receiver, receiver
from tests.unit.test_messages import SECRET, notice

INSTANCE = Instance(project="shop", name="prod", target=Target(kind="docker"))
PATH = "/services/T0/B0/canary-in-the-url"


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def tell(kind: str, url: str, *, secret: str = "") -> str:
    """One attempt of the activity; the references lead to what is given."""
    secrets = {"env:URL": url, "env:KEY": secret}
    services: Any = SimpleNamespace(secret=lambda _, reference: SecretStr(secrets[reference]))
    channel = Channel.model_validate(
        {"name": "team", "kind": kind, "url": "env:URL", "secret": "env:KEY" if secret else ""}
    )
    given = NotifyInput(instance=INSTANCE, channel=channel, notice=notice())
    activity = NotifyActivities(services).notify
    return str(ActivityEnvironment().run(activity, given))


@pytest.mark.parametrize(("kind", "key"), [("slack", "text"), ("discord", "content")])
def test_chats_take_it(server: Receiver, kind: str, key: str) -> None:
    assert tell(kind, server.url(PATH)).startswith("204")
    [message] = server.taken(PATH)
    assert "shop/prod: release 7 serves" in json.loads(message.body)[key]
    assert "webhook-signature" not in message.headers


def test_a_program_can_check_who_sent_it_at_every_attempt(server: Receiver) -> None:
    for _ in range(2):
        tell("webhook", server.url("/hook"), secret=SECRET)
    first, second = server.taken("/hook")
    for message in (first, second):
        assert Webhook(SECRET).verify(message.body, message.headers)["data"]["release"] == 7
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "Transient"),
        (503, "Transient"),
        (408, "Transient"),
        (429, "Throttled"),
        (400, "ConfigurationError"),
        (404, "ConfigurationError"),
        (410, "ConfigurationError"),
        (302, "ConfigurationError"),
    ],
)
def test_an_answer_decides_whether_it_is_tried_again(
    server: Receiver, status: int, code: str
) -> None:
    server.answers.append((status, {"Retry-After": "7", "Location": server.url("/elsewhere")}))
    with pytest.raises(ApplicationError) as refused:
        tell("slack", server.url(PATH))
    assert refused.value.type == code
    assert (code in fatal_codes()) is (code == "ConfigurationError")
    assert "canary" not in str(refused.value)
    pause = refused.value.next_retry_delay
    assert (pause.total_seconds() if pause else None) == (7 if status == 429 else None)
    assert [one.path for one in server.messages] == [PATH]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1/canary", "Transient"),
        ("canary", "ConfigurationError"),
        ("https://", "ConfigurationError"),
        ("http://[canary", "ConfigurationError"),
        ("http://127.0.0.1:canary/", "ConfigurationError"),
    ],
)
def test_a_url_that_leads_nowhere_is_not_repeated(url: str, code: str) -> None:
    with pytest.raises(ApplicationError) as refused:
        tell("discord", url)
    assert refused.value.type == code
    assert "canary" not in str(refused.value) + str(refused.value.details)
