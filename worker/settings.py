"""How a worker, and the stack that the CLI starts, can be configured: environment variables.

Every field is one variable with the prefix HELIX_: HELIX_STATE_DIR, HELIX_LEDGER_URL, … How to
reach Temporal is not among them: that is Temporal's own configuration (TEMPORAL_ADDRESS,
TEMPORAL_PROFILE, its configuration file), read by `temporalio.envconfig`.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.errors import ConfigurationError
from project import secrets
from worker import paths

PREFIX = "HELIX_"


def _private(path: Path) -> Path:
    try:
        return paths.private_dir(path.expanduser().absolute())
    except OSError as error:
        raise ValueError(f"the folder cannot be made: {error.strerror}") from None


def _address(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}", text):
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:8080")
    if int(text.rpartition(":")[2]) > 65535:
        raise ValueError("a port is at most 65535")
    return text


def _metrics_address(text: str) -> str:
    if text and _address(text).endswith(":0"):
        raise ValueError("a port of its own: Prometheus must know where to look")
    return text


def _url(text: str) -> str:
    if "://" not in text:
        raise ValueError("expected a URL, such as file:///var/lib/helix-deploy/store")
    return text


def _reference(text: str) -> str:
    if text:
        try:
            secrets.check(text)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
    return text


def _queue(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._/@-]{1,200}", text):
        raise ValueError("expected up to 200 letters, digits and . _ / @ -")
    return text


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Url = Annotated[str, AfterValidator(_url)]
Name = Annotated[str, AfterValidator(_queue)]
SecretReference = Annotated[str, AfterValidator(_reference)]


class Settings(BaseSettings):
    """The configuration of one worker process. Use `load()`, which explains what is wrong."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    state_dir: Annotated[Path, AfterValidator(_private)] = Field(
        default_factory=paths.state_dir, validate_default=True
    )
    """Logs, scratch space and, by default, the store and the ledger. Made with mode 0700."""
    store_url: Url = Field(default_factory=lambda data: f"file://{data['state_dir']}/store")
    """Where sources and logs are kept: file://, s3://, gs:// or abfs://."""
    ledger_url: Url = Field(default_factory=lambda data: f"sqlite:///{data['state_dir']}/ledger.db")
    """The ledger's database: sqlite:/// and a path, or postgresql://."""
    encryption_keys: SecretReference = ""
    """A secret reference to the keys that payloads are encrypted with: file:/etc/helix/keys. Empty:
    they are not encrypted."""
    task_queue: Name = "helix-deploy"
    worker_name: Name = Field(default_factory=socket.gethostname)
    """Names this worker among all; unique per machine and engine."""
    build_id: Annotated[str, AfterValidator(lambda text: _queue(text) if text else text)] = ""
    """This version of the worker, for Temporal's Worker Versioning; empty: unversioned. A
    deployment stays with the version that began it."""
    health_address: Annotated[str, AfterValidator(_address)] = "127.0.0.1:0"
    """Where the health endpoint listens; port 0 takes a free one (written to the state folder)."""
    metrics_address: Annotated[str, AfterValidator(_metrics_address)] = ""
    """Where Prometheus gets the metrics, at /metrics; nowhere if empty."""
    max_concurrent_activities: int = Field(10, ge=1, le=1000)
    graceful_shutdown_seconds: float = Field(300, ge=0)
    """How long a SIGTERM lets running steps go on before they are handed to another worker."""
    cancel_latency_seconds: float = Field(1, gt=0, le=60)
    """How often a running step is told whether it was cancelled."""
    sticky_timeout_seconds: float = Field(3, gt=0)
    """How long a workflow waits for the worker that has it in memory before another one takes
    over."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = (
        "info"
    )
    log_format: Annotated[Literal["text", "json"], BeforeValidator(_lower)] = "text"

    @property
    def own_queue(self) -> str:
        """The task queue that only this worker polls: for steps tied to its machine's engine."""
        return f"{self.task_queue}@{self.worker_name}"

    @property
    def logs_dir(self) -> Path:
        """Where the logs of running steps grow."""
        return paths.private_dir(self.state_dir / "logs")

    def env_file(self, instance_key: str) -> Path:
        """Where the command line hands over values of an instance's `env:` secret references. The
        file may not exist."""
        return paths.env_file(self.state_dir, instance_key)


def load(**overrides: Any) -> Settings:
    """The settings from the environment.

    Raises:
        ConfigurationError: every variable that is wrong, at once, and what was expected.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        # The wrong value itself is not repeated: a URL may hold a password.
        problems = "; ".join(
            f"{PREFIX}{'_'.join(map(str, one['loc'])).upper()}: "
            f"{one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_input=False)
            if one["type"] != "default_factory_not_called"  # follows from another one
        )
        raise ConfigurationError(
            f"wrong environment variables: {problems}",
            hint="correct or unset them; the settings are listed in docs/operations.md",
        ) from None
