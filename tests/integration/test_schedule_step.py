"""What a schedule's run deploys: from a real ledger, and from a real git repository."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.schedule import ScheduleActivities
from activities.services import Services
from activities.validate import check_freeze
from ledger.ledger import Ledger
from model.artifact import Artifact, Image, Source
from model.deployment import DeployRequest, DestroyRequest, Outcome, Progress, Trigger
from model.errors import Frozen
from model.freeze import Window
from model.instance import Instance, Target
from model.schedule import (
    Mode,
    Prepared,
    PrepareInput,
    RedeployRequest,
    ScheduleSettings,
    SkippedInput,
)
from model.steps import ValidateInput
from project.source import fetch
from project.store import Store

NOW = datetime.now(UTC)
ALWAYS = (Window(reason="holidays"),)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    (tmp_path / "scratch").mkdir()
    return Services(
        store=Store(f"file://{tmp_path}/store"),
        ledger=Ledger(f"sqlite:///{tmp_path}/ledger.db"),
        queue="test",
        logs_dir=tmp_path / "logs",
        scratch_dir=tmp_path / "scratch",
        secret=lambda instance, reference: SecretStr(reference),
    )


def release(services: Services, **changes: Any) -> DeployRequest:
    """A release that runs."""
    instance = Instance(project="shop", name="prod", target=Target(kind="docker"), **changes)
    source = Source(digest="f" * 64, url="file:///nowhere")
    given = DeployRequest(instance=instance, source=source, actor="ada@pc")
    services.ledger.open("d-1", given, NOW)
    artifact = Artifact(image=Image(repository="r/shop", digest="sha256:1"))
    progress = Progress(deployment="d-1", number=1, artifact=artifact, outcome=Outcome.SUCCEEDED)
    services.ledger.close("d-1", progress, NOW)
    return given


def asked(mode: Mode = Mode.REDEPLOY, **settings: Any) -> RedeployRequest:
    schedule = ScheduleSettings(cron=("@daily",), mode=mode, **settings)
    return RedeployRequest(project="shop", name="prod", schedule=schedule, actor="ada@pc")


def prepare(services: Services, request: RedeployRequest) -> Prepared:
    step = ScheduleActivities(services).prepare_redeploy
    found = ActivityEnvironment().run(step, PrepareInput(run="run-1", request=request))
    assert isinstance(found, Prepared)
    return found


def test_a_redeployment_takes_the_current_artifact(services: Services) -> None:
    given = release(services)
    found = prepare(services, asked()).request
    assert found is not None and found.artifact is not None
    assert (found.artifact.identity, found.pushed) == ("sha256:1", True)
    assert (found.trigger, found.actor) == (Trigger.SCHEDULE, "schedule by ada@pc")
    assert found.workflow_id == asked().workflow_id == given.workflow_id


def test_a_rebuild_takes_the_kept_source_and_is_told_from_earlier_ones(services: Services) -> None:
    given = release(services)
    found = prepare(services, asked(Mode.REBUILD)).request
    assert found is not None
    assert (found.source, found.artifact, found.refresh) == (given.source, None, "run-1")


def test_what_was_never_or_is_no_longer_there_is_refused(services: Services) -> None:
    with pytest.raises(ApplicationError, match="no release") as raised:
        prepare(services, asked())
    assert raised.value.type == "NotFound"
    given = release(services)
    services.ledger.destroyed(DestroyRequest(instance=given.instance), NOW)
    with pytest.raises(ApplicationError, match="was destroyed"):
        prepare(services, asked())


def test_a_frozen_instance_is_skipped_once_in_the_audit_trail(services: Services) -> None:
    release(services, freeze=ALWAYS)
    assert "holidays" in prepare(services, asked()).skip
    given = SkippedInput(run="run-1", request=asked(), why="frozen")
    for _ in range(2):
        step = ScheduleActivities(services).record_skipped
        assert ActivityEnvironment().run(step, given) == "frozen"
    skipped = [one for one in services.ledger.events("shop/prod") if one.outcome == "skipped"]
    assert [(one.action, one.reason) for one in skipped] == [("schedule", "frozen")]


def test_a_push_in_a_freeze_needs_a_recorded_reason_and_a_rollback_none(
    services: Services,
) -> None:
    given = release(services, freeze=ALWAYS)

    def check(**changes: Any) -> tuple[str, ...]:
        request = given.model_copy(update=changes)
        number = services.ledger.open(f"d-{changes}", request, NOW)
        return check_freeze(
            ValidateInput(deployment=f"d-{changes}", number=number, request=request), services
        )

    with pytest.raises(Frozen, match="holidays"):
        check()
    assert check(trigger=Trigger.ROLLBACK) == ()
    assert "overridden: a hole" in check(override_freeze="a hole")[0]
    details = [one.detail.get("override_freeze") for one in services.ledger.events("shop/prod")]
    assert details.count("a hole") == 1


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "helix.toml").write_text('[project]\nname = "shop"\n[cloud.prod.docker]\n')
    (folder / "Dockerfile").write_text("FROM scratch\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@b.test"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*author, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("ref", ["", "main"])
def test_a_repository_is_fetched_resolved_and_kept(
    services: Services, repository: Path, tmp_path: Path, ref: str
) -> None:
    found = prepare(services, asked(Mode.REBUILD, git=f"file://{repository}", ref=ref))
    assert found.request is not None and found.request.source is not None
    assert len(found.commit) == 40 and found.commit[:12] in found.request.reason
    fetch(found.request.source, tmp_path / "back", services.store)
    assert (tmp_path / "back" / "Dockerfile").read_text() == "FROM scratch\n"
    assert not (tmp_path / "back" / ".git").exists()
    assert not list(services.scratch_dir.iterdir())


@pytest.mark.parametrize(
    ("changes", "said", "code"),
    [
        ({"ref": "nowhere"}, "nowhere", "NotFound"),
        ({"git": "file:///does/not/exist"}, "git fetch failed", "NotFound"),
    ],
)
def test_what_git_cannot_find_is_said(
    services: Services, repository: Path, changes: dict[str, str], said: str, code: str
) -> None:
    with pytest.raises(ApplicationError, match=said) as raised:
        prepare(services, asked(Mode.REBUILD, **{"git": f"file://{repository}", **changes}))
    assert raised.value.type == code


def test_another_projects_repository_is_refused(services: Services, repository: Path) -> None:
    other = asked(Mode.REBUILD, git=f"file://{repository}").model_copy(update={"project": "bank"})
    with pytest.raises(ApplicationError, match="the repository holds shop/prod"):
        prepare(services, other)
