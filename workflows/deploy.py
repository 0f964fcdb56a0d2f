"""Make a release the running one, or leave what ran before exactly as it was."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    is_cancelled_exception,
)
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.authenticate import AuthenticateActivities
    from activities.build import BuildActivities
    from activities.deploy import DeployActivities
    from activities.health_check import HealthCheckActivities
    from activities.policy import PolicyActivities, asks_about_image
    from activities.push import PushActivities
    from activities.record import RecordActivities
    from activities.validate import ValidateActivities
    from model.artifact import Artifact
    from model.deployment import Choice, Decision, DeployRequest, Outcome, Progress, Question
    from model.errors import AuthExpired
    from model.instance import HealthCheck, Step
    from model.notice import NotifyRequest, notice_of
    from model.platform import Release, Revision
    from model.steps import (
        AuthenticateInput,
        BakeInput,
        BuildInput,
        DecisionInput,
        EndInput,
        HandleInput,
        PolicyInput,
        PruneInput,
        PushInput,
        ReleaseInput,
        RestoreInput,
        StartInput,
        ValidateInput,
    )
    from workflows.notify import NotifyWorkflow
    from workflows.policies import MAX_BUILD_HOSTS, MAX_REAUTHENTICATIONS, POLICIES
    from workflows.progress import Journal, failure_of, worker_is_gone
    from workflows.questions import Desk
    from workflows.routing import home_queue
    from workflows.saga import Compensation, Saga, ends_workflow, uncancellable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

A = TypeVar("A")
R = TypeVar("R")


@workflow.defn(name="DeployWorkflow")
class DeployWorkflow:
    """One deployment. Its id is the instance's lock; its run id is the deployment's id."""

    @workflow.init
    def __init__(self, request: DeployRequest) -> None:
        self._request = request
        self._instance = request.instance
        self._id = workflow.info().run_id
        self._home = home_queue(request.instance)
        self._previous_health: HealthCheck | None = None
        self._saga = Saga()
        self._desk = Desk()
        self._journal = Journal(self._id, request)

    @workflow.run
    async def run(self, request: DeployRequest) -> Progress:
        """Returns the deployment's last progress (succeeded).

        Raises:
            ApplicationError: rolled back; its type is the failed step's error code. Or, of type
                RollbackFailed, a person is needed. The one detail is the last `Progress`.
            CancelledError: cancelled and rolled back.
        """
        try:
            await self._deploy()
        except BaseException as error:  # a cancellation is not an Exception
            if not ends_workflow(error):
                raise
            await uncancellable(self._roll_back(error))
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise self._verdict() from error
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._journal.progress

    async def _deploy(self) -> None:
        number = await self._call(
            RecordActivities.record_start,
            StartInput(deployment=self._id, request=self._request),
            "open the deployment in the ledger",
        )
        self._journal.numbered(number)

        queue, previous = await self._guided(Step.VALIDATE, self._validate)
        artifact = await self._build_and_push(queue)
        await self._approval(artifact)
        release = self._begin(artifact, previous)
        handle = await self._guided(Step.DEPLOY, partial(self._start, release, previous))
        await self._guided(Step.HEALTH_CHECK, partial(self._check_health, handle))

        # The release is healthy: from here a cancellation comes too late, unless it is baked.
        await uncancellable(self._promote(handle))
        await self._bake(handle)
        await uncancellable(self._conclude())

    # The steps, in their order -------------------------------------------------------------------

    async def _validate(self) -> tuple[str, Revision | None]:
        with self._journal.step(Step.VALIDATE) as step:
            found = await self._call(
                ValidateActivities.validate,
                ValidateInput(
                    deployment=self._id, number=self._journal.number, request=self._request
                ),
                f"validate {self._instance.key}",
                step=Step.VALIDATE,
            )
            step.detail = "; ".join(found.notes)
        self._journal.found(found.previous)
        self._previous_health = found.previous_health
        return found.queue, found.previous

    async def _build_and_push(self, queue: str) -> Artifact:
        """Both happen at one worker's engine. If that worker is gone, another starts afresh."""
        for _ in range(MAX_BUILD_HOSTS):
            try:
                artifact = await self._guided(Step.BUILD, partial(self._build, queue))
                await self._guided(Step.AUTHENTICATE, self._authenticate)
                artifact = await self._guided(Step.PUSH, partial(self._push, artifact, queue))
                await self._check_policy(artifact, queue)
                return artifact
            except ActivityError as error:
                if not worker_is_gone(error):
                    raise
            queue, _previous = await self._validate()
        raise ApplicationError("every worker that took the build went away", type="NoWorker")

    async def _build(self, queue: str) -> Artifact:
        given = self._request.artifact
        if given is not None:
            self._journal.skip(Step.BUILD, f"{given.short} is there already")
            self._journal.built(given)
            return given
        with self._journal.step(Step.BUILD) as step:
            artifact = await self._call(
                BuildActivities.build,
                BuildInput(deployment=self._id, request=self._request),
                f"build {self._instance.key}",
                step=Step.BUILD,
                queue=queue,
            )
            step.detail = f"unchanged: {artifact.short}" if artifact.reused else artifact.short
        self._journal.built(artifact)
        return artifact

    async def _authenticate(self) -> None:
        with self._journal.step(Step.AUTHENTICATE) as step:
            found = await self._call(
                AuthenticateActivities.authenticate,
                AuthenticateInput(request=self._request),
                f"authenticate for {self._instance.key}",
                step=Step.AUTHENTICATE,
            )
            step.detail = ", ".join(f"{one.who} at {one.where}" for one in found.identities)
        self._journal.identified(found.identities)

    async def _push(self, artifact: Artifact, queue: str) -> Artifact:
        if self._instance.registry is None:
            bundle = artifact.bundle is not None
            why = "a bundle goes along" if bundle else "no registry: the engine has the image"
            self._journal.skip(Step.PUSH, why)
            return artifact
        there = artifact.reused and artifact.image is not None and artifact.image.digest
        if self._request.pushed or there:
            self._journal.skip(Step.PUSH, "the registry has it already")
            self._journal.pushed(artifact)
            return artifact
        with self._journal.step(Step.PUSH) as step:
            artifact = await self._authenticated(
                lambda: self._call(
                    PushActivities.push,
                    PushInput(deployment=self._id, request=self._request, artifact=artifact),
                    f"push {artifact.short}",
                    step=Step.PUSH,
                    queue=queue,
                )
            )
            step.detail = artifact.short
        self._journal.pushed(artifact)
        return artifact

    async def _check_policy(self, artifact: Artifact, queue: str) -> None:
        """Whether the image may run at all, before a person is asked whether it should."""
        if not asks_about_image(self._request.trigger, self._instance.policy):
            return
        self._journal.phase("checking-policy")
        found = await self._call(
            PolicyActivities.check_policy,
            PolicyInput(deployment=self._id, request=self._request, artifact=artifact),
            f"hold {artifact.short} to the policy",
            queue=queue,
        )
        if workflow.cancellation_reason() is not None:  # it came while the check ran
            raise asyncio.CancelledError
        self._journal.checked(found.notes)

    async def _approval(self, artifact: Artifact) -> None:
        """The artifact is there and nothing is touched yet: now a person may have to agree."""
        wanted = self._instance.approval
        if wanted is None:
            return
        answer = await self._ask(
            "approval",
            f"release {self._journal.number} of {self._instance.key}: {artifact.short}",
            (Choice.APPROVE, Choice.REJECT),
            otherwise=Choice(wanted.otherwise),
            window=wanted.window,
            may_answer=wanted.by,
        )
        if answer.choice is Choice.REJECT:
            why = f": {answer.why}" if answer.why else ""
            raise ApplicationError(f"rejected by {answer.by}{why}", type="Rejected")

    def _begin(self, artifact: Artifact, previous: Revision | None) -> Release:
        """From here on something must be undone if the deployment does not succeed."""
        self._saga.begin(
            Compensation(
                "previous release restored" if previous else "release removed",
                lambda: self._restore(previous),
                by_hand=f"run: helix rollback --instance {self._instance.name}",
            )
        )
        return Release(
            number=self._journal.number,
            deployment=self._id,
            instance=self._instance,
            artifact=artifact,
        )

    async def _start(self, release: Release, previous: Revision | None) -> str:
        with self._journal.step(Step.DEPLOY) as step:
            handle = await self._authenticated(
                lambda: self._call(
                    DeployActivities.start_release,
                    ReleaseInput(release=release, previous=previous),
                    f"start release {release.number}: {release.artifact.short}",
                    step=Step.DEPLOY,
                )
            )
            await self._call(
                DeployActivities.await_release,
                self._at(handle),
                f"wait until release {release.number} runs",
                step=Step.DEPLOY,
            )
            step.detail = f"release {release.number} runs"
        return handle

    async def _check_health(self, handle: str) -> None:
        with self._journal.step(Step.HEALTH_CHECK) as step:
            step.detail = await self._call(
                HealthCheckActivities.check_health,
                self._at(handle),
                f"check the health of release {self._journal.number}",
                step=Step.HEALTH_CHECK,
            )

    async def _promote(self, handle: str) -> None:
        self._journal.phase("releasing")
        promoted = await self._call(
            DeployActivities.promote_release,
            self._at(handle),
            f"give release {self._journal.number} the traffic",
        )
        self._journal.promoted(promoted.revision, promoted.url)

    async def _bake(self, handle: str) -> None:
        """Watch the release under real traffic for a while; a cancel still rolls it back."""
        if not self._instance.bake:
            return
        if workflow.cancellation_reason() is not None:  # it came while the traffic moved
            raise asyncio.CancelledError
        self._journal.phase("baking")
        until = workflow.now() + timedelta(seconds=self._instance.bake)
        await self._call(
            HealthCheckActivities.bake,
            BakeInput(instance=self._instance, deployment=self._id, handle=handle, until=until),
            f"watch release {self._journal.number} until {until:%H:%M:%S}",
            step=Step.HEALTH_CHECK,
        )

    async def _conclude(self) -> None:
        self._journal.ended(Outcome.SUCCEEDED)
        await self._record_end()
        await self._notify()
        try:
            await self._call(
                DeployActivities.prune,
                PruneInput(instance=self._instance, deployment=self._id),
                "remove what no rollback needs any more",
            )
        except ActivityError as error:
            workflow.logger.warning("could not prune: %s", error.cause)

    # People --------------------------------------------------------------------------------------

    async def _guided(self, step: Step, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run a step. When it fails for good, the instance may want a person asked what to do."""
        while True:
            try:
                return await work()
            except ActivityError as error:
                guidance = self._instance.guidance
                if (
                    guidance is None
                    or worker_is_gone(error)
                    or workflow.cancellation_reason() is not None
                ):
                    raise
                failed = error
            skippable = (Choice.SKIP,) if step is Step.HEALTH_CHECK else ()
            answer = await self._ask(
                step.value,
                str(failure_of(failed, step.value)),
                (Choice.RETRY, *skippable, Choice.ROLL_BACK),
                otherwise=Choice.ROLL_BACK,
                window=guidance.window,
            )
            if answer.choice is Choice.SKIP:
                self._journal.skip(step, f"skipped by {answer.by}: {answer.why}")
                return cast("R", None)  # only the health check can be skipped, and it returns None
            if answer.choice is Choice.ROLL_BACK:
                raise failed

    async def _ask(
        self,
        about: str,
        text: str,
        choices: tuple[Choice, ...],
        *,
        otherwise: Choice,
        window: float,
        may_answer: tuple[str, ...] = (),
    ) -> Decision:
        question = Question(
            about=about,
            text=text,
            choices=choices,
            otherwise=otherwise,
            deadline=workflow.now() + timedelta(seconds=window),
            may_answer=may_answer,
        )
        self._journal.asking(question)
        decision = await self._desk.ask(question)
        decision = decision.model_copy(update={"at": workflow.now()})
        self._journal.answered(question, decision)
        if workflow.patched("decisions-are-recorded"):
            await self._record_decision(question, decision)
        return decision

    @workflow.update(description="Answer what the deployment asks")
    def decide(self, decision: Decision) -> None:
        """Approve, reject, retry, skip or roll back. Refused if nothing like it was asked."""
        self._desk.answer(decision)

    @decide.validator
    def _check_decision(self, decision: Decision) -> None:
        self._desk.check(decision)

    @workflow.signal(description="As `decide`, for the Temporal UI; a wrong answer is ignored")
    def answer(self, decision: Decision) -> None:
        """The same by signal."""
        try:
            self._desk.check(decision)
        except ValueError as error:
            workflow.logger.warning("ignored an answer of %s: %s", decision.by, error)
        else:
            self._desk.answer(decision)

    # The way back --------------------------------------------------------------------------------

    async def _roll_back(self, error: BaseException) -> None:
        cancelled = workflow.cancellation_reason() is not None and is_cancelled_exception(error)
        self._journal.rolling_back(failure_of(error, self._journal.step_name), cancelled)
        await self._saga.compensate()
        if self._saga.left:
            outcome = Outcome.NEEDS_ATTENTION
        else:
            outcome = Outcome.CANCELLED if cancelled else Outcome.ROLLED_BACK
        self._journal.ended(outcome, undone=self._saga.undone, left=self._saga.left)
        await self._record_end()
        await self._notify()

    async def _restore(self, previous: Revision | None) -> None:
        """Put the previous release back and see that it answers; with none, leave nothing."""
        handle = await self._call(
            DeployActivities.restore_release,
            RestoreInput(instance=self._instance, deployment=self._id, previous=previous),
            f"restore {previous.id}" if previous else "remove what was started",
            policy="restore_release",
        )
        if not handle:
            return
        await self._call(
            DeployActivities.await_release,
            self._at(handle),
            "wait until the previous release runs",
            policy="restore_release",
        )
        sick = await self._sickness_of_previous(handle)
        await self._call(
            DeployActivities.promote_release,
            self._at(handle),
            "give the previous release the traffic",
            policy="restore_release",
        )
        if sick is not None:
            raise sick

    async def _sickness_of_previous(self, handle: str) -> ActivityError | None:
        """Why the previous release is not healthy by its own check; None if it is, or if nobody
        knows how it was checked. It gets its traffic back either way: nothing better is left."""
        if self._previous_health is None:
            return None
        as_it_was = self._instance.model_copy(update={"health_check": self._previous_health})
        try:
            await self._call(
                HealthCheckActivities.check_health,
                self._at(handle).model_copy(update={"instance": as_it_was}),
                "check the health of the previous release",
            )
        except ActivityError as error:
            return error
        return None

    async def _record_decision(self, question: Question, decision: Decision) -> None:
        """At once: the deployment may go on for days. What fails here is made up for at its end."""
        try:
            await self._call(
                RecordActivities.record_decision,
                DecisionInput(
                    deployment=self._id,
                    request=self._request,
                    about=question.about,
                    decision=decision,
                ),
                f"note the answer of {decision.by} in the ledger",
            )
        except ActivityError as error:
            workflow.logger.error("the ledger was not written: %s", error.cause)

    async def _record_end(self) -> None:
        try:
            await self._call(
                RecordActivities.record_end,
                EndInput(
                    deployment=self._id, request=self._request, progress=self._journal.progress
                ),
                "close the deployment in the ledger",
            )
        except ActivityError as error:
            workflow.logger.error("the ledger was not written: %s", error.cause)

    async def _notify(self) -> None:
        """Have it told how the deployment ended. That goes on without us, and cannot fail us."""
        started = workflow.info().workflow_start_time
        notice = notice_of(self._request, self._journal.progress, started, workflow.now())
        telling = NotifyRequest(instance=self._instance, notice=notice)
        if not telling.channels or not workflow.patched("notifications"):
            return
        try:
            await workflow.start_child_workflow(
                NotifyWorkflow.run,
                telling,
                id=telling.workflow_id,
                parent_close_policy=ParentClosePolicy.ABANDON,
                static_summary=f"tell that **{self._instance.key}** has {notice.outcome}",
            )
        except FailureError as error:
            workflow.logger.warning("nobody is told: %s", error)

    def _verdict(self) -> BaseException:
        progress = self._journal.progress
        if progress.outcome is Outcome.CANCELLED:
            return asyncio.CancelledError()
        failure = progress.failure
        message = f"{failure}\n{failure.evidence}".rstrip() if failure else "failed"
        if progress.outcome is Outcome.NEEDS_ATTENTION:
            left = "\n".join(progress.left)
            return ApplicationError(
                f"{message}\nnot undone: {left}", progress, type="RollbackFailed"
            )
        undone = ", ".join(progress.undone) or "nothing had been changed"
        return ApplicationError(
            f"{message}\nrolled back: {undone}",
            progress,
            type=failure.code if failure else "DeployFailed",
        )

    # How an activity is called -------------------------------------------------------------------

    async def _call(
        self,
        activity: Callable[[Any, A], R],
        argument: A,
        summary: str,
        *,
        step: Step | None = None,
        queue: str | None = None,
        policy: str = "",
    ) -> R:
        """Run one activity under its policy; a cancel that it swallowed is raised here."""
        name: str = policy or activity.__name__
        rule = POLICIES[name].overridden(self._instance.steps.get(step) if step else None)
        if name == "check_health":
            rule = rule.allowing(self._instance.health_check.deadline)
        if name == "bake":
            rule = rule.allowing(self._instance.bake)
        if policy == "restore_release":
            rule = rule.within(self._instance.rollback_deadline)
        result: R = await workflow.execute_activity_method(
            activity, argument, **rule.config(summary, queue=queue or self._home)
        )
        # A step that finishes although it was cancelled swallows the cancel (sdk-python#620).
        if step is not None and workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError
        return result

    async def _authenticated(self, call: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run a step; if it finds the credentials expired, authenticate again and repeat it."""
        step = self._journal.step_name
        for _ in range(MAX_REAUTHENTICATIONS):
            try:
                return await call()
            except ActivityError as error:
                cause = error.cause
                if not (isinstance(cause, ApplicationError) and cause.type == AuthExpired.code):
                    raise
            await self._authenticate()
            self._journal.phase(step)
        return await call()

    def _at(self, handle: str) -> HandleInput:
        return HandleInput(instance=self._instance, deployment=self._id, handle=handle)

    @property
    def step(self) -> str:
        """The step, or what is done between two: for the log."""
        return self._journal.step_name

    @workflow.query(description="Where the deployment stands: steps, artifact, failure, outcome")
    def progress(self) -> Progress:
        """Everything that is known of the deployment, while it runs and after it ended."""
        return self._journal.progress
