"""What the self-hosted stack is tested with: docker compose, and the images it is made of.

Where the images cannot be pulled, stand-ins are made from Debian's packages and from what is
compiled here: Temporal's server and UI, and a small program in the place of Grafana.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from scripts.setup import images, packages
from scripts.setup.golang import compile_program
from scripts.setup.images import StandIn
from scripts.setup.shell import BIN, CACHE, SetupFailed, run, say

HERE = Path(__file__).parent
STAND_INS = HERE / "stand_ins"
UI_MODULE = "github.com/temporalio/ui-server/v2"
UI_CONFIG = CACHE / "temporal-ui" / "docker.yaml"
"""The UI's own template, from its module."""

POSTGRES = "postgres:15.18-bookworm"
TEMPORAL = "temporalio/server:1.29.1"
TEMPORAL_TOOLS = "temporalio/admin-tools:1.29.1-tctl-1.18.4-cli-1.5.0"
TEMPORAL_UI = "temporalio/ui:2.42.1"
REGISTRY = "registry:2.8.3"
PROMETHEUS = "prom/prometheus:v2.42.0"
GRAFANA = "grafana/grafana:11.6.0"
COLLECTOR = "otel/opentelemetry-collector-contrib:0.140.0"
IMAGES = (
    POSTGRES, TEMPORAL, TEMPORAL_TOOLS, TEMPORAL_UI, REGISTRY, PROMETHEUS, GRAFANA, COLLECTOR,
)  # fmt: skip
"""The public images that docker-compose.yml names."""
LOCAL_PATH = "ENV PATH=/usr/local/bin:/usr/bin:/bin"

COMPOSE = {"docker-compose": "github.com/docker/compose/v5/cmd"}
PROGRAMS = {
    "temporal-server": "go.temporal.io/server/cmd/server",
    "temporal-sql-tool": "go.temporal.io/server/cmd/tools/sql",
    "temporal-ui-server": f"{UI_MODULE}/cmd/server",
    "grafana-stand-in": "./grafana",
}
"""A program -> its package in the module `stack_programs`."""
MEND = "install Go 1.26 or newer, then run it again"


def ensure() -> None:
    """Have docker compose and the images. Say so where they cannot be: its test is skipped."""
    try:
        _ensure_compose()
        if lacking := images.missing(IMAGES):
            packages.ensure("postgres", "prometheus", "docker-registry", "busybox")
            _compile_programs()
            made = stand_ins()
            for name in lacking:
                images.make(name, made[name])
    except SetupFailed as error:
        say("stack", f"not made, its test is skipped: {error.what}")


def compose() -> list[str]:
    """The command: the docker CLI's plugin, or else the one that was compiled here.

    Raises:
        SetupFailed: there is neither.
    """
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if (BIN / "docker-compose").exists():
        return [str(BIN / "docker-compose")]
    raise SetupFailed("there is no docker compose here", "run: make tools")


def _ensure_compose() -> None:
    try:
        say("compose", f"found {' '.join(compose())}")
    except SetupFailed:
        _compile(HERE / "compose", COMPOSE, "about 2 minutes")


def _compile(module: Path, programs: Mapping[str, str], takes: str) -> None:
    """Those programs of a Go module that are not among our tools yet."""
    for name, package in programs.items():
        if not (BIN / name).exists():
            compile_program(BIN / name, package, piece="stack", takes=takes, folder=module)


def _compile_programs() -> None:
    module = HERE / "stack_programs"
    _compile(module, PROGRAMS, "less than a minute")
    if not UI_CONFIG.exists():
        asked = ["go", "list", "-m", "-f", "{{.Dir}}", UI_MODULE]
        folder = run(asked, mend=MEND, env={"GOFLAGS": "-mod=readonly"}, cwd=module).strip()
        UI_CONFIG.parent.mkdir(parents=True, exist_ok=True)
        UI_CONFIG.write_bytes(Path(folder, "config", "docker.yaml").read_bytes())


def stand_ins() -> dict[str, StandIn]:
    """What stands in for each image. The programs it is made of are here.

    Raises:
        SetupFailed: PostgreSQL is of another version.
    """
    postgres = Path("/usr/lib/postgresql/15")
    if not (postgres / "bin" / "postgres").exists():
        raise SetupFailed(f"{POSTGRES} cannot be pulled, and PostgreSQL 15 is not here", MEND)
    plugins = [one for one in (postgres / "lib").glob("*.so") if "llvm" not in one.name]
    share = Path("/usr/share/postgresql/15")
    zones = Path("/usr/share/zoneinfo/Etc")
    return {
        POSTGRES: StandIn(
            ("busybox", *packages.POSTGRES),
            paths={name: f"{postgres}/bin/{name}" for name in packages.POSTGRES},
            files={str(file): file for file in (*plugins, share, zones)}
            | {"/usr/share/zoneinfo/UTC": zones / "UTC"}
            | {"/usr/local/bin/docker-entrypoint.sh": STAND_INS / "postgres.sh"},
            users={"postgres": 999},
            owners={"var/lib/postgresql/data": 999, "var/run/postgresql": 999},
            changes=(
                f"ENV PATH={postgres}/bin:/usr/local/bin:/usr/bin:/bin",
                "ENV PGDATA=/var/lib/postgresql/data",
                "VOLUME /var/lib/postgresql/data",
                'ENTRYPOINT ["docker-entrypoint.sh"]',
                'CMD ["postgres"]',
            ),
        ),
        TEMPORAL: StandIn(
            ("busybox", "temporal-server"),
            paths={"temporal-server": "/usr/local/bin/temporal-server"},
            changes=("USER 1000", LOCAL_PATH),
        ),
        TEMPORAL_TOOLS: StandIn(
            ("busybox", "temporal", "temporal-sql-tool"),
            paths={name: f"/usr/local/bin/{name}" for name in ("temporal", "temporal-sql-tool")},
            changes=("USER 1000", LOCAL_PATH),
        ),
        TEMPORAL_UI: StandIn(
            ("busybox", "temporal-ui-server"),
            paths={"temporal-ui-server": "/home/ui-server/ui-server"},
            files={"/home/ui-server/config/docker.yaml": UI_CONFIG},
            changes=(
                "USER 1000",
                "WORKDIR /home/ui-server",
                'ENTRYPOINT ["./ui-server", "--env", "docker", "start"]',
            ),
        ),
        REGISTRY: replace(images.IMAGES["registry:2"], programs=("busybox", "docker-registry")),
        PROMETHEUS: StandIn(
            ("busybox", "prometheus", "promtool"),
            paths={name: f"/bin/{name}" for name in ("prometheus", "promtool")},
            folders=("etc/prometheus",),
            users={"nobody": 65534},
            owners={"prometheus": 65534},
            changes=(
                "USER nobody",
                "WORKDIR /prometheus",
                "VOLUME /prometheus",
                'ENTRYPOINT ["/bin/prometheus"]',
            ),
        ),
        GRAFANA: StandIn(
            ("busybox", "grafana-stand-in"),
            owners={"var/lib/grafana": 472},
            changes=("USER 472", 'ENTRYPOINT ["grafana-stand-in"]'),
        ),
        COLLECTOR: StandIn(
            ("helix-test-collector",),
            paths={"helix-test-collector": "/otelcol-contrib"},
            changes=("USER 10001", 'ENTRYPOINT ["/otelcol-contrib"]'),
        ),
    }
