"""Reads templates as they are written."""

from pathlib import Path
from typing import Any

import yaml
from samtranslator.yaml_helper import intrinsics_multi_constructor

# In C where libyaml is there: the pure Python form takes five times as long.
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _TemplateLoader(_SAFE_LOADER):  # type: ignore[misc]
    """Knows the short forms of CloudFormation's functions."""


_TemplateLoader.add_multi_constructor("!", intrinsics_multi_constructor)


def read_template(path: Path) -> dict[str, Any]:
    """A template with its short forms (!Ref, !Sub) spelled out; raises OSError and YAMLError."""
    with path.open("rb") as file:
        template: dict[str, Any] = yaml.load(file, Loader=_TemplateLoader)  # noqa: S506  (a safe one)
    return template
