"""Runs the tests of faults and bad inputs by their numbers, and prints what came of each row."""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

ROWS = Path(__file__).parent.parent / "tests" / "faults" / "rows.yaml"
_NUMBERED = re.compile(r"test_(fault|input)_(\d\d)_")


class OutcomesByRow:
    """A pytest plugin that counts each row's tests by their outcome."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once it has run, or a part of it that failed."""
        found = _NUMBERED.search(report.nodeid)
        if found and (report.when == "call" or not report.passed):
            self.counts[f"{found[1]}-{found[2]}"][report.outcome] += 1


def judge_row(counts: Mapping[str, int]) -> str:
    """Whether a row is proven: one failure is enough against it, and a skip proves nothing."""
    if counts.get("failed"):
        return "FAIL"
    return "pass" if counts.get("passed") else "none"


def format_table(
    titles: Mapping[str, str], outcomes: Mapping[str, Mapping[str, int]]
) -> tuple[str, bool]:
    """The table, and whether every row is proven and every numbered test has a row."""
    lines, is_proven = [], outcomes.keys() <= titles.keys()
    for row in sorted(titles.keys() | outcomes.keys()):
        counts = outcomes.get(row, {})
        verdict = judge_row(counts)
        is_proven &= verdict == "pass"
        title = titles.get(row, "(there is no such row)")
        lines.append(f"{row}  {verdict}  {sum(counts.values()):3} tests  {title}")
    return "\n".join(lines), is_proven


def main(arguments: list[str]) -> int:
    """Run the tests, with more arguments for pytest; 1 unless every row is proven."""
    titles = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    # By tens: a name for each row would be a long expression.
    names = " or ".join(sorted({f"test_{row[:-1].replace('-', '_')}" for row in titles}))
    plugin = OutcomesByRow()
    pytest.main(["-q", "-k", names, *arguments], plugins=[plugin])
    table, is_proven = format_table(titles, plugin.counts)
    print(f"\n{table}")
    return 0 if is_proven else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
