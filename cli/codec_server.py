"""`helix codec-server`: the Temporal UI shows what is encrypted, to those who may see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from cli.exits import Usage

if TYPE_CHECKING:
    from worker.gate import Gate


def codec_server(
    address: Annotated[
        str, typer.Option("--address", envvar="HELIX_CODEC_ADDRESS", help="Where to listen.")
    ] = "127.0.0.1:8234",
    origin: Annotated[
        list[str] | None,
        typer.Option(
            "--origin",
            envvar="HELIX_CODEC_ORIGINS",
            help="A Temporal UI that may ask: https://temporal.example.com. Several times, if so.",
        ),
    ] = None,
    secret: Annotated[
        str,
        typer.Option(
            "--secret",
            envvar="HELIX_CODEC_SECRET",
            help="A reference to a shared secret: file:/run/secrets/codec.",
        ),
    ] = "",
    jwks: Annotated[
        str,
        typer.Option(
            "--jwks",
            envvar="HELIX_CODEC_JWKS",
            help="The URL of the public keys of the UI's identity provider.",
        ),
    ] = "",
    issuer: Annotated[
        str, typer.Option("--issuer", envvar="HELIX_CODEC_ISSUER", help="Its tokens' issuer.")
    ] = "",
    audience: Annotated[
        str, typer.Option("--audience", envvar="HELIX_CODEC_AUDIENCE", help="And audience.")
    ] = "",
    encode: Annotated[
        bool, typer.Option("--encode", help="Encrypt for somebody, too: for the Temporal CLI.")
    ] = False,
) -> None:
    """Decrypt payloads for the Temporal UI and CLI, for those who are let in. Runs until stopped.

    The keys are those of HELIX_ENCRYPTION_KEYS. Whoever shows the shared secret, or a token of the
    identity provider, may decrypt. It speaks plain HTTP: put a proxy with TLS before it wherever
    it is reached over a network.

    \b
    Examples:
      helix codec-server --secret env:CODEC_SECRET --origin http://127.0.0.1:8233
      helix codec-server --address 0.0.0.0:8234 --origin https://temporal.example.com \\
        --jwks https://login.example.com/keys --issuer https://login.example.com --audience temporal
      temporal workflow show -w deploy:shop/production \\
        --codec-endpoint http://127.0.0.1:8234 --codec-auth "Bearer $CODEC_SECRET"
    """
    try:
        from aiohttp import web
    except ModuleNotFoundError:
        raise Usage(
            "the codec server needs aiohttp, which is not installed",
            hint="pip install 'helix-deploy[codec-server]'",
        ) from None

    from model.redaction import redact
    from worker.codec import Codec
    from worker.codec_server import Service
    from worker.keys import Keyring
    from worker.logs import configure_logging
    from worker.settings import load

    settings = load()
    if not settings.encryption_keys:
        raise Usage(
            "HELIX_ENCRYPTION_KEYS names no keys: there is nothing to decrypt with",
            hint="set it as the workers have it",
        )
    keys = Keyring.at(settings.encryption_keys)
    known = ", ".join(keys.ids)  # at once, not at the first request
    origins = frozenset(_origin(one) for each in origin or [] for one in each.split())
    service = Service(Codec(keys), _gate(secret, jwks, issuer, audience), origins, encode)
    host, port = _split(address)
    configure_logging(settings, redact)
    try:
        web.run_app(
            service.application(),
            host=host,
            port=port,
            access_log=None,
            print=lambda _: typer.echo(
                f"codec server at http://{address}, keys {known}, "
                f"for {', '.join(sorted(origins)) or 'no browser (no --origin)'}",
                err=True,
            ),
        )
    except OSError as error:
        raise Usage(
            f"cannot listen on {address}: {error.strerror}", hint="name another: --address"
        ) from None


def _gate(secret: str, jwks: str, issuer: str, audience: str) -> Gate:
    from project.secrets import resolve
    from worker.gate import Gate, Issuer, SharedSecret

    named = {"--jwks": jwks, "--issuer": issuer, "--audience": audience}
    if any(named.values()) and not all(named.values()):
        lacking = ", ".join(name for name, value in named.items() if not value)
        raise Usage(f"an identity provider needs {lacking} too", hint="helix codec-server --help")
    return Gate(
        SharedSecret(resolve(secret)) if secret else None,
        Issuer(jwks, issuer, audience) if jwks else None,
    )


def _origin(text: str) -> str:
    """As a browser sends it: scheme, host and port, and nothing behind."""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/") or url.query:
        raise Usage(f"--origin: «{text}» is no origin", hint="write https://temporal.example.com")
    return f"{url.scheme}://{url.netloc.lower()}"


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise Usage(f"--address: «{address}» is not HOST:PORT", hint="write 127.0.0.1:8234")
    return host.strip("[]"), int(port)
