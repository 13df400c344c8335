"""The reference in `docs/metrics.md`, from the families themselves."""

from __future__ import annotations

from walbatch.metrics.families import TOPICS, Family

SHOWN = 8
"""A label with more values than these is shown without them: they are listed where clients read them."""


def tables() -> str:
    """Return a table for each topic, in Markdown."""
    return "\n".join(f"### {topic}\n\n{_table(families)}" for topic, families in TOPICS.items())


def _table(families: tuple[Family, ...]) -> str:
    lines = ["| metric | what it is | when it moves |", "|---|---|---|"]
    lines += [f"| `{family.name}`<br>{_kind(family)} | {family.help} | {family.action} |" for family in families]
    return "\n".join(lines) + "\n"


def _kind(family: Family) -> str:
    labels = [_label(name, values) for name, values in family.labels.items()]
    return "; ".join([family.type, *labels])


def _label(name: str, values: tuple[str, ...]) -> str:
    return f"`{name}`" if not values or len(values) > SHOWN else f"`{name}` ({', '.join(values)})"
