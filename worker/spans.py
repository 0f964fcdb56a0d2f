"""The spans themselves: made by OpenTelemetry's SDK and instrumentations, sent by OTLP over HTTP.

Imported only where traces are wanted (`worker.tracing`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from temporalio.contrib.opentelemetry import TracingInterceptor

from model.redaction import redact
from worker.about import about

PREFIX = "helix."
URLS = ("url.full", "http.url", "http.target", "url.path", "url.query")
"""Attributes in which a secret may stand in the open."""

INSTRUMENTATIONS = (
    ("httpx", "opentelemetry.instrumentation.httpx", "HTTPXClientInstrumentor"),
    ("requests", "opentelemetry.instrumentation.requests", "RequestsInstrumentor"),
    ("botocore", "opentelemetry.instrumentation.botocore", "BotocoreInstrumentor"),
    ("grpc", "opentelemetry.instrumentation.grpc", "GrpcInstrumentorClient"),
)
"""A library -> what makes a span of each of its calls. The engine is called through requests."""


class Spans:
    """The spans of one process.

    Args:
        service: its name, unless the environment says another.
        requests: make a span of each call of the libraries in `INSTRUMENTATIONS` that are here.
    """

    def __init__(self, service: str, *, requests: bool) -> None:
        self._exporter = Redacted(OTLPSpanExporter())
        self._provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
        self._provider.add_span_processor(Subject())
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("helix-deploy", version("helix-deploy"))
        if requests:
            for library, module, instrumentor in INSTRUMENTATIONS:
                if find_spec(library) is not None:
                    made = getattr(import_module(module), instrumentor)()
                    made.instrument(tracer_provider=self._provider)

    @property
    def lost(self) -> bool:
        """Whether the collector did not take something."""
        return self._exporter.lost

    def interceptors(self) -> list[Any]:
        """For Temporal's client."""
        # A schedule's run has no span of a client above it, and is worth a trace all the same.
        return [TracingInterceptor(self.tracer, always_create_workflow_spans=True)]

    def note(self, attributes: Mapping[str, str]) -> None:
        """Note attributes of the current span."""
        span = trace.get_current_span()
        span.set_attributes({PREFIX + name: value for name, value in attributes.items() if value})

    def close(self) -> None:
        """Send what is left, and end."""
        self._provider.shutdown()


class Subject(SpanProcessor):
    """Gives every span its deployment, instance and step."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span begins, in the context of what it is about."""
        for name, value in about()._asdict().items():
            if value:
                span.set_attribute(PREFIX + name, value)


class Redacted(SpanExporter):
    """Sends spans without what may be a secret."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.lost = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        result = self._exporter.export([redacted(span) for span in spans])
        self.lost = self.lost or result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """No more will come."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what is left."""
        return self._exporter.force_flush(timeout_millis)


def redacted(span: ReadableSpan) -> ReadableSpan:
    """A copy without secrets: URLs lose their query and user, and a notification's, whose path is
    its password, all but the host; texts lose what is shaped like a token."""
    attributes = dict(span.attributes or {})
    only_host = attributes.get(PREFIX + "step") == "notify"
    for name in URLS:
        if name in attributes:
            attributes[name] = _address(str(attributes[name]), only_host)
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_texts(attributes),
        events=[Event(one.name, _texts(one.attributes), one.timestamp) for one in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, redact(span.status.description or "") or None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _texts(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: redact(value) if isinstance(value, str) else value
        for name, value in (attributes or {}).items()
    }


def _address(url: str, only_host: bool) -> str:
    """A URL, or the part of one, without what may be a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    path = "" if only_host else parts.path
    return f"{parts.scheme}://{host}{path}" if host else path


def _resource(service: str) -> Resource:
    """Who we are. The environment's own name for it wins."""
    ours = {"service.version": version("helix-deploy")}
    named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not os.environ.get("OTEL_SERVICE_NAME") and not named:
        ours["service.name"] = service
    return Resource.create(ours)
