"""The codec server as the Temporal UI and the Temporal CLI use it, on a real server's histories."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.json_format import MessageToDict
from jwt.algorithms import ECAlgorithm
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Worker
from typer.testing import CliRunner

from cli.histories import decrypted
from cli.main import app
from tests.services.need import program
from tests.services.registry import free_port
from tests.services.temporal import dev_server
from tests.workflow.world import World, failure, request
from worker.codec import data_converter
from workflows.deploy import DeployWorkflow

UI = "http://127.0.0.1:8233"
SECRET = "a-shared-secret-of-some-length"
ROOT = Path(__file__).parent.parent.parent
CANARY = "canary-of-a-reason"


def line(id: str) -> str:
    return f"{id}:{base64.b64encode(os.urandom(32)).decode()}"


def lines(keys: Path) -> list[str]:
    return keys.read_text().splitlines()


def write(keys: Path, *lines: str) -> None:
    keys.write_text("".join(f"{one}\n" for one in lines))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key file; its tests write it anew."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.touch(0o600)
    write(file, line("2025"))
    return file


class Server:
    """A codec server that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, path: str, payloads: list[dict[str, Any]], **headers: str) -> httpx.Response:
        """As the UI's script does."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(
            f"{self.url}/{path}",
            json={"payloads": payloads},
            headers={"X-Namespace": "default", **named},
            trust_env=False,
        )


@contextmanager
def codec_server(keys: Path, *words: str, **env: str) -> Iterator[Server]:
    """The real command."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "codec-server", "--address", address, *words],
        env={
            **os.environ,
            "HELIX_ENCRYPTION_KEYS": f"file:{keys}",
            "HELIX_STATE_DIR": str(keys.parent / "state"),
            "PYTHONPATH": str(ROOT),
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            try:
                httpx.get(f"http://{address}/healthz", trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        else:
            raise AssertionError(process.communicate()[0])
        yield Server(f"http://{address}")
    finally:
        process.terminate()
        log, _ = process.communicate(timeout=20)
        assert SECRET not in log
        assert CANARY not in log


@pytest.fixture(scope="module")
def server(keys: Path) -> Iterator[Server]:
    words = ("--origin", UI, "--secret", "env:CODEC_SECRET")
    with codec_server(keys, *words, CODEC_SECRET=SECRET) as running:
        yield running


async def encrypted(keys: Path, text: str) -> dict[str, Any]:
    """A payload as the UI gets it from the server's API."""
    [payload] = await data_converter(f"file:{keys}").encode([text])
    return as_json(payload)


def as_json(payload: Payload) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(payload)
    return found


def text_of(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    return [json.loads(base64.b64decode(one["data"])) for one in answer.json()["payloads"]]


async def test_the_ui_gets_plain_payloads_for_its_token(server: Server, keys: Path) -> None:
    hidden = await encrypted(keys, CANARY)
    plain = {"metadata": {"encoding": base64.b64encode(b"json/plain").decode()}, "data": "MQ=="}
    answer = server.post("decode", [hidden, plain], Authorization=f"Bearer {SECRET}", Origin=UI)
    assert text_of(answer) == [CANARY, 1]
    assert answer.headers["Access-Control-Allow-Origin"] == UI
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "header",
    ["", SECRET, "Bearer", "Bearer wrong", f"Basic {SECRET}", "Bearer eyJhbGciOiJub25lIn0."],
)
async def test_who_shows_nothing_good_gets_nothing(server: Server, keys: Path, header: str) -> None:
    hidden = await encrypted(keys, CANARY)
    answer = server.post("decode", [hidden], Authorization=header, Origin=UI)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert CANARY not in answer.text
    assert answer.headers["Access-Control-Allow-Origin"] == UI, "or the UI could not say why"


def test_the_browser_is_told_which_pages_may_ask(server: Server) -> None:
    for origin, allowed in ((UI, True), ("http://evil.test", False), ("null", False)):
        answer = httpx.options(
            f"{server.url}/decode",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-namespace",
            },
            trust_env=False,
        )
        assert answer.status_code == 204
        assert ("Access-Control-Allow-Origin" in answer.headers) is allowed
        if allowed:
            named = answer.headers["Access-Control-Allow-Headers"]
            assert {"authorization", "content-type", "x-namespace"} <= set(named.split(", "))


async def test_a_browser_logs_in_once_for_the_shared_secret(server: Server, keys: Path) -> None:
    hidden = await encrypted(keys, CANARY)
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as browser:
        assert "Shared secret" in (await browser.get("/")).text
        assert (await browser.post("/login", data={"secret": "wrong"})).status_code == 401
        assert (await browser.post("/decode", json={"payloads": [hidden]})).status_code == 401
        answer = await browser.post("/login", data={"secret": SECRET})
        assert answer.status_code == 303
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert SECRET not in cookie
        assert text_of(await browser.post("/decode", json={"payloads": [hidden]})) == [CANARY]
        assert "This browser may decode" in (await browser.get("/")).text
    forged = cookie.split(";")[0].replace("helix-codec=", "helix-codec=9")
    assert server.post("decode", [hidden], Cookie=forged).status_code == 401


async def test_it_only_decodes_unless_told_otherwise(server: Server) -> None:
    answer = server.post("encode", [], Authorization=f"Bearer {SECRET}")
    assert answer.status_code == 403


def test_what_is_no_request_is_refused(server: Server) -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    for content in ("", "[1]", '{"payloads": [{"data": 5}]}', '{"x": 1}', "\xff"):
        answer = httpx.post(
            f"{server.url}/decode", content=content.encode("latin-1"), headers=headers,
            trust_env=False,
        )  # fmt: skip
        assert answer.status_code == 400, content
    form = {"Authorization": f"Bearer {SECRET}", "Content-Type": "text/plain"}
    assert httpx.post(f"{server.url}/decode", headers=form, trust_env=False).status_code == 415
    assert httpx.get(f"{server.url}/decode", trust_env=False).status_code in (401, 405)


@contextmanager
def identity_provider(key: ec.EllipticCurvePrivateKey) -> Iterator[str]:
    """One that publishes a key. Yields the URL of the document."""
    document = {"keys": [{**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": "k1"}]}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{web.server_address[1]}/keys"
    finally:
        web.shutdown()
        web.server_close()


async def test_tokens_of_the_uis_identity_provider_are_let_in(keys: Path) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    hidden = await encrypted(keys, CANARY)
    good = {"iss": "https://login.test", "aud": ["temporal"], "exp": time.time() + 60, "sub": "ada"}

    def token(signer: Any = key, algorithm: str = "ES256", **changes: Any) -> str:
        claims = {name: value for name, value in (good | changes).items() if value is not None}
        return jwt.encode(claims, signer, algorithm, headers={"kid": "k1"})

    with identity_provider(key) as url:
        words = ("--jwks", url, "--issuer", "https://login.test", "--audience", "temporal")
        with codec_server(keys, *words, NO_PROXY="127.0.0.1") as server:
            answer = server.post("decode", [hidden], Authorization=f"Bearer {token()}")
            assert text_of(answer) == [CANARY]
            wrong = {
                "signed by another": token(other),
                "expired": token(exp=time.time() - 60),
                "without an end": token(exp=None),
                "for another audience": token(aud=["other"]),
                "of another issuer": token(iss="https://evil.test"),
                "signed by a shared key": token("x" * 32, "HS256"),
                "not signed": token(None, "none"),
            }
            for why, presented in wrong.items():
                answer = server.post("decode", [hidden], Authorization=f"Bearer {presented}")
                assert answer.status_code == 401, why


@pytest.mark.parametrize(
    ("words", "env", "why"),
    [
        ((), {}, "would decrypt for everybody"),
        (("--secret", "env:SHORT"), {"SHORT": "hunter2"}, "shorter than 16"),
        (("--jwks", "https://x"), {}, "needs --issuer, --audience too"),
        (("--secret", "env:S", "--origin", "temporal.test"), {"S": SECRET}, "is no origin"),
        (("--secret", "env:S", "--address", "8234"), {"S": SECRET}, "is not HOST:PORT"),
        (("--secret", "env:S"), {"S": SECRET, "HELIX_ENCRYPTION_KEYS": ""}, "names no keys"),
        (("--secret", SECRET), {}, "not a secret reference"),
    ],
)
def test_a_server_that_would_not_be_safe_does_not_start(
    keys: Path,
    words: tuple[str, ...],
    env: dict[str, str],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HELIX_STATE_DIR", str(keys.parent / "state"))
    monkeypatch.setenv("HELIX_ENCRYPTION_KEYS", f"file:{keys}")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["codec-server", *words])
    assert done.exit_code == 2
    assert why in done.output
    assert "hunter2" not in done.output


# --- a real server's history ---------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain() -> AsyncIterator[Client]:
    """A client that cannot decrypt, of a real server."""
    async with dev_server() as client:
        yield client


async def deploy(plain: Client, keys: Path, world: World) -> str:
    """A whole deployment with encrypted payloads. Returns the workflow's id."""
    config = plain.config()
    config["data_converter"] = data_converter(f"file:{keys}")
    client, queue, id = Client(**config), str(uuid.uuid4()), f"deploy:{uuid.uuid4()}"
    async with Worker(
        client, task_queue=queue, workflows=[DeployWorkflow], activities=world.activities()
    ):
        handle = await client.start_workflow(
            DeployWorkflow.run,
            request(reason=CANARY),
            id=id,
            task_queue=queue,
            static_summary=f"push: {CANARY}",
        )
        try:
            await handle.result()
        except WorkflowFailureError as error:
            assert world.fails, error
    return id


def temporal(plain: Client, *words: str) -> str:
    """What the Temporal CLI prints."""
    address = plain.service_client.config.target_host
    done = subprocess.run(
        [program("temporal", "temporal"), *words, "--address", address],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "TEMPORAL_CONFIG_FILE": os.devnull},
    )  # fmt: skip
    return done.stdout + done.stderr


def shown(history: Any) -> str:
    """All text of a history in JSON, payloads decoded as far as they are plain."""
    match history:
        case dict():
            parts = [shown(one) for one in history.values()]
            if isinstance(history.get("data"), str):
                parts.append(base64.b64decode(history["data"]).decode(errors="replace"))
            return "\n".join(parts)
        case list():
            return "\n".join(shown(one) for one in history)
    return str(history)


async def test_a_history_shows_nothing_but_to_who_may_see_it(
    plain: Client, keys: Path, server: Server
) -> None:
    message = "canary-of-a-failure"
    world = World(fails={"check_health": [failure("HealthCheckFailed", message)]})
    id = await deploy(plain, keys, world)
    history = await plain.get_workflow_handle(id).fetch_history()
    raw = shown(history.to_json_dict())
    for secret in (CANARY, message, "registry.test/shop", "ada@laptop"):
        # The image is a search attribute, by which people filter.
        assert secret not in raw.replace("registry.test/shop@", "")
    key = base64.b64decode(lines(keys)[0].split(":", 1)[1])
    assert key not in history.to_json().encode()
    assert base64.b64encode(key).decode() not in raw

    readable = await decrypted(history, data_converter(f"file:{keys}").payload_codec)
    text = shown(readable.to_json_dict())
    for expected in (CANARY, message, "registry.test/shop", "ada@laptop"):
        assert expected in text

    # The same, as people see it: with the Temporal CLI, through the codec server.
    words = ("workflow", "show", "--workflow-id", id, "--output", "json")
    codec = ("--codec-endpoint", server.url, "--codec-auth")
    assert CANARY not in shown(json.loads(await asyncio.to_thread(temporal, plain, *words)))
    seen = await asyncio.to_thread(temporal, plain, *words, *codec, f"Bearer {SECRET}")
    assert CANARY in shown(json.loads(seen))


async def test_keys_are_rotated_and_old_histories_stay_readable(
    plain: Client, keys: Path, server: Server
) -> None:
    before = lines(keys)
    old = await deploy(plain, keys, World())
    try:
        write(keys, line("2026"), *before)
        new = await deploy(plain, keys, World())
        for id, key in ((old, "2025"), (new, "2026")):
            history = await plain.get_workflow_handle(id).fetch_history()
            assert f"\n{base64.b64encode(key.encode()).decode()}\n" in shown(history.to_json_dict())
            words = ("workflow", "show", "--workflow-id", id, "--output", "json")
            codec = ("--codec-endpoint", server.url, "--codec-auth", f"Bearer {SECRET}")
            seen = await asyncio.to_thread(temporal, plain, *words, *codec)
            assert CANARY in shown(json.loads(seen)), "the server finds the new key by itself"
        write(keys, lines(keys)[0])
        converter = data_converter(f"file:{keys}")
        history = await plain.get_workflow_handle(old).fetch_history()
        with pytest.raises(Exception, match="«2025», which HELIX_ENCRYPTION_KEYS does not have"):
            await decrypted(history, converter.payload_codec)
    finally:
        write(keys, *before)
