"""What a worker tells those who watch it: the collector, Prometheus, the log, the receivers."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook

from tests.e2e.machine import ROOT, Machine, Project, clean_up, eventually, make_project
from tests.services.receiver import Receiver, receiver
from tests.services.registry import TestRegistry, free_port
from tests.services.telemetry import Collector, Prometheus, Span, collector, prometheus

pytestmark = pytest.mark.engine

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CANARIES = ("canary-in-slacks-url-81", "canary-in-the-environment-82", SECRET)
OBSERVABILITY = ROOT / "observability"
DEPLOY = """
secrets = { SHOP_KEY = "env:SHOP_KEY" }
notifications.team = { kind = "slack", url = "env:SLACK_URL" }
notifications.bot = { kind = "webhook", url = "env:HOOK_URL", secret = "env:HOOK_SECRET" }
"""


@dataclass
class Watched:
    """A worker under watch, and the deployments that it has carried out."""

    project: Project
    collector: Collector
    prometheus: Prometheus
    receiver: Receiver
    metrics: str
    good: str
    """The deployment that succeeded last."""
    bad: str
    """The one that was rolled back."""

    @property
    def log(self) -> str:
        """What the worker has printed."""
        return (self.project.machine.home / "state" / "worker.log").read_text()


@pytest.fixture(scope="module")
def watched(registry: TestRegistry) -> Iterator[Watched]:
    """Three deployments, the last of which is bad."""
    address = f"127.0.0.1:{free_port()}"
    with (
        tempfile.TemporaryDirectory(prefix="hx") as folder,
        collector(Path(folder)) as traces,
        prometheus(Path(folder), address, OBSERVABILITY / "alerts.yml") as metrics,
        receiver() as told,
    ):
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "HELIX_METRICS_ADDRESS": address,
            "HELIX_LOG_FORMAT": "json",
            "REGISTRY_PASSWORD": registry.password,
            "SHOP_KEY": CANARIES[1],
            "SLACK_URL": told.url(f"/slack/{CANARIES[0]}"),
            "HOOK_URL": told.url("/hook"),
            "HOOK_SECRET": SECRET,
        }
        machine = Machine(Path(folder), env)
        machine.helix("up")
        project = make_project(machine, registry, deploy=DEPLOY)
        scraped = 'sum(scrape_samples_scraped{job="helix-worker"})'
        eventually(lambda: metrics.query(scraped), what="the first scrape")
        try:
            told.answers.append((503, {}))  # one of the receivers is away at first
            ends = []
            for version, mode, code in (("1", "good", 0), ("2", "good", 0), ("3", "broken", 3)):
                project.behave(version, mode)
                events = project.push("--json", expect=code).events
                ends.append(events[-1]["deployment"])
            yield Watched(project, traces, metrics, told, f"http://{address}/metrics", *ends[1:])
        finally:
            clean_up(project)
            machine.helix("down", expect=None)


# Traces -----------------------------------------------------------------------------------------


def trace_of(watched: Watched, deployment: str) -> list[Span]:
    """The spans of a deployment's trace, once its root has come, which ends last."""

    def complete() -> list[Span]:
        spans = watched.collector.spans()
        [root] = [
            one
            for one in spans
            if one.name == "helix push" and one["helix.deployment"] == deployment
        ] or [None]
        return [one for one in spans if root is not None and one.trace == root.trace]

    found: list[Span] = eventually(complete, what="the trace")
    return found


def above(spans: list[Span], span: Span) -> list[str]:
    """The names on the way from a span to the root."""
    known = {one.id: one for one in spans}
    names = []
    while span.parent in known:
        span = known[span.parent]
        names.append(span.name)
    return names


def test_one_trace_leads_from_the_command_to_each_request(watched: Watched) -> None:
    spans = trace_of(watched, watched.good)
    host = watched.project.repository.partition("/")[0]
    registry = [
        one for one in spans if one["helix.step"] == "push" and host in str(one["http.url"])
    ]
    engine = [one for one in spans if str(one["http.url"]).startswith("http+docker://")]
    for span in (registry[0], engine[0]):
        path = above(spans, span)
        assert path[-2:] == ["StartWorkflow:DeployWorkflow", "helix push"]
        assert path[0].startswith("RunActivity:") and path[1].startswith("StartActivity:")
    assert {one.service for one in spans} == {"helix-cli", "helix-worker"}
    steps = {one["helix.step"] for one in spans}
    assert steps >= {"validate", "build", "authenticate", "push", "deploy", "health-check"}


def test_each_span_of_a_worker_says_what_it_is_about(watched: Watched) -> None:
    for deployment in (watched.good, watched.bad):
        for span in trace_of(watched, deployment):
            if span.service == "helix-worker":
                assert span["helix.deployment"] == deployment
                assert span["helix.instance"] == f"{watched.project.name}/dev"
                assert span["helix.step"]


def test_a_failed_step_and_its_command_are_failed_spans(watched: Watched) -> None:
    spans = trace_of(watched, watched.bad)
    failed = {one.name for one in spans if '"code": 2' in one.raw}
    assert {"helix push", "RunActivity:check_health"} <= failed


