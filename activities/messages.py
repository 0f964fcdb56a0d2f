"""A notice as Slack, Discord and other programs take it, and its signature."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from string import Template

from model.errors import ConfigurationError
from model.instance import Channel, End
from model.notice import NAMES, Notice

LONGEST = 1900
"""Characters of a text: Discord takes 2000."""
PREFIX = "whsec_"
KEY_BYTES = range(24, 65)
"""How long a signing key may be (Standard Webhooks)."""

TEXTS: dict[End, str] = {
    "succeeded": "✓ $instance: release $release serves$at ($trigger by $by, $seconds s)",
    "rolled-back": "✗ $instance: release $release was rolled back. $step: $failure; $hint",
    "cancelled": "– $instance: release $release was cancelled; what ran before still runs",
    "needs-attention": "‼ $instance: release $release needs a person. $step: $failure. Left: $left",
}
"""What is said of each end if helix.toml says nothing else."""


def text_of(channel: Channel, notice: Notice) -> str:
    """The message for people."""
    values = {name: str(getattr(notice, name)) for name in NAMES}
    values["at"] = f" at {notice.url}" if notice.url else ""
    template = channel.template or TEXTS[notice.outcome]
    text = Template(template).safe_substitute(values).rstrip("; ")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _slack(text: str, notice: Notice) -> dict[str, object]:
    """https://api.slack.com/reference/surfaces/formatting: three characters are not literal."""
    for plain, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(plain, written)
    return {"text": text}


def _discord(text: str, notice: Notice) -> dict[str, object]:
    """https://discord.com/developers/docs/resources/webhook: an @everyone in a reason calls nobody
    up."""
    return {"content": text, "allowed_mentions": {"parse": []}}


def _webhook(text: str, notice: Notice) -> dict[str, object]:
    """The envelope of https://www.standardwebhooks.com."""
    return {
        "type": f"deployment.{notice.outcome}",
        "timestamp": notice.ended_at.isoformat(),
        "data": {**notice.model_dump(mode="json"), "text": text},
    }


FORMS: dict[str, Callable[[str, Notice], dict[str, object]]] = {
    "slack": _slack,
    "discord": _discord,
    "webhook": _webhook,
}
"""Kind of channel -> the message's JSON."""


def body_of(channel: Channel, notice: Notice) -> bytes:
    """What is posted: the same bytes at every attempt."""
    message = FORMS[channel.kind](text_of(channel, notice), notice)
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def signature(secret: str, id: str, body: bytes, now: datetime | None = None) -> dict[str, str]:
    """The headers of Standard Webhooks: HMAC-SHA256 over id, time and body.

    Args:
        secret: `whsec_` and the key in base64.
        id: the message's, the same at every attempt, so that a receiver knows one it had.

    Raises:
        ConfigurationError: the secret has another form. It is not repeated.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or len(key) not in KEY_BYTES:
        raise ConfigurationError(
            f"a signing secret is «{PREFIX}» and 24 to 64 bytes in base64; this one is not",
            hint=f'make one: echo "{PREFIX}$(openssl rand -base64 32)"',
        )
    sent = str(int((now or datetime.now(UTC)).timestamp()))
    digest = hmac.new(key, b".".join((id.encode(), sent.encode(), body)), hashlib.sha256).digest()
    return {
        "webhook-id": id,
        "webhook-timestamp": sent,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
