"""The outside world of a workflow test: every activity, played by a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from model.artifact import Artifact, Image, Source
from model.deployment import DeployRequest, DestroyRequest, Failure, Trigger
from model.instance import HealthCheck, Instance, RegistryTarget, Target
from model.notice import NotifyInput
from model.platform import Identity, Revision
from model.policy import Policy
from model.schedule import Prepared, PrepareInput, SkippedInput
from model.steps import (
    AuthenticateInput,
    BakeInput,
    BuildInput,
    Checked,
    DecisionInput,
    DestroyInput,
    EndInput,
    HandleInput,
    Identities,
    PolicyInput,
    Promoted,
    PruneInput,
    PushInput,
    ReleaseInput,
    RestoreInput,
    StartInput,
    Validated,
    ValidateInput,
)

FORWARD = (
    "record_start",
    "validate",
    "build",
    "authenticate",
    "push",
    "start_release",
    "await_release",
    "check_health",
    "promote_release",
    "record_end",
    "prune",
)
"""What a deployment that goes well calls, in order."""

STEP_ACTIVITIES = FORWARD[1:8]
"""What can fail, or be cancelled, before the release is healthy."""

OLD = Revision(id="old", release=1)
IMAGE = Image(repository="registry.test/shop", id="sha256:" + "1" * 64)
PUSHED = IMAGE.model_copy(update={"digest": "sha256:" + "2" * 64})


def request(**changes: Any) -> DeployRequest:
    """A request for a small instance with a registry."""
    instance = Instance(
        project="shop",
        name="prod",
        target=Target(kind="docker"),
        registry=RegistryTarget(repository="registry.test/shop"),
        health_check=HealthCheck(deadline=5),
        rollback_deadline=changes.pop("rollback_deadline", 1800),
        approval=changes.pop("approval", None),
        guidance=changes.pop("guidance", None),
        bake=changes.pop("bake", 0),
        policy=changes.pop("policy", Policy()),
        steps=changes.pop("steps", {}),
        notifications=changes.pop("notifications", ()),
    )
    source = Source(digest="f" * 64, url="file:///nowhere")
    return DeployRequest(instance=instance, source=source, actor="ada@laptop", **changes)


def failure(code: str = "Transient", message: str = "it broke") -> ApplicationError:
    """What the real activities raise for an error of the taxonomy."""
    return ApplicationError(
        message, Failure(step="?", code=code, message=message, hint="mend it"), type=code
    )


@dataclass
class World:
    """Says how each activity behaves, and keeps what was called.

    `fails[name]` is raised by the first calls of that activity, one after the other.
    `slow[name]` is how long it takes; it hears a cancel meanwhile unless it is in `deaf`.
    """

    previous: Revision | None = OLD
    fails: dict[str, list[ApplicationError]] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    queues: list[str] = field(default_factory=list)
    """The queues of the workers that validate finds, one call after the other; then our own."""
    calls: list[str] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    watch: str = ""
    """`started` is set when this activity begins."""
    prepared: Prepared | None = None
    """What a schedule's run finds to deploy; a small instance's release if None."""
    ended: list[EndInput] = field(default_factory=list)
    told: list[NotifyInput] = field(default_factory=list)

    async def play(self, name: str, result: Any) -> Any:
        """One call of one activity."""
        self.calls.append(name)
        if name == self.watch:
            self.started.set()
        if name in self.slow:
            await self._take_time(name)
        if self.fails.get(name):
            raise self.fails[name].pop(0)
        return result

    async def _take_time(self, name: str) -> None:
        try:
            for _ in range(int(self.slow[name] / 0.05)):
                await asyncio.sleep(0.05)
                activity.heartbeat()
        except (asyncio.CancelledError, CancelledError):
            if name not in self.deaf:
                self.calls.append(f"{name} cancelled")
                raise

    def activities(self) -> list[Callable[..., Any]]:
        """Every activity under its real name."""
        play = self.play

        @activity.defn
        async def record_start(given: StartInput) -> int:
            return int(await play("record_start", 2))

        @activity.defn
        async def validate(given: ValidateInput) -> Validated:
            queue = self.queues.pop(0) if self.queues else activity.info().task_queue
            found = await play(
                "validate",
                Validated(queue=queue, previous=self.previous, previous_health=HealthCheck()),
            )
            return Validated.model_validate(found)

        @activity.defn
        async def build(given: BuildInput) -> Artifact:
            built = Artifact(image=IMAGE, tag="src-1", built_from="1")
            return Artifact.model_validate(await play("build", built))

        @activity.defn
        async def authenticate(given: AuthenticateInput) -> Identities:
            who = Identities(identities=(Identity(where="registry.test", who="ada"),))
            return Identities.model_validate(await play("authenticate", who))

        @activity.defn
        async def push(given: PushInput) -> Artifact:
            pushed = given.artifact.model_copy(update={"image": PUSHED})
            return Artifact.model_validate(await play("push", pushed))

        @activity.defn
        async def check_policy(given: PolicyInput) -> Checked:
            assert given.artifact.image == PUSHED
            return Checked.model_validate(await play("check_policy", Checked(notes=("signed",))))

        @activity.defn
        async def record_decision(given: DecisionInput) -> None:
            await play(f"record_decision {given.decision.choice}", None)

        @activity.defn
        async def start_release(given: ReleaseInput) -> str:
            return str(await play("start_release", "new"))

        @activity.defn
        async def await_release(given: HandleInput) -> None:
            await play(f"await_release{' old' * (given.handle == 'old')}", None)

        @activity.defn
        async def check_health(given: HandleInput) -> str:
            return str(await play(f"check_health{' old' * (given.handle == 'old')}", "healthy"))

        @activity.defn
        async def bake(given: BakeInput) -> None:
            await play("bake", None)

        @activity.defn
        async def promote_release(given: HandleInput) -> Promoted:
            name = f"promote_release{' old' * (given.handle == 'old')}"
            promoted = Promoted(revision=Revision(id=given.handle), url="http://shop.test")
            return Promoted.model_validate(await play(name, promoted))

        @activity.defn
        async def record_end(given: EndInput) -> None:
            await play("record_end", None)
            self.ended.append(given)

        @activity.defn
        async def prune(given: PruneInput) -> None:
            await play("prune", None)

        @activity.defn
        async def restore_release(given: RestoreInput) -> str:
            return str(await play("restore_release", given.previous.id if given.previous else ""))

        @activity.defn
        async def destroy(given: DestroyInput) -> None:
            await play("destroy", None)

        @activity.defn
        async def record_destroyed(given: DestroyRequest) -> None:
            await play("record_destroyed", None)

        @activity.defn
        async def notify(given: NotifyInput) -> str:
            self.told.append(given)
            return str(await play(f"notify {given.channel.name}", "200 OK"))

        @activity.defn
        async def prepare_redeploy(given: PrepareInput) -> Prepared:
            asked = request(trigger=Trigger.SCHEDULE, reason=given.request.schedule.note)
            named = {"project": given.request.project, "name": given.request.name}
            instance = asked.instance.model_copy(update=named)
            found = Prepared(request=asked.model_copy(update={"instance": instance}))
            return Prepared.model_validate(await play("prepare_redeploy", self.prepared or found))

        @activity.defn
        async def record_skipped(given: SkippedInput) -> str:
            return str(await play("record_skipped", given.why))

        return [
            record_start,
            validate,
            build,
            authenticate,
            push,
            check_policy,
            record_decision,
            start_release,
            await_release,
            check_health,
            bake,
            promote_release,
            record_end,
            prune,
            restore_release,
            destroy,
            record_destroyed,
            prepare_redeploy,
            record_skipped,
            notify,
        ]
