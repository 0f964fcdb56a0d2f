"""Measures, prints, and keeps the figures in docs/performance.md: `python -m benchmarks`.

Ratios count more than seconds: both sides of each are measured on the same machine, in turn, and
the median of several runs is kept. Nothing here fails; the goals stand beside the figures.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.e2e.machine import APP, HELIX, Machine, Project, clean_up, make_project
from tests.services.registry import TestRegistry, free_port, secured_registry

MARK = uuid.uuid4().hex[:8]
"""In every source, so that no build of an earlier run of this program is found again."""
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


@dataclass
class Figure:
    """One line of the table."""

    what: str
    value: str
    goal: str


def seconds(work: Callable[[], object]) -> float:
    """How long the work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median(runs: int, work: Callable[[], float]) -> float:
    """The median of several runs."""
    return statistics.median(work() for _ in range(runs))


def until_answers(url: str, text: str) -> None:
    """Wait for the first healthy answer of a version."""
    while True:
        try:
            if text in httpx.get(url, timeout=1).text:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.02)


class Bare:
    """`docker build`, `push`, `run`, and the first healthy answer: what a person would type."""

    def __init__(self, folder: Path, registry: TestRegistry) -> None:
        self.folder, self.registry = folder, registry
        self.port = free_port()
        self.version = 0
        subprocess.run(
            ["docker", "login", registry.host, "-u", registry.username, "--password-stdin"],
            input=registry.password,
            text=True,
            capture_output=True,
            check=True,
        )

    def deploy(self) -> float:
        """One changed release; seconds until it answers."""
        self.version += 1
        (self.folder / "behaviour.json").write_text(
            f'{{"version": "bare-{MARK}-{self.version}", "mode": "good"}}'
        )
        image = f"{self.registry.host}/bare:{self.version}"
        return seconds(lambda: self._deploy(image))

    def _deploy(self, image: str) -> None:
        self.docker("build", "--quiet", "--tag", image, str(self.folder))
        self.docker("push", "--quiet", image)
        self.docker("rm", "--force", "helix-bench-bare", check=False)
        self.docker(
            "run", "--detach", "--name", "helix-bench-bare",
            "--publish", f"127.0.0.1:{self.port}:8080", image,
        )  # fmt: skip
        until_answers(f"http://127.0.0.1:{self.port}", f"bare-{MARK}-{self.version}")

    def docker(self, *words: str, check: bool = True) -> None:
        """One command."""
        # The classic builder where the CLI has no BuildKit of its own.
        env = {**os.environ, "DOCKER_BUILDKIT": "0"}
        subprocess.run(["docker", *words], check=check, capture_output=True, env=env)

    def close(self) -> None:
        """Leave nothing."""
        self.docker("rm", "--force", "helix-bench-bare", check=False)
        self.docker("logout", self.registry.host, check=False)


@contextmanager
def workplace() -> Iterator[tuple[Machine, TestRegistry]]:
    """A registry, and somebody's machine with its stack running."""
    with tempfile.TemporaryDirectory(prefix="hx") as home:
        os.environ["DOCKER_CONFIG"] = f"{home}/docker"
        with secured_registry(Path(home, "registry")) as registry:
            machine = Machine(Path(home), env={"REGISTRY_PASSWORD": registry.password})
            machine.helix("up")
            try:
                yield machine, registry
            finally:
                machine.helix("down", expect=None)


COMPILED = """\
ARG BASE=python:3-slim
FROM ${BASE}
COPY app.py behaviour.json /app/
RUN python3 -c "import compileall, os; \\
    [compileall.compile_dir(os.path.dirname(os.__file__), force=True, quiet=2) for _ in range(12)]"
CMD ["python3", "-u", "/app/app.py"]
"""
"""A build that takes as long as those of small applications: anew for each change, it compiles
Python's own library a dozen times."""


def pairs(bare: Bare, project: Project, counter: list[int], runs: int) -> tuple[float, float]:
    """The medians of a changed release by hand and by `helix push`, in turn."""
    bare.deploy()
    changed(project, counter)
    found = [(bare.deploy(), changed(project, counter)) for _ in range(runs)]
    return statistics.median(one for one, _ in found), statistics.median(one for _, one in found)


def compared(what: str, plain: float, ours: float) -> list[Figure]:
    """Two lines of the table: by hand, and by us."""
    return [
        Figure(f"{what}: `docker build`, `push`, `run`, first answer", f"{plain:.2f} s", ""),
        Figure(
            f"{what}: `helix push`",
            f"{ours:.2f} s = {ours / plain:.2f} ×, {ours - plain:+.2f} s",
            "≤ 1.25 ×, at most 1.5 s more",
        ),
    ]


def compiled(machine: Machine, registry: TestRegistry, runs: int) -> list[Figure]:
    """A changed release of something whose build takes as long as builds do."""
    folder = machine.home / "compiled"
    shutil.copytree(APP, folder)
    (folder / "Dockerfile").write_text(COMPILED)
    project = make_project(machine, registry, source=folder)
    bare = Bare(folder, registry)
    try:
        return compared("a build of several seconds", *pairs(bare, project, [0], runs))
    finally:
        bare.close()
        clean_up(project)


