"""The set-up finds what is there, and says how to mend what is not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import closing_line
from scripts.demo.load import Load
from scripts.setup import environment, kubernetes, packages, shell
from scripts.setup.golang import compile_program
from scripts.setup.shell import ROOT, SetupFailed

LOCK = environment.LOCK.read_text()
WORKER_LOCK = environment.WORKER_LOCK.read_text()
PINS = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", LOCK, re.MULTILINE))


def wanted() -> list[Requirement]:
    """All that pyproject.toml asks for of others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [project["project"]["dependencies"], *project["dependency-groups"].values()]
    lists += project["project"]["optional-dependencies"].values()
    found = [Requirement(one) for several in lists for one in several if isinstance(one, str)]
    return [one for one in found if one.name != project["project"]["name"]]


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_the_lock_holds_what_the_project_asks_for(requirement: Requirement) -> None:
    name = requirement.name.lower().replace("_", "-")
    assert requirement.specifier.contains(PINS[name], prereleases=True)


def test_every_package_in_the_lock_has_a_hash() -> None:
    for name in PINS:
        assert "--hash=sha256:" in environment.pinned(name), name


def test_the_lock_names_no_address() -> None:
    for text in (LOCK, WORKER_LOCK):
        assert "://" not in text
        assert "--index" not in text


def test_the_workers_image_holds_what_the_tests_ran_with() -> None:
    everything, worker = (
        dict(re.findall(r"^([a-z0-9._-]+==[^\\]+)((?:\\\n +--hash=\S+ ?)+)", text, re.MULTILINE))
        for text in (LOCK, WORKER_LOCK)
    )
    assert worker.items() <= everything.items()
    assert len(everything) > len(worker) > 100


def test_the_pin_of_a_package_is_its_own_lines_only() -> None:
    pin = environment.pinned("uv")
    assert pin.startswith("uv==")
    assert len(re.findall("==", pin)) == 1


def test_a_package_that_is_not_locked_is_a_failure_that_can_be_mended() -> None:
    with pytest.raises(SetupFailed) as failure:
        environment.pinned("no-such-package")
    assert failure.value.mend == "make lock"


def test_a_command_that_fails_shows_the_end_of_its_output() -> None:
    script = "import sys; print('cause', file=sys.stderr); sys.exit(3)"
    with pytest.raises(SetupFailed) as failure:
        shell.run([sys.executable, "-c", script], mend="do this")
    assert "ended with 3" in failure.value.what
    assert "cause" in failure.value.what
    assert failure.value.mend == "do this"


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(SetupFailed, match="did not end"):
        shell.run([sys.executable, "-c", "import time; time.sleep(60)"], mend="", timeout=0.2)


def test_a_missing_program_names_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupFailed) as failure:
        packages.ensure("caddy", "docker")
    assert failure.value.what == "not installed: caddy, docker"
    assert failure.value.mend.endswith("apt-get install caddy docker.io")


def compiled(goal: Path, text: str) -> None:
    """A program of one file."""
    folder = goal.parent.parent / "source"
    folder.mkdir(exist_ok=True)
    (folder / "go.mod").write_text("module example.test/hello\n\ngo 1.21\n")
    (folder / "main.go").write_text(text)
    compile_program(
        goal, ".", piece="test", takes="a second", folder=folder, stamps={"main.word": "hello"}
    )


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go to compile with")
def test_a_program_is_compiled_whole_or_not_at_all(tmp_path: Path) -> None:
    goal = tmp_path / "bin" / "hello"
    good = "package main\n\nvar word string\n\nfunc main() { println(word) }\n"
    compiled(goal, good)
    assert subprocess.run([goal], capture_output=True, text=True).stderr == "hello\n"
    before = goal.read_bytes()
    with pytest.raises(SetupFailed, match="undefined: nonsense"):
        compiled(goal, good.replace("println", "nonsense"))
    assert goal.read_bytes() == before
    assert list(goal.parent.iterdir()) == [goal]


def test_without_a_compiler_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupFailed) as failure:
        compile_program(tmp_path / "tool", "example.test/tool@v1", piece="test", takes="a second")
    assert failure.value.mend.startswith("install tool, or Go")


def test_an_unknown_piece_is_refused_and_the_known_ones_are_named() -> None:
    command = [sys.executable, "-m", "scripts.setup", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "«nonsense»" in done.stderr
    assert "temporal" in done.stderr


REPORT = """<testsuites>
  <testsuite tests="9" failures="{failures}" errors="0" skipped="2"/>
</testsuites>"""


@pytest.mark.parametrize(
    ("first", "again", "line", "exit"),
    [
        (0, None, "14 passed, 0 failed, 4 skipped", 0),
        (1, None, "13 passed, 1 failed, 4 skipped", 1),
        (3, 0, "14 passed, 0 failed, 4 skipped", 0),
        (3, 2, "12 passed, 2 failed, 4 skipped", 1),
        (None, None, "7 passed, 1 failed, 2 skipped", 1),
    ],
)
def test_two_runs_close_with_one_line(
    first: int | None,
    again: int | None,
    line: str,
    exit: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "quick.xml").write_text(REPORT.format(failures=0))
    if first is not None:
        (tmp_path / "real.xml").write_text(REPORT.format(failures=first))
    if again is not None:
        text = REPORT.format(failures=again).replace('tests="9"', f'tests="{first}"')
        (tmp_path / "real-again.xml").write_text(text)
    assert closing_line.main([str(tmp_path), "quick", "real"]) == exit
    assert capsys.readouterr().out == f"{line}\n"


def test_a_run_that_never_came_to_its_report_has_failed(tmp_path: Path) -> None:
    assert closing_line.main([str(tmp_path / "none.xml")]) == 1


class Moody(BaseHTTPRequestHandler):
    """Answers every third request with 500."""

    asked = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        with Moody.lock:
            Moody.asked += 1
            status = 500 if Moody.asked % 3 == 0 else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_the_load_counts_answers_and_failures() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = threading.Event()
    with Load(f"http://127.0.0.1:{server.server_port}/") as load:
        done.wait(0.5)
    server.shutdown()
    server.server_close()
    assert set(load.answers) == {"here"}
    assert set(load.failures) == {"status 500: here"}
    assert load.requests == Moody.asked
    assert load.failures.total() == Moody.asked // 3


def test_the_load_counts_a_server_that_is_gone() -> None:
    done = threading.Event()
    with Load("http://127.0.0.1:9/") as load:
        done.wait(0.1)
    assert load.answers.total() == 0
    assert load.failures.total() == load.requests > 0


def test_all_modules_of_the_control_plane_are_of_one_release() -> None:
    """The staging modules that kubernetes replaces by folders of its own must be pinned by us."""
    lines = (kubernetes.SOURCE / "go.mod").read_text().splitlines()
    pins = [line.split() for line in lines if " => k8s.io/" in line]
    assert len(pins) > 30
    assert {pin[-1] for pin in pins} == {kubernetes.version().replace("1.", "v0.", 1)}
