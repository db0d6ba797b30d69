"""docs/deploy.md and docs/image.md say what the templates and scripts do."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.print_costs import BEGIN, END, format_costs

_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


@pytest.fixture(scope="module")
def guide(root: Path) -> str:
    return (root / "docs" / "deploy.md").read_text()


def test_the_parameters_table_is_the_fleets_templates(
    guide: str, fleets_template: Mapping[str, Any]
) -> None:
    """Every parameter with its default, in the template's order."""
    table = guide.partition("| parameter of `fleets/template.yaml` |")[2].partition("\n\n")[0]
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")][:2]
        for line in table.splitlines()[2:]
    ]
    assert rows == [
        [name, str(parameter.get("Default", ""))]
        for name, parameter in fleets_template["Parameters"].items()
    ]


def test_the_costs_are_what_the_script_makes_of_counts_and_prices(guide: str) -> None:
    """If not: make costs."""
    written = guide.partition(BEGIN)[2].partition(END)[0]
    assert written.strip() == format_costs().strip()


@pytest.mark.parametrize("name", ["deploy.md", "image.md"])
def test_links_lead_somewhere(root: Path, name: str) -> None:
    path = root / "docs" / name
    for target, anchor in _LINK.findall(path.read_text()):
        document = (path.parent / target).resolve() if target else path
        assert document.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs


@pytest.mark.parametrize("name", ["deploy.md", "image.md"])
def test_the_targets_and_files_that_are_named_exist(root: Path, name: str) -> None:
    text = (root / "docs" / name).read_text()
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"(?:`|&& |^)make ([a-z]+)", text, re.MULTILINE):
        assert f"\n{target}:" in makefile, target
    for script in re.findall(r"\b(?:scripts|fleets)/[\w/]+\.\w+", text):
        assert (root / script).exists(), script
    for module in re.findall(r"-m (scripts\.\w+)", text):
        assert (root / f"{module.replace('.', '/')}.py").exists(), module
