"""The policy of an instance: read from helix.toml, and what can be checked without an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from model.errors import ConfigurationError
from model.instance import Instance
from model.policy import Policy, Severity
from project.deploy import PolicyTable

KMS = ("awskms://", "azurekms://", "gcpkms://", "hashivault://")
"""What cosign calls keys that a key management service keeps."""
PEM = "-----BEGIN PUBLIC KEY-----"


@dataclass(frozen=True)
class Violation:
    """What a policy forbids about an instance's settings."""

    setting: str
    """Of the policy's table."""
    message: str
    hint: str


def resolved(table: PolicyTable | None, folder: Path) -> Policy:
    """The policy that a table means. Public keys travel with it, as any worker must have them.

    Args:
        folder: what files of keys are relative to.

    Raises:
        ConfigurationError: a file is no public key.
    """
    if table is None:
        return Policy()
    return Policy(
        registries=tuple(table.registries or ()),
        approval=bool(table.approval),
        signed_by=tuple(_key(each, folder) for each in table.signed_by or ()),
        sbom=bool(table.sbom),
        max_severity=Severity(table.max_severity) if table.max_severity else None,
        ignore=tuple(table.ignore or ()),
    )


def _key(named: str, folder: Path) -> str:
    if named.startswith(KMS):
        return named
    path = folder / Path(named).expanduser()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigurationError(
            f"the policy's signed_by names {named}, which cannot be read: {why}",
            hint="name the file that cosign generate-key-pair wrote: cosign.pub",
        ) from None
    if not text.lstrip().startswith(PEM):
        # A private key is not repeated, nor anything that may be one.
        raise ConfigurationError(
            f"the policy's signed_by names {named}, which is no public key",
            hint=f"expected a file that begins with {PEM}",
        )
    return text.strip() + "\n"


def violations(instance: Instance, repository: str | None) -> Iterator[Violation]:
    """What the policy forbids, as far as the instance's settings tell.

    Args:
        repository: where its images are stored, host and path; empty if nowhere; None if that is
            not known here.
    """
    policy, build = instance.policy, instance.build
    if policy.approval and (instance.approval is None or instance.approval.otherwise == "approve"):
        yield Violation(
            "approval",
            "the policy wants an approval, and "
            + ("none is asked for" if instance.approval is None else "nobody's answer means yes"),
            f"set [deploy.{instance.name}] approval = true",
        )
    if build.kind == "bundle":
        if policy.of_artifacts:
            yield Violation(
                "signed_by" if policy.signed_by else "sbom" if policy.sbom else "max_severity",
                "the policy looks at images, and this instance runs a query bundle",
                f"leave it out in [deploy.{instance.name}.policy]",
            )
        return
    origin = build.image if build.kind == "image" else ""
    if policy.registries:
        yield from _registries(instance, origin, repository)
    if policy.needs_cosign and repository == "" and not origin:
        yield Violation(
            "signed_by" if policy.signed_by else "sbom",
            "the policy looks for signatures, and the image goes to no registry that could hold "
            "them",
            f"set [deploy.{instance.name}.registry]",
        )


def _registries(instance: Instance, origin: str, repository: str | None) -> Iterator[Violation]:
    allowed = instance.policy.registries
    for place in (origin, repository):
        if place and not any(matches(_full(place), pattern) for pattern in allowed):
            yield Violation(
                "registries",
                f"the policy does not allow images in {place}",
                f"allowed: {', '.join(allowed)}",
            )
    if repository == "" and not origin:
        yield Violation(
            "registries",
            "the policy allows images of certain registries only, and this one goes to none",
            f"set [deploy.{instance.name}.registry] to one of: {', '.join(allowed)}",
        )


def matches(repository: str, pattern: str) -> bool:
    """Whether a repository is in a registry, or below a path of one.

    matches("ghcr.io/acme/shop", "ghcr.io/acme")       True
    matches("ghcr.io/acme-evil/shop", "ghcr.io/acme")  False
    """
    host, _, path = repository.partition("/")
    wanted_host, _, wanted_path = pattern.rstrip("/").partition("/")
    parts, wanted = path.split("/"), wanted_path.split("/") if wanted_path else []
    return fnmatchcase(host, wanted_host) and parts[: len(wanted)] == wanted


def _full(reference: str) -> str:
    """A reference with its registry's host, and Docker Hub's own `library/`."""
    host, slash, _ = reference.partition("/")
    if not slash:
        return f"docker.io/library/{reference}"
    return reference if {".", ":"} & set(host) or host == "localhost" else f"docker.io/{reference}"
