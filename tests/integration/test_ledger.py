"""The ledger on both of its databases: the same promises on each."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from ledger.ledger import Ledger
from ledger.schema import HEAD
from model.audit import FIRST, AuditEvent
from model.deployment import (
    DeployRequest,
    DestroyRequest,
    Failure,
    Outcome,
    Progress,
    StepRecord,
    StepState,
    Trigger,
)
from model.errors import ConfigurationError, NotFound, PermissionDenied, Transient
from model.instance import Instance, Step, Target
from model.platform import Revision
from tests.services.postgres import TestPostgres

START = datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=UTC)
SHOP = Instance(project="acme", name="shop", target=Target(kind="docker"))


@pytest.fixture
def url(ledger_url: str) -> str:
    return ledger_url


@pytest.fixture
def server(postgres_server: TestPostgres) -> TestPostgres:
    return postgres_server


def ask(**changes: object) -> DeployRequest:
    return DeployRequest(instance=SHOP, actor="ada@laptop", reason="a fix", **changes)


def done(outcome: Outcome = Outcome.SUCCEEDED) -> Progress:
    return Progress(outcome=outcome, phase=outcome.value, revision=Revision(id="c0ffee"))


def release(ledger: Ledger, deployment: str, outcome: Outcome = Outcome.SUCCEEDED) -> int:
    number = ledger.open(deployment, ask(), START + timedelta(seconds=len(ledger.history())))
    ledger.close(deployment, done(outcome), START + timedelta(hours=1))
    return number


def test_numbers_count_per_instance_and_repeat_for_the_same_deployment(ledger: Ledger) -> None:
    other = ask().model_copy(update={"instance": SHOP.model_copy(update={"name": "other"})})
    assert ledger.open("d-1", ask(), START) == 1
    assert ledger.open("d-2", ask(), START) == 2
    assert ledger.open("d-1", ask(), START + timedelta(days=1)) == 1
    assert ledger.open("d-3", other, START) == 1
    assert [one.number for one in ledger.history(SHOP.key)] == [2, 1]
    assert ledger.get("d-1").started_at == START


def test_everything_that_is_written_is_read_back(ledger: Ledger) -> None:
    request = ask(trigger=Trigger.ROLLBACK, of_release=7)
    failure = Failure(step="push", code="Transient", message="no «answer»", evidence="a\nb")
    progress = done(Outcome.ROLLED_BACK).model_copy(update={"failure": failure})
    ledger.open("d-1", request, START)
    ledger.close("d-1", progress, START + timedelta(seconds=5))
    found = ledger.get("d-1")
    assert found.request == request
    assert found.progress == progress
    assert found.ended_at == START + timedelta(seconds=5)


def test_the_first_end_stays(ledger: Ledger) -> None:
    ledger.open("d-1", ask(), START)
    ledger.close("d-1", done(), START)
    ledger.close("d-1", done(), START + timedelta(days=1))
    ledger.close("d-1", done(Outcome.NEEDS_ATTENTION), START + timedelta(days=1))
    found = ledger.get("d-1")
    assert (found.progress.outcome, found.ended_at) == (Outcome.SUCCEEDED, START)
    assert [one.outcome for one in ledger.events()] == ["started", "succeeded"]


def test_an_end_without_a_beginning_opens_the_deployment(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        ledger.close("d-1", done(), START)
    ledger.close("d-1", done(), START, ask())
    assert ledger.get("d-1").number == 1


def test_a_deployment_is_found_by_its_short_id(ledger: Ledger) -> None:
    ids = [
        "0a6e1f3c-0000-4000-8000-aabbccddeeff",
        "0a6e1f3c-0000-4000-8000-aabbcc000000",
        "9a6e1f3c-0000-4000-8000-111111111111",
    ]
    for one in ids:
        ledger.open(one, ask(), START)
    assert ledger.get("1111").deployment == ids[2]
    assert ledger.get("9a6e").deployment == ids[2]
    assert ledger.get("aabbccdd").deployment == ids[0]
    with pytest.raises(NotFound, match="several"):
        ledger.get("aabbcc")
    for wrong in ("", "%", "ffff"):
        with pytest.raises(NotFound):
            ledger.get(wrong)


def test_releases_are_what_a_rollback_can_go_back_to(ledger: Ledger) -> None:
    for deployment in ("d-1", "d-2", "d-3"):
        release(ledger, deployment)
    release(ledger, "d-4", Outcome.ROLLED_BACK)
    ledger.mark_retired("d-1")
    assert [one.number for one in ledger.releases(SHOP.key)] == [3, 2]
    current = ledger.current_release(SHOP.key)
    assert current is not None and current.number == 3
    assert ledger.find_release(SHOP.key, 2).deployment == "d-2"
    for gone in (1, 4, 9):
        with pytest.raises(NotFound) as caught:
            ledger.find_release(SHOP.key, gone)
        assert caught.value.hint == "there are: 3, 2"


def test_a_destroyed_instance_keeps_its_history_but_no_release(ledger: Ledger) -> None:
    release(ledger, "d-1")
    gone = DestroyRequest(instance=SHOP, actor="ada@laptop", data=True)
    ledger.destroyed(gone, START + timedelta(hours=2))
    ledger.destroyed(gone, START + timedelta(hours=3))
    assert ledger.releases(SHOP.key) == []
    assert ledger.current_release(SHOP.key) is None
    assert ledger.instances()[0].destroyed_at == START + timedelta(hours=2)
    assert [one.action for one in ledger.events()] == ["push", "push", "destroy"]
    assert release(ledger, "d-2") == 2
    assert ledger.instances()[0].destroyed_at is None


def test_events_form_a_chain(ledger: Ledger) -> None:
    release(ledger, "d-1")
    ledger.append_event(
        AuditEvent(at=START, actor="ada", action="approve", detail={"ü": [1, None]})
    )
    events = ledger.events()
    assert [one.number for one in events] == [1, 2, 3]
    assert [one.prev_hash for one in events] == [FIRST, events[0].hash, events[1].hash]
    assert all(one.hash == one.digest for one in events)
    assert (events[0].actor, events[0].origin, events[0].reason) == (
        "ada@laptop",
        "laptop",
        "a fix",
    )


WRITER = """
import sys
from datetime import UTC, datetime
from ledger.ledger import Ledger
from tests.integration.test_ledger import ask
url, name = sys.argv[1:]
ledger = Ledger(url)
for i in range(10):
    print(ledger.open(f"d-{name}-{i}", ask(), datetime.now(UTC)))
