"""What a policy forbids without a look at any image, and how it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.artifact import BuildSettings
from model.errors import ConfigurationError
from model.instance import Approval, Instance, Target
from model.policy import Policy, Severity
from project.checks import check
from project.deploy import PolicyTable
from project.load import load_project
from project.policy import PEM, matches, resolved, violations
from project.resolve import resolve

KEY = f"{PEM}\nMFkw\n-----END PUBLIC KEY-----\n"


def instance(policy: Policy, **changes: object) -> Instance:
    plain = Instance(project="shop", name="prod", target=Target(kind="docker"), policy=policy)
    return plain.model_copy(update=changes)


def forbidden(
    policy: Policy, repository: str | None = "ghcr.io/acme/shop", **changes: object
) -> list[str]:
    return [one.message for one in violations(instance(policy, **changes), repository)]


def test_nothing_is_forbidden_unless_it_is_set() -> None:
    assert forbidden(Policy(), "") == []
    assert not Policy().of_artifacts and not Policy(approval=True).of_artifacts


@pytest.mark.parametrize(
    ("repository", "pattern", "fits"),
    [
        ("ghcr.io/acme/shop", "ghcr.io", True),
        ("ghcr.io/acme/shop", "ghcr.io/acme", True),
        ("ghcr.io/acme/shop", "ghcr.io/acme/", True),
        ("ghcr.io/acme-evil/shop", "ghcr.io/acme", False),
        ("ghcr.io.evil.test/acme/shop", "ghcr.io", False),
        ("127.0.0.1:5000/shop", "127.0.0.1:5000", True),
        ("127.0.0.1:5001/shop", "127.0.0.1:5000", False),
        ("1.dkr.ecr.eu-west-1.amazonaws.com/shop", "*.dkr.ecr.eu-west-1.amazonaws.com", True),
        ("evil.test/x.dkr.ecr.eu-west-1.amazonaws.com", "*.amazonaws.com", False),
    ],
)
def test_a_registry_is_allowed_by_host_and_path(repository: str, pattern: str, fits: bool) -> None:
    assert matches(repository, pattern) is fits


def test_an_image_may_come_from_and_go_to_allowed_registries_only() -> None:
    policy = Policy(registries=("ghcr.io/acme", "docker.io/library"))
    prebuilt = BuildSettings(kind="image", image="redis:7")
    assert forbidden(policy) == []
    assert forbidden(policy, build=prebuilt) == []
    assert forbidden(policy, "", build=prebuilt) == [], "a prebuilt image need not be stored"
    assert forbidden(policy, "quay.io/x", build=prebuilt) == [
        "the policy does not allow images in quay.io/x"
    ]
    evil = BuildSettings(kind="image", image="quay.io/evil/x:1")
    assert "quay.io/evil/x:1" in forbidden(policy, build=evil)[0]
    assert "goes to none" in forbidden(policy, "")[0]
    assert forbidden(policy, None) == [], "not known here: the worker knows"


def test_an_approval_must_be_asked_for_and_must_not_give_itself() -> None:
    policy = Policy(approval=True)
    assert "none is asked for" in forbidden(policy)[0]
    assert "nobody's answer" in forbidden(policy, approval=Approval(otherwise="approve"))[0]
    assert forbidden(policy, approval=Approval()) == []


def test_an_image_without_a_registry_has_no_signature() -> None:
    assert "goes to no registry" in forbidden(Policy(signed_by=(KEY,)), "")[0]
    assert forbidden(Policy(max_severity=Severity.HIGH), "") == []
    bundle = BuildSettings(kind="bundle")
    assert "query bundle" in forbidden(Policy(sbom=True), "", build=bundle)[0]


@pytest.mark.parametrize(
    ("score", "severity"),
    [(0, "none"), (0.1, "low"), (3.9, "low"), (4, "medium"), (7, "high"), (9, "critical")],
)
def test_scores_have_the_names_that_cvss_gives_them(score: float, severity: str) -> None:
    assert Severity.of(score) == severity
    assert Severity.CRITICAL.exceeds(Severity.HIGH) and not Severity.LOW.exceeds(Severity.LOW)


def test_public_keys_travel_with_the_deployment(tmp_path: Path) -> None:
    (tmp_path / "cosign.pub").write_text(KEY)
    table = PolicyTable.model_validate({"signed_by": ["cosign.pub", "awskms:///alias/release"]})
    assert resolved(table, tmp_path).signed_by == (KEY, "awskms:///alias/release")


def test_a_file_that_is_no_public_key_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "cosign.key").write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ncanary")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("cosign.key", "binary", "missing"):
        table = PolicyTable.model_validate({"signed_by": name})
        with pytest.raises(ConfigurationError, match=name) as caught:
            resolved(table, tmp_path)
        assert "canary" not in str(caught.value)


def test_the_policy_of_all_is_the_default_of_each(tmp_path: Path) -> None:
    (tmp_path / "cosign.pub").write_text(KEY)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "helix.toml").write_text(
        """
        [project]
        name = "shop"
        [cloud.prod.docker]
        [cloud.dev.docker]
        [deploy.policy]
        signed_by = "cosign.pub"
        max_severity = "high"
        registries = ["ghcr.io/acme"]
        [deploy.dev.policy]
        max_severity = "critical"
        registries = []
        """
    )
    project = load_project(tmp_path / "helix.toml")
    prod, dev = resolve(project, "prod").policy, resolve(project, "dev").policy
    assert (prod.max_severity, prod.registries) == ("high", ("ghcr.io/acme",))
    assert (dev.max_severity, dev.registries) == ("critical", ())
    assert prod.signed_by == dev.signed_by == (KEY,)


@pytest.mark.parametrize(
    "policy", ['max_severity = "bad"', "signed_by = []", 'registries = ["https://x"]', "sbom = 1"]
)
def test_a_wrong_policy_is_a_problem_of_the_file(tmp_path: Path, policy: str) -> None:
    (tmp_path / "helix.toml").write_text(
        f'[project]\nname = "shop"\n[cloud.prod.docker]\n[deploy.prod.policy]\n{policy}\n'
    )
    found = load_project(tmp_path / "helix.toml").all_problems()
    [wrong] = [one for one in found if one.key.startswith("deploy.prod.policy")]
    assert wrong.severity == "error"


@pytest.mark.parametrize(
    ("policy", "key", "message"),
    [
        ('signed_by = "gone.pub"', "signed_by", "gone.pub"),
        ("approval = true", "approval", "none is asked for"),
        ('registries = ["ghcr.io"]', "registries", "goes to none"),
        ("sbom = true", "sbom", "goes to no registry"),
    ],
)
def test_helix_validate_says_what_is_forbidden(
    tmp_path: Path, policy: str, key: str, message: str
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "helix.toml").write_text(
        f'[project]\nname = "shop"\n[cloud.prod.docker]\n[deploy.policy]\n{policy}\n'
    )
    found = check(load_project(tmp_path / "helix.toml"))
    [wrong] = [one for one in found if one.code == "policy"]
    assert (wrong.severity, wrong.key) == ("error", f"deploy.policy.{key}")
    assert message in wrong.message
