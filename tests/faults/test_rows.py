"""The rows and the tests that prove them agree."""

import re
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
ROWS = set(yaml.safe_load((FOLDER / "rows.yaml").read_text(encoding="utf-8")))
PROVEN = {
    f"{kind}-{number}"
    for path in FOLDER.parent.rglob("test_*.py")
    for kind, number in re.findall(
        r"def test_(fault|input)_(\d\d)_", path.read_text(encoding="utf-8")
    )
}


def test_every_numbered_test_belongs_to_a_row():
    assert PROVEN <= ROWS


def test_every_bad_input_has_a_test():
    assert {row for row in ROWS if row.startswith("input-")} <= PROVEN
