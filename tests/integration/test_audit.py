"""The audit trail: every action is in it, and whatever is done to it is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from ledger.ledger import Ledger
from model.audit import Anchor, AuditEvent, Trail, cancel_text, read_cancel
from model.deployment import Choice, Decision, Outcome
from tests.integration.test_ledger import SHOP, START, WRITER, ask, done, release

ROOT = Path(__file__).parent.parent.parent


def connect(url: str) -> Connection:
    """Somebody with the database's own password."""
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:")).connect()


def tamper(url: str, *statements: str) -> None:
    """Change the trail as the owner of the database can: after taking its guard away."""
    with connect(url) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("DROP TRIGGER events_are_final ON events"))
        else:
            for verb in ("update", "delete"):
                connection.execute(text(f"DROP TRIGGER events_are_final_{verb}"))
        for statement in statements:
            connection.execute(text(statement))


def filled(ledger: Ledger, count: int = 3) -> Trail:
    """A trail of two events a deployment."""
    for index in range(count):
        release(ledger, f"d-{index}")
    return Trail().read(ledger.trail())


def faults(ledger: Ledger, *anchors: Anchor) -> list[str]:
    return Trail(anchors).read(ledger.trail()).faults


def test_a_whole_trail_has_no_fault_and_a_head(ledger: Ledger) -> None:
    assert Trail().read(ledger.trail()).head is None
    trail = filled(ledger)
    assert trail.faults == [] and trail.count == 6
    assert trail.head == Anchor(number=6, hash=ledger.events()[-1].hash)
    assert Anchor.parse(str(trail.head)) == trail.head
    assert faults(ledger, trail.head) == []
    assert ledger.untold() == []


def test_the_database_itself_refuses_a_change(ledger: Ledger, ledger_url: str) -> None:
    filled(ledger, 1)
    for statement in ("UPDATE events SET actor = 'eve'", "DELETE FROM events"):
        with (
            connect(ledger_url) as connection,
            pytest.raises(DBAPIError, match="only ever added to"),
            connection.begin(),
        ):
            connection.execute(text(statement))
    assert faults(ledger) == []


def sealed(event: AuditEvent, **changes: object) -> AuditEvent:
    """As somebody who knows how the hash is made would write it."""
    changed = event.model_copy(update=changes)
    return changed.model_copy(update={"hash": changed.digest})


COLUMNS = ("actor", "origin", "action", "instance_key", "deployment", "reason", "outcome")


def test_a_changed_event_is_named(ledger: Ledger, ledger_url: str) -> None:
    filled(ledger, 4)
    changes = [
        f"UPDATE events SET {column} = 'eve' WHERE number = {number}"
        for number, column in enumerate(COLUMNS, 2)
    ]
    tamper(ledger_url, *changes)
    assert faults(ledger) == [f"event {number} was changed" for number in range(2, 9)]


def test_a_changed_time_or_detail_is_named(ledger: Ledger, ledger_url: str) -> None:
    filled(ledger)
    tamper(
        ledger_url,
        "UPDATE events SET at = '2020-01-01 00:00:00.000000' WHERE number = 2",
        "UPDATE events SET detail = '{}' WHERE number = 5",
    )
    assert faults(ledger) == ["event 2 was changed", "event 5 was changed"]


def test_an_event_that_was_changed_and_hashed_anew_is_named(
    ledger: Ledger, ledger_url: str
) -> None:
    filled(ledger)
    forged = sealed(ledger.events()[2], actor="eve")
    tamper(ledger_url, f"UPDATE events SET actor='eve', hash='{forged.hash}' WHERE number = 3")
    assert faults(ledger) == ["event 4 does not follow on event 3: one was replaced"]


def test_deleted_events_are_named(ledger: Ledger, ledger_url: str) -> None:
    filled(ledger)
    tamper(ledger_url, "DELETE FROM events WHERE number IN (1, 3, 4)")
    assert faults(ledger) == ["event 1 is missing", "events 3 to 4 are missing"]


