"""What a command takes an incomplete wish to mean: which instance, which release, which run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.choose import choose
from cli.exits import Usage
from cli.find import find_deployment, find_instance, key_of, workflow_id
from cli.launch import details, summary
from cli.logs import _moment
from cli.retry import again
from cli.rollback import back_to, wanted
from cli.runs import link
from ledger.ledger import Ledger
from model.artifact import Artifact, Image
from model.deployment import DeployRequest, Failure, Outcome, Progress, Trigger
from model.errors import NotFound
from model.instance import Instance, Target
from project.load import Project, load_project
from project.resolve import resolve

LOCAL = "[local.{name}]\n"
CLOUD = '[cloud.{name}.docker]\nimage = "x:1"\n'


def project(folder: Path, *tables: str) -> Project:
    """A project with these instances."""
    (folder / "helix.toml").write_text('[project]\nname = "shop"\n' + "".join(tables))
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return load_project(folder)


def test_the_one_that_is_named_is_taken(tmp_path: Path) -> None:
    found = project(tmp_path, LOCAL.format(name="dev"), CLOUD.format(name="prod"))
    assert choose(found, "dev", ask=False) == "dev"


def test_the_only_one_is_taken(tmp_path: Path) -> None:
    assert choose(project(tmp_path, LOCAL.format(name="dev")), None, ask=False) == "dev"


def test_the_only_one_elsewhere_is_taken(tmp_path: Path) -> None:
    found = project(tmp_path, LOCAL.format(name="dev"), CLOUD.format(name="prod"))
    assert choose(found, "", ask=False) == "prod"


def test_without_a_terminal_several_are_listed(tmp_path: Path) -> None:
    found = project(tmp_path, CLOUD.format(name="prod"), CLOUD.format(name="test"))
    with pytest.raises(Usage, match=r"prod \(docker\), test \(docker\)"):
        choose(found, None, ask=False)


def test_on_a_terminal_a_person_picks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["9", "nope", "2"])
    monkeypatch.setattr("typer.prompt", lambda *args, **options: next(answers))
    found = project(tmp_path, CLOUD.format(name="prod"), CLOUD.format(name="test"))
    assert choose(found, None, ask=True) == "test"


def test_a_misspelt_instance_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="did you mean «prod»"):
        choose(project(tmp_path, CLOUD.format(name="prod")), "prdo", ask=False)


@pytest.mark.parametrize("table", [LOCAL, CLOUD])
def test_the_key_is_the_resolved_instances_own(tmp_path: Path, table: str) -> None:
    found = project(tmp_path, table.format(name="one"))
    instance = resolve(found, "one")
    assert key_of(found, "one") == instance.key
    assert workflow_id(instance.key) == DeployRequest(instance=instance).workflow_id


# --- releases ------------------------------------------------------------------------------------


class History:
    """A real ledger, filled by deployments that end as they are told to."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(f"sqlite:///{path}/ledger.db")
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)

    def add(
        self,
        content: str,
        *,
        name: str = "prod",
        outcome: Outcome | None = Outcome.SUCCEEDED,
        of_release: int = 0,
        env: dict[str, str] | None = None,
    ) -> str:
        """One more deployment. Returns its id."""
        self.clock += timedelta(minutes=1)
        id = f"{int(self.clock.timestamp()):08x}-0000-0000-0000-{content * 12}"
        instance = Instance(project="shop", name=name, target=Target(kind="docker"), env=env or {})
        request = DeployRequest(instance=instance, of_release=of_release)
        number = self.ledger.open(id, request, self.clock)
        if outcome is None:
            return id
        image = Image(repository="r", digest=f"sha256:{content * 64}")
        failed = outcome is not Outcome.SUCCEEDED
        progress = Progress(
            deployment=id,
            number=number,
            artifact=Artifact(image=image),
            pushed=True,
            outcome=outcome,
            failure=Failure(step="deploy", code="Conflict", message="no") if failed else None,
        )
        self.ledger.close(id, progress, self.clock + timedelta(seconds=5))
        return id


@pytest.fixture
def past(tmp_path: Path) -> History:
    """An empty history."""
    return History(tmp_path)


KEY = "shop/prod"


def test_rollback_goes_to_the_release_before(past: History) -> None:
    past.add("a")
    past.add("b")
    past.add("c", outcome=Outcome.ROLLED_BACK)
    assert wanted(past.ledger, KEY, "").number == 1


def test_a_second_rollback_goes_further_back_and_not_forth(past: History) -> None:
    for content in "abc":
        past.add(content)
    past.add("b", of_release=2)
    assert wanted(past.ledger, KEY, "").number == 1


