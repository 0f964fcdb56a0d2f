"""What a Swarm means by a sentence, as far as it is not any engine's.

Swarm answers with gRPC's words in HTTP's statuses, and says what became of a task in the task's own
`Err`. The first row whose pattern is found wins, case ignored. Seen on engine 20.10.
"""

from __future__ import annotations

import re

from model.docker_errors import Rows
from model.errors import (
    Busy,
    ConfigurationError,
    Conflict,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Transient,
)

API: Rows = (
    (
        r"not a swarm manager|not part of a swarm|swarm is encrypted",
        ConfigurationError,
        "name a manager of the swarm as `host`; see: docker node ls",
    ),
    (r"secret \S+ is in use", Busy, "a service still has it"),
    (r"update out of sequence", Busy, "another change came between: it is read again"),
    (
        r"already in use by service",
        Conflict,
        "choose another `publish`, or remove the service that holds it: docker service ls",
    ),
    (r"name conflicts with an existing object", Conflict, "something else has the name"),
    (
        r"does not have a leader|too few managers",
        PlatformUnhealthy,
        "most managers are gone: see docker node ls on another one",
    ),
    (
        r"code = (unavailable|deadlineexceeded|canceled|aborted)|raft: ",
        Transient,
        "its managers are busy: it is tried again; see docker node ls",
    ),
    (r"network \S+ not found", NotFound, "docker network create --driver overlay <name>"),
    (
        r"cannot be used with services|only networks scoped to the swarm",
        ConfigurationError,
        "`network` must be an overlay network: docker network create --driver overlay <name>",
    ),
    (
        r"invalidargument|invalid mount|must be 63 characters|invalid (name|service)",
        ConfigurationError,
        "see [cloud.<instance>.swarm] and [deploy.<instance>]",
    ),
)
"""Of the API's answers."""

TASK: Rows = (
    (
        r"no such image|manifest unknown|not found: manifest|pull access denied",
        NotFound,
        "see that the nodes can pull the image: [deploy.<instance>.registry]",
    ),
    (r"no basic auth|unauthorized|denied", PermissionDenied, "check the registry's credentials"),
    (
        r"host-mode port already in use",
        Conflict,
        "another service holds the port on every node that is allowed",
    ),
    (
        r"insufficient resources",
        QuotaExceeded,
        "add a node, or free processors and memory: docker node ls",
    ),
    (
        r"no suitable node|scheduling constraints",
        ConfigurationError,
        "no node fits `constraints`: docker node ls, docker node inspect <node>",
    ),
    (
        r"executable file not found|exec format error|oci runtime create|bind source path",
        ConfigurationError,
        "check the image's command and platform, and that folders are on the node",
    ),
    (r"no space left on device", PlatformUnhealthy, "free space on the node: docker system df"),
)
"""Of a task's `Err`."""


def hint_of(said: str) -> str:
    """What to do about a task's error; empty if that is not known."""
    for pattern, _cls, hint in TASK:
        if re.search(pattern, said, re.IGNORECASE):
            return hint
    return ""
