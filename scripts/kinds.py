"""The table of kinds in the README, from the code: `python -m scripts.kinds` writes it anew."""

from __future__ import annotations

from pathlib import Path

from providers.catalog import PROVIDERS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- kinds: python -m scripts.kinds -->\n", "<!-- /kinds -->"


def table() -> str:
    """A row a kind: what its capabilities say."""
    rows = [
        "| kind | runs | swap | requests wait | volumes | logs | scales to zero |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in sorted(PROVIDERS.builtin):
        can = PROVIDERS.load(kind).capabilities
        yes = {True: "yes", False: "–"}
        if not can.runtime:
            rows.append(f"| `{kind}` | nothing: stores images | – | – | – | – | – |")
            continue
        swap = "start-first, stop-first" if can.start_first else "stop-first"
        rows.append(
            f"| `{kind}` | {', '.join(sorted(can.takes))} | {swap} | {yes[can.holds_requests]} | "
            f"{yes[can.volumes]} | {yes[can.logs]} | {yes[can.scale_to_zero]} |"
        )
    return "\n".join(rows) + "\n"


def written(text: str) -> str:
    """The README with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