def test_an_inserted_event_is_named(ledger: Ledger, ledger_url: str) -> None:
    filled(ledger)
    tamper(
        ledger_url,
        *(f"UPDATE events SET number = {n + 1} WHERE number = {n}" for n in (6, 5, 4)),
        "INSERT INTO events SELECT 4, at, 'eve', origin, action, instance_key, deployment, reason, "
        "outcome, detail, 'made-up', 'made-up too' FROM events WHERE number = 3",
    )
    found = faults(ledger)
    assert "event 4 was changed" in found, "the one that was put in"
    assert "event 5 was changed" in found, "its number is hashed too"


def test_a_trail_that_was_cut_off_is_found(ledger: Ledger, ledger_url: str) -> None:
    anchor = filled(ledger).head
    assert anchor is not None
    tamper(ledger_url, "DELETE FROM events WHERE number > 4")
    assert faults(ledger) == [], "the chain alone does not tell"
    assert faults(ledger, anchor) == ["the trail ends with event 4, and event 6 was there"]
    assert [one.deployment for one in ledger.untold()] == ["d-2"], "but the deployments do"


def test_a_trail_that_was_written_anew_is_found(ledger: Ledger, ledger_url: str) -> None:
    anchor = filled(ledger).head
    assert anchor is not None
    before, statements = "", []
    for event in ledger.events():
        forged = sealed(event, actor="eve", prev_hash=before or event.prev_hash)
        before = forged.hash
        statements.append(
            f"UPDATE events SET actor='eve', prev_hash='{forged.prev_hash}', hash='{forged.hash}' "
            f"WHERE number = {event.number}"
        )
    tamper(ledger_url, *reversed(statements))
    assert faults(ledger) == [], "it is whole in itself"
    assert faults(ledger, anchor) == [
        "event 6 is not the one that was anchored: the trail was written anew"
    ]


def test_two_writers_at_once_make_one_chain(ledger_url: str) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, ledger_url, name], stderr=subprocess.PIPE, text=True,
            stdout=subprocess.DEVNULL, cwd=ROOT,
        )
        for name in ("a", "b")
    ]  # fmt: skip
    for writer in writers:
        _, err = writer.communicate(timeout=60)
        assert writer.returncode == 0, err
    trail = Trail().read(Ledger(ledger_url).trail())
    assert trail.faults == [] and trail.count == 20


def test_what_an_event_is_hashed_to_never_changes() -> None:
    """Trails that were written years ago must still be whole."""
    event = AuditEvent(
        number=7,
        at=START,
        actor="ada@laptop",
        origin="laptop",
        action="push",
        instance_key="acme/shop",
        deployment="d-1",
        reason="a «fix»",
        outcome="started",
        detail={"release": 1, "nested": {"b": [None, True], "a": 0.5}},
        prev_hash="0" * 64,
    )
    assert event.digest == "c35605c76bbf88544aa1ab32551519deb530519f5826a5943912f9534cb4fc60"


# --- what is in it -------------------------------------------------------------------------------


def told(ledger: Ledger) -> list[tuple[str, str, str, str]]:
    return [(one.action, one.actor, one.reason, one.outcome) for one in ledger.events()]


def test_answers_cancels_and_overrides_are_told(ledger: Ledger) -> None:
    request = ask(override_freeze="the shop is down")
    ledger.open("d-1", request, START)
    first = Decision(choice=Choice.RETRY, by="bob@desk", why="again", at=START)
    second = first.model_copy(update={"at": START + timedelta(minutes=1)})
    ledger.decided("d-1", SHOP.key, first, "push")
    ledger.decided("d-1", SHOP.key, first, "push")
    end = done(Outcome.CANCELLED).model_copy(
        update={"decisions": (first, second), "cancel": cancel_text("eve@pc", "wrong branch")}
    )
    ledger.close("d-1", end, START + timedelta(hours=1))
    ledger.close("d-1", end, START + timedelta(hours=1))
    assert told(ledger) == [
        ("override-freeze", "ada@laptop", "the shop is down", "asked"),
        ("push", "ada@laptop", "a fix", "started"),
        ("retry", "bob@desk", "again", "answered"),
        ("retry", "bob@desk", "again", "answered"),
        ("cancel", "eve@pc", "wrong branch", "done"),
        ("push", "ada@laptop", "a fix", "cancelled"),
    ]
    assert [one.origin for one in ledger.events()][2] == "desk"
    assert faults(ledger) == [] and ledger.untold() == []


