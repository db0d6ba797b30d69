"""Lints CloudFormation with cfn-lint, which knows every resource type and its properties."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Any Region does: what differs between Regions is not used here.
_REGION = "us-east-1"
_IGNORED_AFTER_TRANSFORM = (
    # The transform puts a parameter's default into a layer's name and leaves the Fn::Sub around it.
    "W1020",
)


def lint_transformed(template: dict[str, Any]) -> Sequence[str]:
    """Faults of a template after the transform, one sentence each.

    Only this form shows circular dependencies: the SAM form hides half of the resources.
    """
    return _lint(json.dumps(template), ignored=_IGNORED_AFTER_TRANSFORM)


def lint_plain(path: Path) -> Sequence[str]:
    """Faults of a template that needs no transform, one sentence each."""
    return _lint(path.read_text())


def _lint(text: str, *, ignored: Sequence[str] = ()) -> Sequence[str]:
    # Imported late: it takes seconds, which whoever only imports this shall not wait.
    from cfnlint.api import lint
    from cfnlint.config import ManualArgs

    config = ManualArgs(regions=[_REGION], ignore_checks=list(ignored))
    return [
        f"{match.rule.id} at {'/'.join(map(str, match.path or ()))}: {match.message}"
        for match in lint(text, config=config)
    ]
