"""Tell how a deployment ended: Slack, Discord, other programs."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.notify import NotifyActivities
    from model.instance import Channel
    from model.notice import NotifyInput, NotifyRequest
    from workflows.policies import POLICIES
    from workflows.routing import home_queue


@workflow.defn(name="NotifyWorkflow")
class NotifyWorkflow:
    """A workflow of its own: neither a deployment's end nor its lock waits for somebody else's
    server, however long that is away."""

    step = "notify"
    """For the log."""

    @workflow.run
    async def run(self, request: NotifyRequest) -> list[str]:
        """The channels that took the message.

        Raises:
            ApplicationError: some did not, which takes nothing from the others.
        """
        channels = request.channels
        troubles = await asyncio.gather(*(self._tell(request, one) for one in channels))
        if failed := [trouble for trouble in troubles if trouble]:
            raise ApplicationError("; ".join(failed), type="NotTold")
        return [channel.name for channel in channels]

    async def _tell(self, request: NotifyRequest, channel: Channel) -> str:
        """Tell one channel. Returns what was wrong, in one line; empty if it took the message."""
        try:
            await workflow.execute_activity_method(
                NotifyActivities.notify,
                NotifyInput(instance=request.instance, channel=channel, notice=request.notice),
                **POLICIES["notify"].config(
                    f"tell «{channel.name}»", queue=home_queue(request.instance)
                ),
            )
        except ActivityError as error:
            return f"{channel.name}: {error.cause}"
        return ""
