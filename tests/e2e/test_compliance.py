"""A deployment with all that a company switches on: encryption, policies, approval, secret stores.

And no secret anywhere it has no business to be.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from tests.e2e.machine import Machine, Project, clean_up, eventually, make_project
from tests.e2e.test_cancel import phase
from tests.e2e.test_inspect import everything_in
from tests.e2e.test_secrets import decoded, histories
from tests.fakes.vault import TOKEN, Vault
from tests.services.registry import TestRegistry
from tests.services.signing import Signer, install, tools, vulnerability_database

pytestmark = pytest.mark.engine


def canary(name: str) -> str:
    return f"canary-{name}-{uuid.uuid4().hex}"


CANARIES = {name: canary(name) for name in ("env", "file", "vault", "build")}
KEYS = {id: base64.b64encode(os.urandom(32)).decode() for id in ("first", "second")}


def write_keys(machine: Machine, *ids: str) -> None:
    file = machine.home / "keys"
    file.touch(0o600)
    file.write_text("".join(f"{id}:{KEYS[id]}\n" for id in ids))


@pytest.fixture(scope="module")
def company(registry: TestRegistry) -> Iterator[Machine]:
    """A machine on which everything is switched on."""
    with tempfile.TemporaryDirectory(prefix="hx") as folder:
        home = Path(folder)
        (home / "tmp").mkdir()
        with Vault({"kv/data/shop": {"data": {"key": CANARIES["vault"]}}}) as vault:
            machine = Machine(home)
            machine.env = {
                **vault.environ,
                "CANARY_ENV": CANARIES["env"],
                "CANARY_BUILD": CANARIES["build"],
                "HELIX_ENCRYPTION_KEYS": f"file:{home / 'keys'}",
                "NO_PROXY": "127.0.0.1",
                "OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY": str(vulnerability_database(home / "osv")),
                "PATH": f"{tools()}{os.pathsep}{os.environ['PATH']}",
                "REGISTRY_PASSWORD": registry.password,
                "TMPDIR": str(home / "tmp"),
            }
            write_keys(machine, "first")
            machine.helix("up")
            yield machine
            machine.helix("down", expect=None)


@pytest.fixture(scope="module")
def signer(company: Machine, registry: TestRegistry) -> Signer:
    return Signer(company.home / "releases", registry)


@pytest.fixture
def project(company: Machine, registry: TestRegistry, signer: Signer) -> Iterator[Project]:
    made = make_project(company, registry)
    (made.folder / "cosign.pub").write_text(signer.public_key.read_text())
    secret = made.machine.home / "secret"
    secret.write_text(CANARIES["file"] + "\n")
    toml = made.folder / "helix.toml"
    toml.write_text(
        toml.read_text()
        + f"""
        [deploy.dev.secrets]
        BY_ENV = "env:CANARY_ENV"
        BY_FILE = "file:{secret}"
        BY_VAULT = "vault:kv/shop#key"
        [deploy.dev.build.secrets]
        npm = "env:CANARY_BUILD"
        [deploy.dev.approval]
        window = "10m"
        [deploy.policy]
        approval = true
        registries = ["{registry.host}"]
        signed_by = "cosign.pub"
        sbom = true
        max_severity = "high"
        """
    )
    dockerfile = made.folder / "Dockerfile"
    dockerfile.write_text(
        dockerfile.read_text()
        + install(made.folder, {"rightpad": "1.0"})
        + "RUN --mount=type=secret,id=npm test -s /run/secrets/npm && sleep 1\n"
    )
    made.behave("1")
    yield made
    clean_up(made)


class Processes:
    """The arguments of every process that was seen meanwhile."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            done = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True)
            self.seen |= set(done.stdout.splitlines())

    def __enter__(self) -> Processes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def failure(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = project.history()[0]["progress"]["failure"]
    return found


def test_a_company_deploys(
    company: Machine, project: Project, registry: TestRegistry, signer: Signer
) -> None:
    said: list[str] = []

    def helix(*words: str, expect: int = 0) -> str:
        result = project.helix(*words, expect=expect)
        said.append(result.text)
        return result.text

    with Processes() as processes:
        # What is not signed does not run, and the error says what to do.
        assert "is not signed as the policy wants" in helix("push", "dev", expect=3)
        assert failure(project)["code"] == "PolicyViolation"
        assert project.version() is None and project.containers() == []
        image = project.history()[0]["progress"]["artifact"]["image"]
        reference = f"{image['repository']}@{image['digest']}"
        signer.sign(reference)
        assert "has no SBOM attached" in helix("retry", "dev", expect=3)
        signer.attach_sbom(reference)

        # A person looks at it, another one has second thoughts, and then it runs.
        helix("retry", "dev", "--detach")
        eventually(lambda: phase(project) == "asking-approval", 60, "the question")
        helix("cancel", "dev", "--reason", "not on a Friday")
        helix("retry", "dev", "--detach")
        eventually(lambda: phase(project) == "asking-approval", 60, "the question")
        helix("approve", "dev", "--reason", "it is Monday")
        helix("follow", "dev")
        assert project.version() == "1"
        checks = "\n".join(project.history()[0]["progress"]["checks"])
        assert "signed by the key sha256:" in checks
        assert "CycloneDX SBOM attached, signed by" in checks
        assert "1 known vulnerabilities, the worst: medium TEST-2026-0002" in checks
        helix("schedule", "add", "dev", "--cron", "0 4 * * *", "--note", "every night")
        helix("schedule", "pause", "dev", "--reason", "a holiday")
        helix("schedule", "remove", "dev")
        helix("replay", "dev")
        helix("export", "dev", "-o", str(company.home / "case.zip"))
        helix("logs", "dev")
        helix("logs", "dev", "--build")
        helix("status", "--json")

    everybody_is_told_of(project)
    nothing_is_shown(company, project, registry, said, processes)
    keys_are_rotated(company, project)


def everybody_is_told_of(project: Project) -> None:
    """Every action is in the trail, and the trail is whole."""
    events = project.helix("audit", "list", "dev", "--json").document["events"]
    told = [(one["action"], one["outcome"]) for one in events]
    assert told == [
        ("push", "started"),
        ("push", "rolled-back"),
        ("retry", "started"),
        ("retry", "rolled-back"),
        ("retry", "started"),
        ("cancel", "done"),
        ("retry", "cancelled"),
        ("retry", "started"),
        ("approve", "answered"),
        ("retry", "succeeded"),
        ("schedule-add", "started"),
        ("schedule-add", "done"),
        ("schedule-pause", "started"),
        ("schedule-pause", "done"),
        ("schedule-remove", "started"),
        ("schedule-remove", "done"),
    ]
    whys = {one["action"]: one["reason"] for one in events}
    assert whys["cancel"] == "not on a Friday" and whys["approve"] == "it is Monday"
    assert all(one["actor"] and one["origin"] for one in events)
    assert "whole" in project.helix("audit", "verify").text


def nothing_is_shown(
    company: Machine,
    project: Project,
    registry: TestRegistry,
    said: list[str],
    processes: Processes,
) -> None:
    """The canaries are searched for, and raw histories show nothing at all."""
    address = company.stack()["address"]
    raw = asyncio.run(histories(address, project))
    for plain in ("it is Monday", "BY_VAULT", "rightpad", str(project.folder)):
        assert plain not in raw, "a raw history shows a plain value"
    with zipfile.ZipFile(company.home / "case.zip") as bundle:
        exported = everything_in(bundle)
    assert "it is Monday" in exported and "BY_VAULT" in exported
    everywhere = {
        "raw histories": raw,
        "exported history": exported,
        "decrypted histories": asyncio.run(decrypted_histories(company, address, project)),
        "output": "\n".join(said),
        "process arguments": "\n".join(processes.seen),
        "labels": json.dumps([one.labels for one in project.containers()]),
        "image": json.dumps([one.image.history() for one in project.containers()]),
        "audit": project.helix("audit", "export").text,
    }
    secrets = {
        **CANARIES,
        **{f"the key {id}": key for id, key in KEYS.items()},
        "registry": registry.password,
        "vault's token": TOKEN,
    }
    for name, secret in secrets.items():
        for where, text in everywhere.items():
            assert secret not in text, f"{name} is in {where}"
    handed_over = company.home / "state" / "env"
    for folder in (company.home / "state", company.home / "tmp"):
        for file in (one for one in folder.rglob("*") if one.is_file()):
            if handed_over in file.parents:
                assert file.stat().st_mode & 0o077 == 0
                continue
            content = file.read_bytes()
            for name, secret in secrets.items():
                assert secret.encode() not in content, f"{name} is in {file.name}"


async def decrypted_histories(company: Machine, address: str, project: Project) -> str:
    """Everything, as somebody with the keys can see it."""
    from cli.histories import decrypted
    from worker.codec import data_converter

    codec = data_converter(f"file:{company.home / 'keys'}").payload_codec
    client = await Client.connect(address)
    found = []
    async for run in client.list_workflows(f'WorkflowId = "deploy:{project.name}/dev"'):
        handle = client.get_workflow_handle(run.id, run_id=run.run_id)
        history = await decrypted(await handle.fetch_history(), codec)
        found.append(decoded(history.to_json_dict()))
    text = "\n".join(found)
    assert "it is Monday" in text and "BY_VAULT" in text
    return text


def keys_are_rotated(company: Machine, project: Project) -> None:
    """Old histories stay readable while their key is there, and it is said if it is not."""
    old = project.history()[0]["deployment"]
    write_keys(company, "second", "first")
    project.helix("replay", old)
    project.helix("destroy", "dev", "--yes")
    write_keys(company, "second")
    refused = project.helix("replay", str(old), expect=2)
    assert (
        "encrypted with the key «first», which HELIX_ENCRYPTION_KEYS does not have" in refused.err
    )
    project.helix("export", old, "-o", str(company.home / "without.zip"))
    with zipfile.ZipFile(company.home / "without.zip") as bundle:
        missing = json.loads(bundle.read("manifest.json"))["missing"]
    assert "«first»" in missing["history.json"]
    write_keys(company, "second", "first")
    project.helix("replay", old)
