"""What watches a worker in production, for real: OpenTelemetry's collector, and Prometheus."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.services.need import program
from tests.services.registry import free_port

START_SECONDS = 20.0


@dataclass(frozen=True)
class Span:
    """One span, as the collector wrote it down."""

    name: str
    trace: str
    id: str
    parent: str
    service: str
    attributes: dict[str, Any]
    raw: str

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes.get(attribute)


@dataclass
class Collector:
    """A collector that runs."""

    port: int
    file: Path

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def spans(self) -> list[Span]:
        """All that it received until now."""
        return [
            span
            for line in self.file.read_text().splitlines()
            for resource in json.loads(line)["resourceSpans"]
            for span in _spans(resource)
        ]


def _spans(resource: dict[str, Any]) -> Iterator[Span]:
    service = _values(resource["resource"]["attributes"])["service.name"]
    for scope in resource["scopeSpans"]:
        for one in scope["spans"]:
            yield Span(
                name=one["name"],
                trace=one["traceId"],
                id=one["spanId"],
                parent=one.get("parentSpanId", ""),
                service=service,
                attributes=_values(one.get("attributes", [])),
                raw=json.dumps(one),
            )


def _values(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values()), None) for one in attributes}


@contextmanager
def collector(folder: Path) -> Iterator[Collector]:
    """A collector that takes OTLP over HTTP on a loopback port."""
    found = Collector(free_port(), folder / "spans.jsonl")
    found.file.touch()
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{found.port}"}}}},
        "exporters": {"file": {"path": str(found.file), "flush_interval": "100ms"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
        },
    }
    file = folder / "collector.yml"
    file.write_text(yaml.safe_dump(config))
    command = [program("helix-test-collector", "collector"), "--config", str(file)]
    with _running(command, folder / "collector.log", found.endpoint + "/v1/traces"):
        yield found


@dataclass
class Prometheus:
    """A Prometheus that runs."""

    port: int
    scraped: str = field(default="")

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The samples that an expression gives now: labels and value.

        Raises:
            AssertionError: Prometheus does not understand it; says why.
        """
        answer = httpx.get(
            f"http://127.0.0.1:{self.port}/api/v1/query", params={"query": expression}, timeout=10
        ).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]


@contextmanager
def prometheus(folder: Path, target: str, rules: Path | None = None) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `target` (HOST:PORT) every second as the job helix-worker."""
    found = Prometheus(free_port(), target)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [{"job_name": "helix-worker", "static_configs": [{"targets": [target]}]}],
    }
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    command = [
        program("prometheus", "prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{found.port}",
    ]
    ready = f"http://127.0.0.1:{found.port}/-/ready"
    with _running(command, folder / "prometheus.log", ready, lambda code: code == 200):
        yield found


@contextmanager
def _running(
    command: list[str], log: Path, url: str, good: Callable[[int], bool] = lambda code: True
) -> Iterator[None]:
    """A process for the length of the block, from the moment it answers."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url, good):
            dead = process.poll() is not None
            if dead or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str, good: Callable[[int], bool]) -> bool:
    try:
        return good(httpx.get(url, timeout=2).status_code)
    except httpx.TransportError:
        return False
