"""Whether a deployment is traced, and what Temporal's client needs for it.

OpenTelemetry's own variables decide, and nothing else. Nothing of OpenTelemetry is imported before
they say so: this module costs nothing where nobody traces.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from model.errors import ConfigurationError

if TYPE_CHECKING:
    from worker.spans import Spans

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
FLUSH_SECONDS = 3.0
"""How long a process that ends goes on sending its last spans."""

_spans: Spans | None = None


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether OpenTelemetry's variables ask for traces: an endpoint is named, or OTLP is."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporters := environ.get("OTEL_TRACES_EXPORTER"):
        return "otlp" in [one.strip() for one in exporters.split(",")]
    return any(environ.get(name) for name in ENDPOINTS)


def start(service: str, *, requests: bool = False) -> None:
    """Trace from here on, if that is wanted. Once a process.

    Args:
        service: the service's name, unless OTEL_SERVICE_NAME says another.
        requests: trace each HTTP and gRPC call of the SDKs too.

    Raises:
        ConfigurationError: it is wanted and cannot be; the process may well go on without.
    """
    global _spans
    if not wanted() or _spans is not None:
        return
    protocol = next(filter(None, map(os.environ.get, PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        raise ConfigurationError(
            f"there are no traces: OTLP by «{protocol}» is not supported",
            hint="set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and the port for it (often 4318)",
        )
    try:
        from worker.spans import Spans
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"there are no traces: {error.name} is not installed",
            hint="pip install 'helix-deploy[telemetry]'",
        ) from None
    _spans = Spans(service, requests=requests)


def current() -> Spans:
    """The spans of this process, once `start` has begun them."""
    assert _spans is not None
    return _spans


def interceptors() -> list[Any]:
    """What a Temporal client needs to carry the trace on; its workers inherit it."""
    return _spans.interceptors() if _spans is not None else []


def note(**attributes: str) -> None:
    """Note attributes of the current span, under our own prefix. Not for secrets."""
    if _spans is not None:
        _spans.note(attributes)


def stop() -> bool:
    """Send what is left, for a few seconds at most. Returns whether the collector took all."""
    global _spans
    if _spans is None:
        return True
    ending, _spans = _spans, None
    # The exporter waits longer for a collector that does not answer than anybody wants to.
    thread = threading.Thread(target=ending.close, daemon=True)
    thread.start()
    thread.join(FLUSH_SECONDS)
    return not thread.is_alive() and not ending.lost
