"""Decrypts payloads for people who look at the Temporal UI, or use the Temporal CLI.

    POST /decode    {"payloads": […]} → the same, decrypted; /encode only if that is allowed
    GET  /          a form that gives a browser a session for the shared secret
    GET  /healthz   200

A browser is told that pages of the listed origins, and no others, may read the answers. The keys
never leave this process.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from temporalio.api.common.v1 import Payloads

from model.errors import HelixError
from worker.codec import Codec
from worker.gate import SESSION_SECONDS, Gate, Refused

logger = logging.getLogger(__name__)

COOKIE = "helix-codec"
LARGEST_REQUEST = 64 * 1024 * 1024
"""Bytes. A page of the UI's history view is far below."""
PREFLIGHT_SECONDS = "600"

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Codec server</title>
<body style="font-family: sans-serif; max-width: 30em; margin: 4em auto">
<h1>Codec server</h1><p>{note}</p>
<form method="post" action="/login"><label>Shared secret
<input type="password" name="secret" autocomplete="current-password" required></label>
<button>Log in</button></form>
"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Service:
    """The server's application, and all that it needs."""

    codec: Codec
    gate: Gate
    origins: frozenset[str]
    """Of the UIs: scheme, host and port."""
    encode: bool = False
    """Whether plain payloads may be encrypted for somebody too."""

    def application(self) -> web.Application:
        """What aiohttp serves."""
        app = web.Application(
            middlewares=[self._headers, self._admitted], client_max_size=LARGEST_REQUEST
        )
        app.router.add_post("/decode", self._decode)
        app.router.add_post("/encode", self._encode)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/", self._form)
        app.router.add_post("/login", self._login)
        return app

    # Around every request -------------------------------------------------------------------------

    @web.middleware
    async def _headers(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """CORS, for the listed origins alone; and nothing is kept in a cache."""
        origin = request.headers.get("Origin", "")
        preflight = request.method == "OPTIONS"
        try:
            answer = web.Response(status=204) if preflight else await handler(request)
        except web.HTTPException as error:
            answer = _text(error.status, error.reason)
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Vary"] = "Origin"
        if origin in self.origins:
            answer.headers["Access-Control-Allow-Origin"] = origin
            answer.headers["Access-Control-Allow-Credentials"] = "true"
            if preflight:
                answer.headers["Access-Control-Allow-Methods"] = "POST"
                answer.headers["Access-Control-Allow-Headers"] = (
                    "authorization, authorization-extras, content-type, x-namespace"
                )
                answer.headers["Access-Control-Max-Age"] = PREFLIGHT_SECONDS
        return answer

    @web.middleware
    async def _admitted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in ("/decode", "/encode"):
            return await handler(request)
        try:
            who = await self.gate.admit(
                request.headers.get("Authorization", ""), request.cookies.get(COOKIE, "")
            )
        except Refused as error:
            logger.warning("refused a request of %s: %s", request.remote, error)
            answer = _text(401, "log in first: open this server's address in a browser, or send a "
                           "bearer token")  # fmt: skip
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        namespace = request.headers.get("X-Namespace", "?")
        logger.info("%s for %s, namespace %r", request.path[1:], who, namespace[:100])
        return await handler(request)

    # The requests ---------------------------------------------------------------------------------

    async def _decode(self, request: web.Request) -> web.StreamResponse:
        return await self._changed(request, self.codec.decode_wrapper)

    async def _encode(self, request: web.Request) -> web.StreamResponse:
        if not self.encode:
            return _text(403, "this server only decodes; it encodes if started with --encode")
        return await self._changed(request, self.codec.encode_wrapper)

    async def _changed(
        self, request: web.Request, change: Callable[[Payloads], Awaitable[None]]
    ) -> web.StreamResponse:
        if request.content_type != "application/json":
            return _text(415, "expected application/json")
        try:
            payloads = Parse(await request.text(), Payloads())
        except (ParseError, UnicodeDecodeError):
            return _text(400, 'expected {"payloads": […]}')
        try:
            await change(payloads)
        except HelixError as error:
            logger.error("%s", error)
            return _text(500, str(error))
        return web.Response(text=MessageToJson(payloads), content_type="application/json")

    async def _health(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"})

    async def _form(self, request: web.Request) -> web.StreamResponse:
        if self.gate.secret is None:
            return _text(200, "the Temporal UI's own login is used here")
        inside = self.gate.secret.is_session(request.cookies.get(COOKIE, ""))
        note = "This browser may decode." if inside else "Log in, and the Temporal UI can decode."
        return web.Response(text=PAGE.format(note=note), content_type="text/html")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        presented = str((await request.post()).get("secret", ""))
        secret = self.gate.secret
        if secret is None or not secret.fits(presented):
            logger.warning("refused a login of %s", request.remote)
            return _text(401, "that is not the shared secret")
        answer = web.Response(status=303, headers={"Location": "/"})
        # Sent along by pages of the same site only, and never to scripts.
        answer.set_cookie(
            COOKIE,
            secret.session(),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto", request.scheme) == "https",
        )
        return answer


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")
