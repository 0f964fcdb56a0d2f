"""`helix worker`: the long-lived worker of a Temporal that is configured."""

from __future__ import annotations

from cli.exits import Usage


def worker() -> None:
    """Carry out deployments until told to stop. For servers, containers and services.

    It works for the Temporal that is configured (TEMPORAL_ADDRESS, TEMPORAL_PROFILE, Temporal's
    configuration file), and is configured itself by environment variables: HELIX_TASK_QUEUE,
    HELIX_LEDGER_URL, HELIX_STORE_URL, HELIX_HEALTH_ADDRESS and the others of docs/operations.md.
    SIGTERM lets running steps end (HELIX_GRACEFUL_SHUTDOWN_SECONDS), and loses nothing.

    \b
    Examples:
      TEMPORAL_ADDRESS=temporal.example.com:7233 helix worker
      HELIX_HEALTH_ADDRESS=0.0.0.0:8080 HELIX_LOG_FORMAT=json helix worker
    """
    import asyncio

    from cli import temporal

    if temporal.configured() is None:
        raise Usage(
            "no Temporal server is configured for this worker",
            hint="set TEMPORAL_ADDRESS=HOST:7233; the embedded stack has one already: helix up",
        )
    from worker.main import main

    asyncio.run(main())
