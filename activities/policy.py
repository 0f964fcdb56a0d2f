"""What an instance's policy asks: of its settings at `validate`, of the image before it may run."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from activities import beat
from activities.boundary import step_activity
from model.deployment import DeployRequest, Trigger
from model.errors import ConfigurationError, PermissionDenied, PolicyViolation
from model.steps import Checked, PolicyInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from activities.services import Services
    from model.artifact import Image
    from model.instance import Instance
    from model.policy import Policy
    from registries.base import Registry
    from registries.cosign import Access


class PolicyActivities:
    """Reads only."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("check_policy")
    def check_policy(self, given: PolicyInput) -> Checked:
        """Check the artifact, by digest, after it was pushed and before anything is touched.

        Returns:
            What was found, for the record.

        Raises:
            PolicyViolation: every finding is in the evidence.
            ConfigurationError: a tool or a database is missing.
            PermissionDenied, Transient: the registry does not let us look.
        """
        image = given.artifact.image
        if image is None:
            raise ConfigurationError("the policy looks at images, and this is none")
        return Checked(notes=tuple(check_image(given.request, image, self._services)))


def check_settings(instance: Instance, services: Services) -> None:
    """Refuse what the policy forbids without a look at any image, and what could not be looked at.

    Raises:
        PolicyViolation: everything that is forbidden, at once.
        ConfigurationError: a tool that the policy needs is not on this worker.
    """
    from project.policy import violations

    if not instance.policy.registries and not instance.policy.approval:
        repository: str | None = "" if instance.registry is None else None
    else:
        with services.registry(instance) as registry:
            repository = registry.repository if registry is not None else ""
    found = list(violations(instance, repository))
    if found:
        raise PolicyViolation(
            "; ".join(one.message for one in found), hint="; ".join(one.hint for one in found)
        )
    require_tools(instance.policy)


def require_tools(policy: Policy) -> None:
    """See that the tools are there.

    Raises:
        ConfigurationError: which one is not, and how to install it.
    """
    if policy.needs_cosign:
        from registries import cosign

        cosign.require()
    if policy.max_severity is not None:
        from builders import scanner

        scanner.require()


def asks_about_image(trigger: Trigger, policy: Policy) -> bool:
    """Whether the image is looked at. A release that is gone back to was looked at when it was
    first deployed: what became known since must not keep anyone from the way back."""
    return policy.of_artifacts and trigger is not Trigger.ROLLBACK


def check_image(request: DeployRequest, image: Image, services: Services) -> Iterator[str]:
    """Hold an image to the policy. Yields what was found to be right.

    Raises:
        PolicyViolation, ConfigurationError, PermissionDenied, Transient: as `check_policy`.
    """
    instance, policy = request.instance, request.instance.policy
    if policy.needs_cosign:
        from registries.cosign import Cosign

        with ExitStack() as opened:
            places = [
                Cosign(one.reference, _access(one, opened.enter_context(services.registry(whose))))
                for one, whose in _homes(request, image)
            ]
            if policy.signed_by:
                beat.report("looking for a signature")
                yield _first([partial(one.require_signature, policy.signed_by) for one in places])
            if policy.sbom:
                beat.report("looking for an SBOM")
                yield _first([partial(one.require_sbom, policy.signed_by) for one in places])
    if policy.max_severity is not None:
        yield _scan(policy, image, instance, services)


def _homes(request: DeployRequest, image: Image) -> list[tuple[Image, Instance]]:
    """Where the image's signatures may lie, and whose registry may open it: in our registry; or,
    under the same digest, where it comes from, as they are not copied with it."""
    from registries.reference import Reference

    instance, given = request.instance, request.artifact
    places = {image.repository: instance}
    if request.origin is not None and given is not None and given.image is not None:
        places.setdefault(given.image.repository, request.origin.instance)
    if instance.build.kind == "image":
        places.setdefault(Reference.parse(instance.build.image).repository, instance)
    return [(image.model_copy(update={"repository": one}), places[one]) for one in places]


def _first(attempts: Sequence[Callable[[], str]]) -> str:
    """What the first attempt that is not refused says."""
    *others, last = attempts
    for attempt in others:
        with suppress(PolicyViolation, PermissionDenied):
            return attempt()
    return last()


def _access(image: Image, registry: Registry | None) -> Access:
    from registries.cosign import Access
    from registries.credentials import from_docker

    host = image.repository.split("/", 1)[0]
    if registry is None or registry.host != host:
        return Access(host, from_docker(host))
    ca = getattr(getattr(registry, "settings", None), "ca", None)
    return Access(host, registry.credentials(), Path(ca) if ca else None)


def _scan(policy: Policy, image: Image, instance: Instance, services: Services) -> str:
    from builders import scanner

    assert policy.max_severity is not None
    report = scanner.scan(_in_engine(image, instance, services), beat.report)
    counted = [one for one in report.findings if not set(one.ids) & set(policy.ignore)]
    worst = sorted(counted, key=lambda one: float(one.score or 0), reverse=True)
    limit = policy.max_severity
    refused = [
        one for one in worst if one.severity.exceeds(limit) or (limit == "none" and not one.score)
    ]
    if refused:
        raise PolicyViolation(
            f"{image.short} has {len(refused)} vulnerabilities that are worse than «{limit}»",
            hint="use newer packages; or, once somebody has looked at one: "
            f'[deploy.{instance.name}.policy] ignore = ["{refused[0].ids[0]}"]',
            evidence="\n".join(str(one) for one in refused[: PolicyViolation.EVIDENCE_LINES]),
        )
    if not report.recognised:
        return "scanned: no package that the scanner knows"
    if not worst:
        return "scanned: no known vulnerability"
    return f"scanned: {len(worst)} known vulnerabilities, the worst: {worst[0]}"


def _in_engine(image: Image, instance: Instance, services: Services) -> str:
    """A name of the image in this worker's engine, which fetches it if it does not have it."""
    from builders import images

    if image.id and images.find(image.id) is not None:
        return image.id
    logins = {}
    with services.registry(instance) as registry:
        if registry is not None and (found := registry.credentials()) is not None:
            logins[registry.host] = (found.username, found.password)
    images.pull(image.reference, logins, beat.report, lambda: beat.report("fetching the image"))
    return image.reference
