"""What was measured: one row for each promise, printed for a person and written into docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- what make bench measured -->\n", "<!-- until here -->\n"
HEADS = ("what", "measured", "against", "ratio", "rounds", "wanted", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Without a wanted value it only tells; without a ratio the measurement itself is judged."""

    what: str
    measured: str
    against: str = ""
    ratio: float | None = None
    rounds: str = ""
    """The lowest and the highest ratio of a single round."""
    wanted: str = ""
    good: bool | None = None
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the texts of the columns of `HEADS`; the last one also has the note."""
        verdict = {None: "", True: "yes", False: "NO"}[self.good]
        remark = ", ".join(text for text in (verdict, self.note) if text)
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return (self.what, self.measured, self.against, ratio, self.rounds, self.wanted, remark)


def missing(what: str, tool: str) -> Row:
    """Return the row of what could not be measured."""
    return Row(what, "not measured", note=f"{tool} is not installed: bench/tools.sh")


def compared(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    name: str,
    unit: str = "ev/s",
    at_least: float | None = None,
    at_most: float | None = None,
    note: str = "",
) -> Row:
    """Return the row of a ratio. Round n of one side was measured beside round n of the other."""
    ratio = statistics.median(ours) / statistics.median(theirs)
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    wanted, good = _judge(ratio, at_least, at_most)
    return Row(
        what,
        measured=_show(statistics.median(ours), unit),
        against=f"{name}: {_show(statistics.median(theirs), unit)}",
        ratio=ratio,
        rounds=f"{min(each):.2f} to {max(each):.2f}",
        wanted=wanted,
        good=good,
        note=note,
    )


def limited(what: str, values: Sequence[float], unit: str, *, at_most: float | None = None, note: str = "") -> Row:
    """Return the row of a number with a limit of its own: the median of the rounds."""
    value = statistics.median(values)
    wanted, good = _judge(value, None, at_most)
    return Row(
        what,
        measured=_show(value, unit),
        rounds=f"{_show(min(values), unit)} to {_show(max(values), unit)}" if len(values) > 1 else "",
        wanted=f"{wanted} {unit}".strip() if wanted else "",
        good=good,
        note=note,
    )


def in_turn(rounds: int, *measure: Callable[[], float]) -> list[list[float]]:
    """Measure each side once in every round, one after the other, so that all see the same machine."""
    results: list[list[float]] = [[] for _ in measure]
    for _ in range(rounds):
        for side, measured in zip(measure, results, strict=True):
            measured.append(side())
    return results


def _judge(value: float, at_least: float | None, at_most: float | None) -> tuple[str, bool | None]:
    if at_least is not None:
        return f"at least {at_least:g}", value >= at_least
    if at_most is not None:
        return f"at most {at_most:g}", value <= at_most
    return "", None


def _show(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def markdown(rows: Iterable[Row]) -> str:
    """Return the table of the page."""
    lines = [HEADS, tuple("---" for _ in HEADS), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def line(row: Row) -> str:
    """Return a row as it is printed."""
    what, measured, against, ratio, rounds, wanted, remark = row.cells
    return f"{what:<58} {measured:>16}  {against:<38} {ratio:>7} {rounds:<22} {wanted:<16} {remark}".rstrip()


def write(page: Path, machine: str, rows: Iterable[Row]) -> None:
    """Replace what stands between the two marks of a page.

    Raises:
        ValueError: it does not have them.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} does not have the two marks")
    page.write_text(f"{before}{BEGIN}\n{machine}\n\n{markdown(rows)}\n{END}{after}")
