"""Temporal's Java test server, in which a day of waiting takes no time: only tests need it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from scripts.setup import packages
from scripts.setup.shell import CACHE, run, say

VERSION = "1.38.0"
FOLDER = CACHE / "test-server"
LAUNCHER = FOLDER / "temporal-test-server"

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>helix</groupId><artifactId>test-server</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>io.temporal</groupId>
      <artifactId>temporal-test-server</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

SCRIPT = """#!/bin/sh
# The SDK calls this with a port. exec: its kill must reach the JVM.
here=$(dirname "$(readlink -f "$0")")
exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$here/lib/*" \\
    io.temporal.testserver.TestServer "$@"
"""


def ensure() -> None:
    """Have the server in our cache."""
    packages.ensure("java")
    if LAUNCHER.exists():
        say("test server", f"found {LAUNCHER}")
        return
    packages.ensure("mvn")
    FOLDER.mkdir(parents=True, exist_ok=True)
    say("test server", f"fetching version {VERSION} with Maven …")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pom.xml").write_text(POM)
        goal = "dependency:copy-dependencies"
        options = ["-DincludeScope=runtime", f"-DoutputDirectory={FOLDER / 'lib'}"]
        run(
            ["mvn", "-q", "-B", goal, *options],
            mend="check the network and the proxy settings of Maven, then run it again",
            cwd=Path(folder),
        )
    # The launcher comes last and at once: that it is there says that all the rest is.
    made = FOLDER / "launcher.new"
    made.write_text(SCRIPT)
    made.chmod(0o755)
    os.replace(made, LAUNCHER)
    say("test server", f"made {LAUNCHER}")
