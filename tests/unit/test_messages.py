"""What is told of a deployment, in each form, and that a receiver can check who told it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from activities.messages import LONGEST, body_of, signature, text_of
from model.errors import ConfigurationError
from model.instance import Channel
from model.notice import NAMES, Notice

BEGAN = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def notice(**changes: object) -> Notice:
    values: dict[str, object] = {
        "instance": "shop/prod",
        "project": "shop",
        "name": "prod",
        "kind": "docker",
        "release": 7,
        "deployment": "0190-abc",
        "trigger": "push",
        "outcome": "succeeded",
        "by": "ada@laptop",
        "reason": "",
        "started_at": BEGAN,
        "ended_at": BEGAN + timedelta(seconds=12),
        "seconds": 12,
        "url": "http://shop.test",
    }
    return Notice.model_validate(values | changes)


FAILED = notice(outcome="rolled-back", step="build", failure="no <Dockerfile> & all", hint="add it")


def channel(kind: str = "slack", **more: object) -> Channel:
    return Channel.model_validate({"name": "team", "kind": kind, "url": "env:URL", **more})


def test_every_end_has_a_text() -> None:
    assert text_of(channel(), notice()) == (
        "✓ shop/prod: release 7 serves at http://shop.test (push by ada@laptop, 12.0 s)"
    )
    assert text_of(channel(), FAILED).endswith("rolled back. build: no <Dockerfile> & all; add it")
    assert "$" not in text_of(channel(), notice(outcome="cancelled"))
    left = notice(outcome="needs-attention", step="deploy", failure="gone", left="release: x")
    assert text_of(channel(), left).endswith("deploy: gone. Left: release: x")


def test_a_template_says_it_in_other_words() -> None:
    every = " ".join(f"{name}=${{{name}}}" for name in NAMES)
    text = text_of(channel(template=every), notice())
    assert "instance=shop/prod" in text and "release=7" in text and "${" not in text


def test_slack_takes_three_characters_in_another_spelling() -> None:
    assert "no &lt;Dockerfile&gt; &amp; all" in json.loads(body_of(channel(), FAILED))["text"]


def test_discord_calls_nobody_up() -> None:
    body = json.loads(body_of(channel("discord", template="@everyone $by" * 999), notice()))
    assert body["allowed_mentions"] == {"parse": []}
    assert len(body["content"]) == LONGEST


def test_a_program_gets_every_field() -> None:
    body = json.loads(body_of(channel("webhook"), FAILED))
    assert body["type"] == "deployment.rolled-back"
    assert body["timestamp"] == "2026-11-20T10:00:12+00:00"
    assert body["data"]["step"] == "build" and body["data"]["text"].startswith("✗ shop/prod")


def test_a_receiver_can_check_the_signature() -> None:
    body = body_of(channel("webhook"), notice())
    headers = signature(SECRET, "0190-abc.team", body)
    assert Webhook(SECRET).verify(body, headers)["type"] == "deployment.succeeded"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"12.0", b"11.0"), headers)
    old = signature(SECRET, "0190-abc.team", body, datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, old)


@pytest.mark.parametrize("secret", ["hunter2", "whsec_short", "whsec_" + "€" * 40, SECRET[6:]])
def test_a_secret_of_another_form_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        signature(secret, "1", b"{}")
    assert secret not in str(refused.value)
