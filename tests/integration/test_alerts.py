"""The alert rules and the dashboard are what Prometheus and Grafana take."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.services.need import program

FOLDER = Path(__file__).parent.parent.parent / "observability"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
         for rule in group["rules"]]  # fmt: skip


def promtool(*words: str, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    command = [program("promtool", "prometheus"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", "alerts.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_each_alert_fires_when_it_must_and_is_silent_otherwise() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (FOLDER / "alerts_test.yml").read_text()
    for rule in RULES:
        assert text.count(f"alertname: {rule['alert']}") == 1, "silent"
        assert text.count(f'alertname="{rule["alert"]}"') == 1, "firing"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("> 20", "> 2000"), ("== 0\n        for: 2m", "== 1\n        for: 2m"), ("0.9\n", "0\n")],
)
def test_a_rule_that_is_wrong_is_noticed(tmp_path: Path, right: str, wrong: str) -> None:
    for name in ("alerts.yml", "alerts_test.yml"):
        shutil.copy(FOLDER / name, tmp_path)
    text = (tmp_path / "alerts.yml").read_text()
    assert right in text
    (tmp_path / "alerts.yml").write_text(text.replace(right, wrong, 1))
    assert promtool("test", "rules", "alerts_test.yml", cwd=tmp_path).returncode != 0


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"] and rule["annotations"]["action"]


def test_the_dashboard_has_a_place_for_each_panel() -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
