"""What checkov may not say has a reason, and what pip-audit says is understood."""

import json
from pathlib import Path
from typing import Any

from scripts.check_security import read_audit


def make_audit(**members: Any) -> str:
    dependency = {"name": "pillow", "version": "1.0", **members}
    return "Found something\n" + json.dumps({"dependencies": [dependency], "fixes": []})


def test_every_check_that_is_skipped_has_its_reason(root: Path) -> None:
    lines = (root / ".checkov.yaml").read_text().partition("skip-check:\n")[2].splitlines()

    assert lines
    for line in lines:
        check, _, reason = line.removeprefix("  - ").partition(" # ")
        assert check.startswith("CKV_AWS_")
        assert len(reason.split()) >= 5


def test_an_advisory_is_a_fault() -> None:
    advisory = {"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}

    assert read_audit(make_audit(vulns=[advisory])) == (
        ["pillow 1.0: PYSEC-1, mended in 1.1"],
        "",
    )


def test_no_advisory_is_none() -> None:
    assert read_audit(make_audit(vulns=[])) == ([], "")


def test_a_mirror_without_advisories_is_not_taken_for_good_news() -> None:
    faults, unknown = read_audit(make_audit(skip_reason="not found on PyPI"))

    assert faults == []
    assert unknown == "PyPI tells nothing here of 1 of 1 packages"


def test_a_tool_that_fails_says_why() -> None:
    assert read_audit("ERROR: no network\n") == ([], "pip-audit says: ERROR: no network")
