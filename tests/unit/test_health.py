"""The worker's health endpoint and its log lines."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from pathlib import Path

import httpx
import pytest
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from model.errors import ConfigurationError
from worker import logs, ready
from worker.health import HealthServer
from worker.settings import Settings


def settings(folder: Path, **changes: object) -> Settings:
    return Settings(state_dir=folder, worker_name="w1", **changes)


def places(folder: Path) -> list[Path]:
    """The files that say where endpoints are."""
    return list(folder.glob("health-*.json"))


async def test_it_lives_and_is_ready_until_it_is_told_to_stop(tmp_path: Path) -> None:
    stop = asyncio.Event()
    with HealthServer(settings(tmp_path), stop) as server:
        place = json.loads(places(tmp_path)[0].read_text())
        assert place["port"] == server.port
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
            answer = await client.get("/healthz")
            assert (answer.status_code, answer.json()["status"]) == (200, "ok")
            assert answer.json()["worker"] == "w1"
            assert (await client.get("/readyz?verbose")).status_code == 200
            assert (await client.get("/")).status_code == 404
            stop.set()
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
    assert not places(tmp_path)


async def test_a_containers_health_check_follows_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HELIX_STATE_DIR", str(tmp_path))

    async def asked() -> tuple[int, str]:
        code = await asyncio.to_thread(ready.main)
        return code, capsys.readouterr().err

    stop = asyncio.Event()
    (tmp_path / "health-1.json").write_text('{"host": "127.0.0.1", "port": 1}')  # was killed
    with HealthServer(settings(tmp_path, health_address="0.0.0.0:0"), stop):
        assert await asked() == (0, "")
        stop.set()
        code, text = await asked()
        assert code == 1
        assert "stopping" in text
    code, text = await asked()
    assert code == 1
    assert "health-1.json: " in text


async def test_a_stuck_event_loop_is_not_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.health.LOOP_SECONDS", 0.1)
    with HealthServer(settings(tmp_path), asyncio.Event()) as server:
        url = f"http://127.0.0.1:{server.port}/healthz"
        asked = asyncio.get_running_loop().run_in_executor(None, httpx.get, url)
        await asyncio.sleep(0)
        time.sleep(1)  # noqa: ASYNC251 - that is what a stuck loop does
        assert (await asked).status_code == 503


async def test_an_address_in_use_is_said(tmp_path: Path) -> None:
    with HealthServer(settings(tmp_path), asyncio.Event()) as server:
        address = f"127.0.0.1:{server.port}"
        other = HealthServer(settings(tmp_path, health_address=address), asyncio.Event())
        with pytest.raises(ConfigurationError, match=address), other:
            pass


@pytest.fixture
def restored() -> object:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield None
    root.handlers[:], root.level = before


def test_each_line_names_its_deployment_and_holds_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], restored: object
) -> None:
    def redact(text: str) -> str:
        return text.replace("hunter2", "***")

    @activity.defn(name="build")
    def step() -> None:
        logging.getLogger("builders").info("password %s", "hunter2")

    env = ActivityEnvironment()
    env.info = dataclasses.replace(
        env.info,
        activity_type="build",
        workflow_id="deploy:acme/shop@vm",
        workflow_run_id="0a6e1f3c-0000-4000-8000-aabbccddeeff",
    )
    logs.configure_logging(settings(tmp_path, log_format="json"), redact)
    env.run(step)
    found = json.loads(capsys.readouterr().err)
    assert found["message"] == "password ***"
    assert found["instance"] == "acme/shop@vm"
    assert found["step"] == "build"
    assert found["deployment"].endswith("aabbccddeeff")

    logs.configure_logging(settings(tmp_path), redact)
    env.run(step)
    assert "[acme/shop@vm build aabbccdd] builders: password ***" in capsys.readouterr().err

    try:
        raise ValueError("hunter2")
    except ValueError:
        logging.getLogger().exception("no deployment here")
    text = capsys.readouterr().err
    assert "hunter2" not in text and "ValueError: ***" in text


def test_a_line_in_a_message_cannot_pass_for_an_entry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure_logging(settings(tmp_path))
    logging.getLogger("builders").warning("it said:\n2026-01-01T00:00:00.000Z INFO all is well")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("builders: it said:")
    assert second[:24] == first[:24] != "2026-01-01T00:00:00.000Z"