def changed(project: Project, counter: list[int]) -> float:
    """A push of a changed source."""
    counter[0] += 1
    project.behave(f"helix-{MARK}-{counter[0]}")
    return seconds(project.push)


def verdict(project: Project, counter: list[int]) -> float:
    """A push of a release that exits at once, until the verdict."""
    counter[0] += 1
    project.behave(f"helix-{MARK}-{counter[0]}", "exits")
    took = seconds(lambda: project.push(expect=3))
    return took


def rollback(project: Project) -> float:
    """A change, which does not count, and then back to the release before."""
    project.behave(f"rollback-{time.time()}")
    project.push()
    return seconds(lambda: project.helix("rollback", "--instance", "dev"))


def start_up(*words: str, cwd: Path, env: dict[str, str]) -> float:
    """A command's whole run."""
    command = [*HELIX, *words]
    return seconds(lambda: subprocess.run(command, cwd=cwd, env=env, capture_output=True))


def resident(pid: int) -> int:
    """MiB of memory a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


def many(machine: Machine, registry: TestRegistry, count: int) -> float:
    """That many first pushes of different projects, all begun at once."""
    projects = [make_project(machine, registry) for _ in range(count)]
    try:
        for number, project in enumerate(projects):
            project.behave(f"many-{MARK}-{number}")
        began = time.perf_counter()
        running = [project.begin_push() for project in projects]
        codes = [process.wait(600) for process in running]
        took = time.perf_counter() - began
        assert codes == [0] * count, codes
        assert [project.version() for project in projects] == [
            f"many-{MARK}-{n}" for n in range(count)
        ]
        return took
    finally:
        for project in projects:
            clean_up(project)


def measure(runs: int, instances: int) -> list[Figure]:
    """All figures, in the table's order."""
    found = []
    with workplace() as (machine, registry):
        project = make_project(machine, registry)
        folder = machine.home / "bare"
        subprocess.run(["cp", "-r", str(APP), str(folder)], check=True)
        bare = Bare(folder, registry)
        try:
            counter = [0]
            found += compared("a tiny example", *pairs(bare, project, counter, runs))
            found += compiled(machine, registry, runs)
            changed(project, counter)
            took = median(runs, lambda: seconds(project.push))
            inside = duration(project)
            found.append(
                Figure("unchanged redeploy", f"{took:.2f} s, {inside:.2f} s of it inside", "≤ 1 s")
            )
            changed(project, counter)
            found.append(
                Figure("rollback", f"{median(runs, lambda: rollback(project)):.2f} s", "≤ 3 s")
            )
            found.append(
                Figure(
                    "verdict on a container that exits",
                    f"{median(runs, lambda: verdict(project, counter)):.2f} s",
                    "≤ 5 s",
                )
            )
            for words, goal in ((("--help",), "≤ 0.2 s"), (("status",), "≤ 0.3 s")):
                took = median(
                    runs,
                    lambda words=words: start_up(*words, cwd=project.folder, env=machine.environ()),
                )
                found.append(Figure(f"`helix {' '.join(words)}`", f"{took:.2f} s", goal))
            took = many(machine, registry, instances)
            found.append(Figure(f"{instances} instances deployed at once", f"{took:.1f} s", ""))
            pid = machine.stack()["worker"]["pid"]
            found.append(Figure("memory of the worker after all that", f"{resident(pid)} MiB", ""))
        finally:
            bare.close()
            clean_up(project)
    return found


def duration(project: Project) -> float:
    """How long the newest deployment took inside, from its start to its end."""
    from datetime import datetime

    newest = project.history()[0]
    began, ended = (datetime.fromisoformat(newest[key]) for key in ("started_at", "ended_at"))
    return (ended - began).total_seconds()


def page(figures: list[Figure], runs: int) -> str:
    """docs/performance.md."""
    cpus = os.cpu_count()
    rows = "\n".join(f"| {one.what} | {one.value} | {one.goal} |" for one in figures)
    return (
        "# Performance\n\n"
        "Measured by `make bench`, on an embedded stack with a registry on the same machine.\n"
        f"Medians of {runs} runs; {cpus} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}.\n"
        "The bare sequence and `helix push` are run in turn. Times are of the whole command, from\n"
        "Enter to the prompt.\n\n"
        f"| what | measured | goal |\n|---|---|---|\n{rows}\n"
    )


def main() -> None:
    """Measure and write the page."""
    options = argparse.ArgumentParser(prog="python -m benchmarks")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--instances", type=int, default=20)
    options.add_argument("--print", action="store_true", help="do not write docs/performance.md")
    chosen = options.parse_args()
    text = page(measure(chosen.runs, chosen.instances), chosen.runs)
    print(text)
    if not chosen.print:
        PAGE.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