"""


def test_processes_that_start_at_once_share_the_migration_and_the_numbers(url: str) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(5)
    ]
    numbers: list[int] = []
    for writer in writers:
        out, err = writer.communicate(timeout=60)
        assert writer.returncode == 0, err
        numbers += map(int, out.split())
    assert sorted(numbers) == list(range(1, 51))
    events = Ledger(url).events()
    assert [one.number for one in events] == list(range(1, 51))
    assert all(
        after.prev_hash == before.hash for before, after in zip(events, events[1:], strict=False)
    )


def test_threads_that_open_the_same_deployment_get_the_same_number(ledger: Ledger) -> None:
    ready = threading.Barrier(12)

    def go(index: int) -> int:
        ready.wait()
        return ledger.open(f"d-{index % 3}", ask(), START)

    with ThreadPoolExecutor(12) as pool:
        numbers = list(pool.map(go, range(12)))
    assert sorted(set(numbers)) == [1, 2, 3]
    assert all(numbers[index] == numbers[index % 3] for index in range(12))
    assert len(ledger.events()) == 3


def test_a_ledger_of_a_newer_version_is_left_alone(url: str) -> None:
    Ledger(url).history()
    with create_engine(url.replace("postgresql:", "postgresql+psycopg:")).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="newer"):
        Ledger(url).history()


def test_the_models_are_what_the_migrations_make(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    import ledger.migrations
    from ledger.models import Base

    Ledger(url).history()
    with create_engine(url.replace("postgresql:", "postgresql+psycopg:")).connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
    folder = Path(str(ledger.migrations.__file__)).parent
    assert ScriptDirectory(folder).get_current_head() == HEAD


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        release(Ledger(f"sqlite:///{tmp_path}/state/ledger.db"), "d-1")
    finally:
        os.umask(old)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()
    }
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_locked_file_may_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.database.BUSY_SECONDS", 0.1)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.open("d-1", ask(), START)
    holder = create_engine(f"sqlite:///{tmp_path}/ledger.db").connect()
    holder.exec_driver_sql("BEGIN IMMEDIATE")
    with pytest.raises(Transient, match="locked"):
        ledger.open("d-2", ask(), START)
    assert len(ledger.history()) == 1, "readers do not wait for a writer"
    holder.close()
    assert ledger.open("d-2", ask(), START) == 2


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("something of somebody else's, long enough to be read" * 9)
    with pytest.raises(ConfigurationError, match="not a database"):
        Ledger(f"sqlite:///{tmp_path}/ledger.db").history()


def test_an_outage_of_postgresql_passes(server: TestPostgres) -> None:
    ledger = Ledger(server.new_database())
    ledger.open("d-1", ask(), START)
    server.stop()
    try:
        with pytest.raises(Transient) as caught:
            ledger.open("d-2", ask(), START)
        assert server.password not in str(caught.value)
    finally:
        server.start()
    assert ledger.open("d-2", ask(), START) == 2


def test_a_wrong_password_is_said_and_not_shown(server: TestPostgres) -> None:
    wrong = server.url("postgres").replace(server.password, "hunter2hunter2")
    with pytest.raises(PermissionDenied) as caught:
        Ledger(wrong).history()
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="does not exist"):
        Ledger(server.url("nowhere")).history()


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:hunter2@h/d", "sqlite://", "sqlite+x:///f"])
def test_a_url_that_cannot_work_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Ledger(url)
    assert "hunter2" not in str(caught.value)


def test_statistics_are_of_what_began_in_a_time_and_has_ended(ledger: Ledger) -> None:
    built = StepRecord(
        step=Step.BUILD,
        state=StepState.DONE,
        started_at=START,
        ended_at=START + timedelta(seconds=4.25),
    )
    failure = Failure(step="push", code="Conflict", message="taken")
    for day, outcome in enumerate((Outcome.SUCCEEDED, Outcome.ROLLED_BACK, None)):
        began = START + timedelta(days=day)
        ledger.open(f"dep-{day}", ask(), began)
        if outcome is not None:
            failed = failure if outcome is Outcome.ROLLED_BACK else None
            progress = Progress(outcome=outcome, steps=(built,), failure=failed)
            ledger.close(f"dep-{day}", progress, began + timedelta(seconds=30))

    whole = ledger.samples(START, START + timedelta(days=9))
    assert [one.deployment for one in whole] == ["dep-0", "dep-1"]
    assert whole[0].steps == (built,) and whole[0].failure is None
    assert (whole[1].failure, whole[1].seconds) == (failure, 30)
    assert ledger.samples(START, START + timedelta(days=1)) == whole[:1]
    assert ledger.samples(START, START + timedelta(days=9), [SHOP.key]) == whole
    assert ledger.samples(START, START + timedelta(days=9), ["acme/other"]) == []
