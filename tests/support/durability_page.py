"""Put the results of `make faults` into docs/durability.md: durability_page.py FAULTS_JSON PAGE."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- what make faults measured -->\n", "<!-- until here -->\n"
CONTROLS = """
Crash images of variants that break the promise. Each of them is caught:

| variant | images | found |
| --- | --- | --- |
"""
HEADS = ("fault", "injected", "acknowledged", "lost", "sent again", "control: the same check of a broken variant")


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a table in Markdown, with a sum."""
    lines = [HEADS, tuple("---" for _ in HEADS)]
    lines += [
        (row["fault"], *(f"{row[name]:,}" for name in ("rounds", "acked", "lost", "duplicated")), row["control"])
        for row in rows
    ]
    sums = (f"**{sum(row[name] for row in rows):,}**" for name in ("rounds", "acked", "lost", "duplicated"))
    lines.append(("**all**", *sums, ""))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main(results: Path, page: Path) -> None:
    """Replace what stands between the two marks."""
    found = sorted(json.loads(results.read_text()), key=lambda row: (row["test"], row["fault"]))
    controls = [row for row in found if row["fault"].startswith("control:")]
    rows = [row for row in found if row not in controls]
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    images = "".join(
        f"| {row['fault'].removeprefix('control: ')} | {row['rounds']:,} | {row['control'] or row['lost']} |\n"
        for row in controls
    )
    page.write_text(f"{before}{BEGIN}\n{table(rows)}{CONTROLS}{images}\n{END}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
