"""Tells a channel how a deployment ended."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from activities.boundary import step_activity
from activities.messages import body_of, signature
from model.errors import ConfigurationError, HelixError, Throttled, Transient
from model.notice import NotifyInput, is_url

if TYPE_CHECKING:
    import httpx

    from activities.services import Services
    from model.instance import Channel, Instance

TIMEOUT = 10.0
"""Seconds that a receiver may take to answer."""
AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
"""Refusals that are not meant for good."""


class NotifyActivities:
    """A message may arrive twice, if its receipt was lost: its id is the same then."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("notify")
    def notify(self, given: NotifyInput) -> str:
        """Post one message. Returns what the receiver answered, in a word.

        Raises:
            Transient, Throttled: it did not take it now.
            ConfigurationError: it never will: a wrong URL or secret, or it refused the message.
        """
        import httpx

        channel = given.channel
        url = self._url(given.instance, channel)
        body = body_of(channel, given.notice)
        headers = {"Content-Type": "application/json", "User-Agent": "helix-deploy"}
        if channel.secret and channel.kind == "webhook":
            secret = self._services.secret(given.instance, channel.secret).get_secret_value()
            headers |= signature(secret, f"{given.notice.deployment}.{channel.name}", body)
        try:
            answer = httpx.post(url, content=body, headers=headers, timeout=TIMEOUT)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise _wrong_url(channel) from None
        except httpx.TransportError as error:
            # Nothing of the error's text: it may contain the URL, which is a secret.
            raise Transient(f"«{channel.name}» does not answer: {type(error).__name__}") from None
        if not answer.is_success:
            raise _refusal(channel, answer)
        return f"{answer.status_code} {answer.reason_phrase}".strip()

    def _url(self, instance: Instance, channel: Channel) -> str:
        url = channel.url
        if not is_url(url):
            url = self._services.secret(instance, url).get_secret_value().strip()
        try:
            host = urlsplit(url).hostname if is_url(url) else None
        except ValueError:
            host = None
        if not host:
            raise _wrong_url(channel)
        return url


def _wrong_url(channel: Channel) -> ConfigurationError:
    return ConfigurationError(
        f"the URL of the notification «{channel.name}» is none (it is not shown: it is a secret)",
        hint="expected https://…; correct what its reference leads to",
    )


def _refusal(channel: Channel, answer: httpx.Response) -> HelixError:
    """What an answer other than «taken» means."""
    status = answer.status_code
    text = f"«{channel.name}» answers {status} {answer.reason_phrase}".strip()
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        pause = answer.headers.get("Retry-After", "")
        return Throttled(text, retry_after=float(pause) if pause.isdecimal() else None)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in AGAIN:
        return Transient(text)
    return ConfigurationError(
        text, hint=f"see what {channel.kind} wants: is the URL still the right one?"
    )
