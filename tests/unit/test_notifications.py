"""The notifications of helix.toml, from the file to the instance."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.instance import Channel
from project.checks import check
from project.load import inspect_project, load_project
from project.resolve import resolve

HEAD = '[project]\nname = "shop"\n[cloud.prod.docker]\nimage = "acme/shop:1"\n'
TEAM = '[deploy.notifications.team]\nkind = "slack"\nurl = "vault:kv/shop#slack"\n'


def channels(folder: Path, text: str) -> tuple[Channel, ...]:
    (folder / "helix.toml").write_text(HEAD + text)
    return resolve(load_project(folder / "helix.toml"), "prod").notifications


def problems(folder: Path, text: str) -> list[str]:
    (folder / "helix.toml").write_text(HEAD + text)
    found = check(inspect_project(folder / "helix.toml"))
    return [str(problem) for problem in found if "notifications" in problem.key]


def test_an_instance_is_told_of_as_all_are(tmp_path: Path) -> None:
    assert channels(tmp_path, TEAM) == (
        Channel(name="team", kind="slack", url="vault:kv/shop#slack"),
    )


def test_a_table_of_an_instance_comes_instead(tmp_path: Path) -> None:
    own = '[deploy.prod.notifications.team]\nkind = "discord"\nurl = "vault:kv/shop#discord"\n'
    [channel] = channels(tmp_path, TEAM + own + 'on = "rolled-back"\n')
    assert (channel.kind, channel.on) == ("discord", ("rolled-back",))
    assert channels(tmp_path, TEAM + own + "on = []\n") == ()


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    wrong = TEAM.replace("slack", "smoke", 1) + 'on = ["often"]\ntemplate = "$instance $colour"\n'
    found = "\n".join(problems(tmp_path, wrong))
    for text in ("discord", "often", "colour"):
        assert text in found


@pytest.mark.parametrize("kind", ["slack", "discord"])
def test_a_url_that_is_a_secret_does_not_stand_in_the_file(tmp_path: Path, kind: str) -> None:
    text = f'[deploy.notifications.team]\nkind = "{kind}"\nurl = "https://chat.test/canary"\n'
    found = "\n".join(problems(tmp_path, text))
    assert "reference" in found and "canary" not in found
    plain = text.replace(kind, "webhook")
    assert problems(tmp_path, plain) == []


def test_a_signature_nobody_checks_is_pointed_out(tmp_path: Path) -> None:
    found = problems(tmp_path, TEAM + 'secret = "vault:kv/shop#key"\n')
    assert len(found) == 1 and "not signed" in found[0]
