"""A command as the root of a trace. Imported only where traces are wanted (`worker.tracing`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cli import output
from model.errors import HelixError
from worker import tracing


@contextmanager
def command(words: Sequence[str], known: Sequence[str]) -> Iterator[Callable[[int], None]]:
    """A span around a command; a trace that TRACEPARENT names, as in a CI job, goes on.

    Yields:
        What takes the command's exit code. Traces never change how a command ends.
    """
    try:
        tracing.start("helix-cli")
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        spans = tracing.current()
    except HelixError as error:
        output.note(f"warning: {error}")
        yield lambda code: None
        return
    # It would speak up in the middle of the command's own output.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    name = next((word for word in words if word in known), "help")
    carrier = {"traceparent": os.environ.get("TRACEPARENT", "")}
    above = TraceContextTextMapPropagator().extract(carrier)
    with spans.tracer.start_as_current_span(f"helix {name}", above, SpanKind.INTERNAL) as span:

        def ended(code: int) -> None:
            span.set_attribute("process.exit.code", code)
            if code:
                span.set_status(Status(StatusCode.ERROR, f"exit code {code}"))

        yield ended
    if not tracing.stop():
        output.note("warning: the collector that OTEL_EXPORTER_OTLP_… names did not take the trace")
