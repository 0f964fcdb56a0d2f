"""When a process traces, and what it does not send."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode

from model.errors import ConfigurationError
from worker import tracing
from worker.spans import Redacted

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
    ],
)
def test_opentelemetrys_own_variables_decide(environ: dict[str, str], on: bool) -> None:
    assert tracing.wanted(environ) is on


def test_a_protocol_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigurationError, match="grpc") as refused:
        tracing.start("helix-test")
    assert "http/protobuf" in refused.value.hint
    assert tracing.interceptors() == []


def test_nothing_of_it_is_imported_where_nobody_traces() -> None:
    code = (
        "import sys, cli.main, worker.tracing as t; t.start('x'); t.note(a='b'); t.stop();"
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'temporalio'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("step", "url", "sent"),
    [
        (
            "push",
            "https://u:hunter2@r.test:5000/v2/shop?sig=hunter2",
            "https://r.test:5000/v2/shop",
        ),
        ("push", "/v2/shop?sig=hunter2", "/v2/shop"),
        ("notify", "https://hooks.test/services/hunter2", "https://hooks.test"),
        ("push", "http://[hunter2", ""),
    ],
)
def test_a_url_is_sent_without_what_may_be_secret(step: str, url: str, sent: str) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Redacted(kept)))
    token = "ghp_" + "hunter2a" * 4
    with provider.get_tracer("test").start_as_current_span("GET") as span:
        span.set_attributes({"helix.step": step, "http.url": url, "retries": 2, "note": token})
        span.record_exception(ValueError(token))
        span.set_status(Status(StatusCode.ERROR, token))
    [found] = kept.get_finished_spans()
    assert "hunter2" not in found.to_json()
    assert found.attributes is not None
    assert (found.attributes["http.url"], found.attributes["retries"]) == (sent, 2)
    assert found.events[0].name == "exception" and not found.status.is_ok


@pytest.mark.parametrize(("command", "traced"), [("history", True), ("worker", False)])
def test_a_command_that_goes_on_and_on_is_no_trace(
    monkeypatch: pytest.MonkeyPatch, command: str, traced: bool
) -> None:
    from cli import main
    from cli import traced as root

    seen: list[str] = []

    @contextmanager
    def command_span(words: list[str], known: list[str]) -> Iterator[Callable[[int], None]]:
        seen.extend(words)
        yield lambda code: None

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(root, "command", command_span)
    monkeypatch.setattr(sys, "argv", ["helix", command, "--no-such-option"])
    assert main.run() == 2
    assert seen == ([command, "--no-such-option"] if traced else [])
