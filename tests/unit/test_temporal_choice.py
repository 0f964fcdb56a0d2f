"""Which Temporal is used: what Temporal's own configuration says, or the embedded one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from temporalio.envconfig import ClientConfig

from cli import stack, temporal
from model.errors import ConfigurationError

FILE = """
[profile.default]
address = "default.example.com:7233"
[profile.prod]
address = "shop.a1b2c.tmprl.cloud:7233"
namespace = "shop.a1b2c"
[profile.bare]
namespace = "x"
"""


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("TEMPORAL_", "HELIX_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "temporalio" / "temporal.toml"
    path.parent.mkdir()
    path.write_text(FILE)
    return path


def test_without_any_configuration_the_embedded_one_is_used() -> None:
    assert temporal.configured() is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("default.example.com:7233", "default")),
        ({"TEMPORAL_PROFILE": "prod"}, ("shop.a1b2c.tmprl.cloud:7233", "shop.a1b2c")),
        ({"TEMPORAL_ADDRESS": "other:1"}, ("other:1", "default")),
        ({"TEMPORAL_NAMESPACE": "mine"}, ("default.example.com:7233", "mine")),
        ({"TEMPORAL_PROFILE": "bare", "TEMPORAL_ADDRESS": "other:1"}, ("other:1", "x")),
    ],
)
def test_the_choice_is_the_one_that_temporal_itself_makes(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    expected: tuple[str, str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = temporal.configured()
    assert found is not None
    assert (found.address, found.namespace) == expected
    theirs = ClientConfig.load_client_connect_config()
    assert theirs["target_host"] == expected[0]
    assert theirs.get("namespace", "default") == expected[1]


def test_a_file_elsewhere_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text('[profile.default]\naddress = "mine:7233"\n')
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "mine.toml"))
    found = stack.ensure()
    assert (found.address, found.embedded) == ("mine:7233", False)


def test_a_profile_without_an_address_does_not_start_the_embedded_stack(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_PROFILE", "bare")
    with pytest.raises(ConfigurationError, match="has no address"):
        temporal.configured()
    monkeypatch.setenv("TEMPORAL_PROFILE", "pord")
    with pytest.raises(ConfigurationError, match="no such profile"):
        temporal.configured()
    file.write_text("[profile")
    with pytest.raises(ConfigurationError, match=r"temporal\.toml"):
        temporal.configured()


def test_the_ui_is_where_it_is_said_to_be(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stack.ensure().ui_url == ""
    monkeypatch.setenv("HELIX_UI_URL", "https://ui.example.com/")
    assert stack.ensure().ui_url == "https://ui.example.com"
    monkeypatch.delenv("HELIX_UI_URL")
    monkeypatch.setenv("TEMPORAL_PROFILE", "prod")
    assert stack.ensure().ui_url == "https://cloud.temporal.io"


def test_ports_of_last_time_are_taken_again_unless_somebody_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal, "FREED_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port not in temporal.choose_ports(tmp_path, (port, port))
    assert temporal.choose_ports(tmp_path, (port, port)) == (port, port)


def test_two_stacks_have_two_places(tmp_path: Path) -> None:
    assert temporal.choose_ports(tmp_path, None) == temporal.choose_ports(tmp_path, None)
    assert len({next(temporal.places(tmp_path / str(one))) for one in range(20)}) > 15
    everywhere = list(temporal.places(tmp_path))
    assert len(everywhere) == len(set(everywhere)) == len(temporal.PORTS)
