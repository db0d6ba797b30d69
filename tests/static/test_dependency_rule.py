"""The package's layers import downwards only."""

from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_imports_keep_the_dependency_rule(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """functions and local > bootstrap > services and adapters > ports > domain."""
    status = lint_imports(config_filename=str(root / "pyproject.toml"), cache_dir=str(tmp_path))

    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
