"""What Helix Cloud's answers and events mean. Reconstructed from HelixDB's open-source CLI, which
only tells 401, 403, 404 and «anything else» apart; the sentences are those it shows."""

from __future__ import annotations

from model.errors import (
    AuthExpired,
    BuildFailed,
    Busy,
    ConfigurationError,
    HelixError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Transient,
)

LOG_IN = "log in again: run HelixDB's own `helix auth login` where the worker runs"
TROUBLE = "Helix Cloud has trouble; it is tried again"
UNKNOWN = (ConfigurationError, "see the message, and the instance's table")

STATUS: dict[int, tuple[type[HelixError], str]] = {
    400: (BuildFailed, "correct the queries, then push again"),
    401: (PermissionDenied, LOG_IN),
    402: (QuotaExceeded, "see the workspace's billing at https://cloud.helix-db.com"),
    403: (PermissionDenied, "ask the workspace's owner for access to the cluster"),
    404: (NotFound, "check cluster_id: helix set <instance>.cluster_id"),
    408: (Transient, TROUBLE),
    409: (Busy, "another deployment of the cluster is going on"),
    413: (ConfigurationError, "the queries are too large: at most 20 MiB and 2,000 files"),
    422: (BuildFailed, "correct the queries, then push again"),
    429: (Throttled, "Helix Cloud asks for fewer calls; it is tried again"),
}
"""HTTP status -> what it means, and what to do. From 500 on: transient."""

SENTENCES: tuple[tuple[int, str, type[HelixError], str], ...] = (
    (401, "expired", AuthExpired, LOG_IN),
)
"""Status, and a part of what the answer says, in lower case -> what that means."""

EVENTS: dict[str, tuple[type[HelixError], str]] = {
    "query_validation_error": (BuildFailed, "correct the query, then push again"),
    "bad_request": (ConfigurationError, "see the message, and [cloud.<instance>.helix]"),
    "error": (BuildFailed, "see the message; helix logs <instance> may say more"),
}
"""The events that end a deployment badly."""

SUCCESSES = frozenset({"deployed", "redeployed", "done", "success"})
"""The events that end it well. Nothing else does, least of all the end of the stream."""

PROGRESS: dict[str, str] = {
    "validating_queries": "Helix Cloud checks the queries",
    "building": "Helix Cloud builds",
    "deploying": "Helix Cloud deploys",
    "progress": "",
    "log": "",
    "status_transition": "",
}
"""The events on the way -> what to tell, besides their own `message`."""


def from_status(status: int, said: str) -> tuple[type[HelixError], str]:
    """What an answer means, and what to do."""
    for code, part, cls, hint in SENTENCES:
        if code == status and part in said.lower():
            return cls, hint
    return STATUS.get(status) or ((Transient, TROUBLE) if status >= 500 else UNKNOWN)
