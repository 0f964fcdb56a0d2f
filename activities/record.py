"""The ledger is written: a deployment begins, ends, or its instance is gone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from temporalio import activity

from activities.boundary import step_activity
from model.deployment import DestroyRequest
from model.steps import DecisionInput, EndInput, StartInput

if TYPE_CHECKING:
    from activities.services import Services


class RecordActivities:
    """Every write is keyed by the deployment, so writing it twice is writing it once."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("record_start")
    def record_start(self, given: StartInput) -> int:
        """Open the deployment. Returns its number, counted per instance from 1."""
        scheduled = activity.info().scheduled_time
        return self._services.ledger.open(given.deployment, given.request, scheduled)

    @step_activity("record_decision")
    def record_decision(self, given: DecisionInput) -> None:
        """Note an answer in the audit trail, once."""
        self._services.ledger.decided(
            given.deployment, given.request.instance.key, given.decision, given.about
        )

    @step_activity("record_end")
    def record_end(self, given: EndInput) -> None:
        """Close the deployment with its last progress."""
        self._services.ledger.close(
            given.deployment, given.progress, datetime.now(UTC), given.request
        )

    @step_activity("record_destroyed")
    def record_destroyed(self, given: DestroyRequest) -> None:
        """Note that the instance is gone, and whether its data is."""
        self._services.ledger.destroyed(given, datetime.now(UTC))
