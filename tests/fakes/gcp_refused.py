"""How the stand-in for Google Cloud says no: a gRPC status with Google's own details."""

from __future__ import annotations

from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2


class Refused(Exception):
    """An answer with a gRPC code other than OK."""

    def __init__(
        self, code: str, message: str, reason: str = "", retry_after: float = 0, id: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
        if reason:
            metadata = {"service": "run.googleapis.com"}
            info = error_details_pb2.ErrorInfo(
                reason=reason, domain="googleapis.com", metadata=metadata
            )
            self._add(info)
        if retry_after:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(retry_after * 1000))
            self._add(error_details_pb2.RetryInfo(retry_delay=delay))
        if id or retry_after:
            self._add(error_details_pb2.RequestInfo(request_id=id or "request-7"))

    def _add(self, detail: Any) -> None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        self.status.details.append(packed)
