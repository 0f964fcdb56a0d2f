"""The worker's settings: where things are by default, and what is said of a wrong variable."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from model.errors import ConfigurationError
from worker import paths
from worker.settings import load


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("HELIX_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_everything_is_kept_in_a_private_folder_at_home(tmp_path: Path) -> None:
    settings = load()
    state = tmp_path / ".local/state/helix-deploy"
    assert settings.state_dir == state
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert settings.ledger_url == f"sqlite:///{state}/ledger.db"
    assert settings.store_url == f"file://{state}/store"
    assert settings.own_queue == f"helix-deploy@{settings.worker_name}"


def test_the_folder_follows_xdg_and_its_own_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert load().state_dir == tmp_path / ".local/state/helix-deploy"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert load().state_dir == tmp_path / "xdg/helix-deploy"
    monkeypatch.setenv("HELIX_STATE_DIR", "~/mine")
    assert load().state_dir == paths.state_dir() == tmp_path / "mine"
    assert load().ledger_url == f"sqlite:///{tmp_path}/mine/ledger.db"


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HELIX_LOG_LEVEL": "loud",
        "HELIX_HEALTH_ADDRESS": "8080",
        "HELIX_MAX_CONCURRENT_ACTIVITIES": "0",
        "HELIX_TASK_QUEUE": "two words",
        "HELIX_LEDGER_URL": "user:hunter2@host",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    text = str(caught.value)
    for expected in (
        "HELIX_LOG_LEVEL",
        "HELIX_HEALTH_ADDRESS: expected HOST:PORT",
        "HELIX_MAX_CONCURRENT_ACTIVITIES",
        "HELIX_TASK_QUEUE",
        "HELIX_LEDGER_URL: expected a URL",
    ):
        assert expected in text
    assert "hunter2" not in text


def test_a_folder_that_cannot_be_made_is_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIX_STATE_DIR", "/dev/null/state")
    with pytest.raises(ConfigurationError, match="HELIX_STATE_DIR: the folder cannot") as caught:
        load()
    assert "LEDGER" not in str(caught.value)


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old, and readable by everyone")
    paths.write_private(file, "new")
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["secret"]