def test_no_secret_is_in_a_span(watched: Watched) -> None:
    text = watched.collector.file.read_text()
    told = [one for one in watched.collector.spans() if one["helix.step"] == "notify"]
    assert any(one["http.url"] == watched.receiver.url("") for one in told)
    for canary in (*CANARIES, watched.project.machine.env["REGISTRY_PASSWORD"]):
        assert canary not in text


# Metrics ----------------------------------------------------------------------------------------


def value(watched: Watched, expression: str) -> float:
    [(_, found)] = watched.prometheus.query(expression)
    return found


def test_prometheus_counts_what_happened(watched: Watched) -> None:
    def of(outcome: str) -> str:
        return f'sum(helix_deployments_total{{outcome="{outcome}"}})'

    eventually(lambda: value(watched, of("rolled-back")) == 1, what="the last scrape")
    assert value(watched, of("succeeded")) == 2
    assert value(watched, of("cancelled")) == value(watched, of("needs-attention")) == 0
    assert value(watched, 'sum(helix_rollbacks_total{complete="yes"})') == 1
    assert value(watched, 'sum(helix_retries_total{activity_type="notify"})') == 1
    failed = watched.prometheus.query("sum by (code) (helix_failed_attempts_total)")
    assert {one["code"]: n for one, n in failed} == {"HealthCheckFailed": 1, "Transient": 1}
    steps = watched.prometheus.query(
        'sum by (step) (helix_step_duration_seconds_count{state="done"})'
    )
    assert {one["step"]: n for one, n in steps} == {
        "validate": 3, "build": 3, "authenticate": 3, "push": 3, "deploy": 3, "health-check": 2,
    }  # fmt: skip
    waited = "sum(temporal_activity_schedule_to_start_latency_seconds_count)"
    assert value(watched, waited) > 20


def test_a_metric_has_few_series_and_each_once(watched: Watched) -> None:
    text = httpx.get(watched.metrics).text
    seen: set[Any] = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = (sample.name, *sorted(sample.labels.items()))
            assert series not in seen
            seen.add(series)
    labels = {label for _, *pairs in seen for label, _ in pairs}
    assert labels <= {
        "activity_type", "code", "complete", "eager", "failure_reason", "le", "namespace",
        "operation", "outcome", "poller_type", "state", "status_code", "step", "task_queue",
        "worker_type", "workflow_type",
    }  # fmt: skip
    assert watched.project.name not in text and watched.good not in text


def dashboard_queries() -> list[Any]:
    panels = json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]
    return [
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in panels
        for target in panel["targets"]
    ]


@pytest.mark.parametrize("expression", dashboard_queries())
def test_each_query_of_the_dashboard_has_an_answer(watched: Watched, expression: str) -> None:
    for variable, text in (
        ("$__range", "10m"),
        ("$__rate_interval", "5m"),
        ("$namespace", "default"),
    ):
        expression = expression.replace(variable, text)
    assert "$" not in expression

    def numbers() -> list[float]:
        found = [number for _, number in watched.prometheus.query(expression)]
        return [number for number in found if number == number]  # NaN is none

    assert eventually(numbers, what=expression)


def test_prometheus_runs_the_alert_rules(watched: Watched) -> None:
    address = f"http://127.0.0.1:{watched.prometheus.port}/api/v1/rules"
    groups = httpx.get(address).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == 9 and {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


# The log ----------------------------------------------------------------------------------------


def test_each_line_of_the_log_says_what_it_is_about(watched: Watched) -> None:
    entries = [json.loads(line) for line in watched.log.splitlines()]
    about = [one for one in entries if "deployment" in one]
    assert {one["deployment"] for one in about} >= {watched.bad}
    for entry in about:
        assert entry["instance"] == f"{watched.project.name}/dev" and entry["step"]
    for entry in entries:
        if entry not in about:  # what is said outside of any deployment
            assert entry["logger"] in ("__main__", "worker.main", "temporalio.core"), entry
    for canary in CANARIES:
        assert canary not in watched.log


# Notifications ----------------------------------------------------------------------------------


def test_every_end_is_told_once_it_was_taken(watched: Watched) -> None:
    chat, hook = f"/slack/{CANARIES[0]}", "/hook"
    eventually(
        lambda: len(watched.receiver.taken(chat)) == len(watched.receiver.taken(hook)) == 3,
        what="six messages",
    )
    assert len(watched.receiver.messages) == 7  # one was refused, and sent again
    bodies = [Webhook(SECRET).verify(one.body, one.headers) for one in watched.receiver.taken(hook)]
    assert sorted(one["type"] for one in bodies) == [
        "deployment.rolled-back", "deployment.succeeded", "deployment.succeeded",
    ]  # fmt: skip
    [failed] = [one["data"] for one in bodies if one["type"] == "deployment.rolled-back"]
    assert failed["deployment"] == watched.bad and failed["step"] == "health-check"
    texts = [json.loads(one.body)["text"] for one in watched.receiver.taken(chat)]
    assert any(watched.project.url in text for text in texts)


# The end of a process ---------------------------------------------------------------------------


def test_a_collector_that_is_away_costs_a_command_a_few_seconds_at_most(watched: Watched) -> None:
    away = Machine(
        watched.project.machine.home,
        {**watched.project.machine.env, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    )
    began = time.monotonic()
    done = away.helix("history", "dev", cwd=watched.project.folder)
    assert "did not take the trace" in done.err
    assert time.monotonic() - began < 20
