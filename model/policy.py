"""What a release must fulfil before it may run: `[deploy.<instance>.policy]`, resolved."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from model.base import Record


class Severity(StrEnum):
    """How bad a vulnerability is, mildest first; named as CVSS names its scores."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @classmethod
    def of(cls, score: float) -> Severity:
        """The severity of a CVSS score; NONE for 0, which is also what an unscored one has."""
        for severity, least in ((cls.CRITICAL, 9.0), (cls.HIGH, 7.0), (cls.MEDIUM, 4.0)):
            if score >= least:
                return severity
        return cls.LOW if score > 0 else cls.NONE

    def exceeds(self, other: Severity) -> bool:
        """Whether it is worse."""
        order = list(Severity)
        return order.index(self) > order.index(other)


class Policy(Record):
    """Everything is off unless it is set."""

    registries: tuple[str, ...] = ()
    """Where an image may come from and be stored: hosts, or hosts and the beginning of a path. `*`
    stands for any part of a host. Any registry if empty."""
    approval: bool = False
    """The instance must wait for a person's approval, and nobody's answer must mean no."""
    signed_by: tuple[str, ...] = ()
    """The image must be signed with one of these: public keys in PEM, or cosign's names of keys in
    a KMS (awskms://…)."""
    sbom: bool = False
    """An SBOM must be attached to the image, signed as well if `signed_by` is set."""
    max_severity: Severity | None = None
    """The worst vulnerability that a scan of the image may find."""
    ignore: tuple[str, ...] = Field(default=())
    """Ids of vulnerabilities that somebody has looked at: CVE-…, GHSA-…."""

    @property
    def needs_cosign(self) -> bool:
        """Whether signatures or attestations are looked at."""
        return bool(self.signed_by) or self.sbom

    @property
    def of_artifacts(self) -> bool:
        """Whether anything is asked of the image itself."""
        return self.needs_cosign or self.max_severity is not None