def test_rollback_passes_over_releases_of_the_same(past: History) -> None:
    past.add("a")
    past.add("b")
    past.add("b")
    assert wanted(past.ledger, KEY, "").number == 1


def test_another_configuration_is_another_release(past: History) -> None:
    past.add("a", env={"MODE": "old"})
    past.add("a", env={"MODE": "new"})
    assert wanted(past.ledger, KEY, "").number == 1


@pytest.mark.parametrize("text", ["1", "v1", "V1"])
def test_rollback_to_a_number(past: History, text: str) -> None:
    past.add("a")
    past.add("b")
    assert wanted(past.ledger, KEY, text).number == 1


def test_rollback_to_what_is_not_there_says_what_is(past: History) -> None:
    past.add("a")
    with pytest.raises(NotFound, match="no earlier release"):
        wanted(past.ledger, KEY, "")
    with pytest.raises(NotFound, match="no release 7"):
        wanted(past.ledger, KEY, "7")
    with pytest.raises(Usage, match="not a release"):
        wanted(past.ledger, KEY, "latest")


def test_a_rollback_takes_artifact_and_configuration_as_they_were(past: History) -> None:
    past.add("a", env={"MODE": "old"})
    request = back_to(past.ledger.find_release(KEY, 1), "ada@laptop", "slow")
    assert request.instance.env == {"MODE": "old"}
    assert request.artifact is not None
    assert request.artifact.identity == "sha256:" + "a" * 64
    assert (request.trigger, request.of_release, request.pushed) == (Trigger.ROLLBACK, 1, True)
    assert summary(request) == "rollback of **shop/prod** to release 1 by ada@laptop: slow"
    assert "back to release: 1" in details(request)


def test_a_retry_keeps_what_was_built_and_pushed(past: History) -> None:
    id = past.add("a", outcome=Outcome.ROLLED_BACK)
    request = again(past.ledger.get(id), "ada@laptop", "")
    assert request.artifact is not None
    assert (request.trigger, request.retry_of, request.pushed) == (Trigger.RETRY, id, True)


def test_there_is_nothing_to_retry_in_success_or_while_it_runs(past: History) -> None:
    done, going = past.add("a"), past.add("b", outcome=None)
    with pytest.raises(Usage, match="succeeded"):
        again(past.ledger.get(done), "", "")
    with pytest.raises(Usage, match="still running"):
        again(past.ledger.get(going), "", "")


def test_a_deployment_is_found_by_instance_or_by_part_of_its_id(
    past: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, CLOUD.format(name="prod"), CLOUD.format(name="test"))
    monkeypatch.chdir(tmp_path)
    first, second = past.add("a"), past.add("b")
    assert find_deployment(past.ledger, "prod").deployment == second
    assert find_deployment(past.ledger, "aaaaaaaa").deployment == first
    assert find_deployment(past.ledger, first[:13]).deployment == first
    with pytest.raises(NotFound, match="never deployed"):
        find_deployment(past.ledger, "test")
    with pytest.raises(NotFound, match="no deployment «zz»"):
        find_deployment(past.ledger, "zz")


def test_what_was_released_counts_and_not_what_the_file_says_now(
    past: History, tmp_path: Path
) -> None:
    project(tmp_path, CLOUD.format(name="prod"))
    past.add("a", env={"MODE": "old"})
    assert find_instance(past.ledger, "", tmp_path).instance.env == {"MODE": "old"}


# --- small things --------------------------------------------------------------------------------


def test_the_link_to_a_run_is_quoted() -> None:
    found = link("http://127.0.0.1:8233/", "default", "deploy:shop/prod@host", "r1")
    expected = "/namespaces/default/workflows/deploy%3Ashop%2Fprod%40host/r1/history"
    assert found == "http://127.0.0.1:8233" + expected
    assert link("", "default", "x", "y") == ""


def test_a_summary_fits_temporals_limit() -> None:
    instance = Instance(project="shop", name="prod", target=Target(kind="docker"))
    text = summary(DeployRequest(instance=instance, reason="ü" * 1000))
    assert len(text.encode()) <= 400


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("2h", 7200)])
def test_since_is_a_duration(text: str, seconds: int) -> None:
    moment = _moment(text)
    assert moment is not None
    assert abs((datetime.now(UTC) - moment).total_seconds() - seconds) < 5


def test_a_wrong_since_is_refused() -> None:
    with pytest.raises(Usage, match="not a duration"):
        _moment("yesterday")