def test_a_cancel_that_came_too_late_is_told_as_such(ledger: Ledger) -> None:
    ledger.open("d-1", ask(), START)
    ledger.close("d-1", done().model_copy(update={"cancel": "by eve@pc"}), START)
    assert told(ledger)[1] == ("cancel", "eve@pc", "", "too-late")


@pytest.mark.parametrize(
    ("text", "who", "why"),
    [
        (cancel_text("ada@laptop"), "ada@laptop", ""),
        (cancel_text("ada@laptop", "wrong (very)"), "ada@laptop", "wrong (very)"),
        (cancel_text("github:a/b run 5 by ada", "x\ny"), "github:a/b run 5 by ada", "x\ny"),
        ("replaced by ada@laptop", "ada@laptop", "replaced"),
        ("from the UI", "", "from the UI"),
        ("", "", ""),
    ],
)
def test_a_cancel_tells_who_and_why(text: str, who: str, why: str) -> None:
    assert read_cancel(text) == (who, why)


def test_the_newest_events_that_fit_are_found(ledger: Ledger) -> None:
    filled(ledger)
    ledger.append_event(AuditEvent(at=START, actor="100%", action="approve"))
    assert [one.number for one in ledger.last_events(limit=2)] == [6, 7]
    assert [one.number for one in ledger.last_events(SHOP.key, limit=1)] == [6]
    assert [one.number for one in ledger.last_events(action="approve")] == [7]
    assert [one.number for one in ledger.last_events(actor="0%")] == [7]
    later = START + timedelta(minutes=30)
    assert [one.number for one in ledger.last_events(since=later)] == [2, 4, 6]


# --- the command ---------------------------------------------------------------------------------

Helix = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def helix(ledger_url: str, tmp_path: Path) -> Helix:
    env = {"HELIX_LEDGER_URL": ledger_url, "HELIX_STATE_DIR": str(tmp_path / "state-of-cli")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", "audit", *words],
            env={**os.environ, **env},
            capture_output=True, text=True, timeout=60, cwd=ROOT,
        )  # fmt: skip

    return run


def test_the_command_lists_verifies_and_exports(
    ledger: Ledger, ledger_url: str, helix: Helix, tmp_path: Path
) -> None:
    head = filled(ledger).head
    listed = helix("list", "acme/shop", "--action", "push", "--json")
    assert len(json.loads(listed.stdout)["events"]) == 6
    assert "ada@laptop" in helix("list", "--since", "10000d", "-n", "1").stdout
    assert "no time" in helix("list", "--since", "yesterday").stderr

    whole = helix("verify")
    assert whole.returncode == 0 and f"6 events, whole; the last one: {head}" in whole.stdout
    assert helix("verify", "--anchor", str(head)).returncode == 0
    assert helix("verify", "--anchor", "canary").returncode == 2
    file = tmp_path / "audit.jsonl"
    assert helix("export", "-o", str(file)).returncode == 0
    assert file.stat().st_mode & 0o077 == 0
    assert helix("export").stdout.splitlines()[0] in json.dumps(
        [json.loads(one) for one in file.read_text().splitlines()],
        ensure_ascii=False, separators=(",", ":"),
    )  # fmt: skip
    assert helix("verify", "--file", str(file)).returncode == 0

    tamper(ledger_url, "UPDATE events SET reason = 'another' WHERE number = 2",
           "DELETE FROM events WHERE number > 4")  # fmt: skip
    broken = helix("verify", "--anchor", str(head), "--json")
    assert broken.returncode == 1
    found = json.loads(broken.stdout)
    assert not found["whole"]
    assert found["faults"] == [
        "event 2 was changed",
        "the trail ends with event 4, and event 6 was there",
        "no event tells all of deployment d-2 (release 3 of acme/shop): it was taken away",
    ]
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], lines[3]]))
    assert "event 3 is missing" in helix("verify", "--file", str(file)).stdout
    file.write_text("nonsense")
    assert "line 1, is no event" in helix("verify", "--file", str(file)).stderr
