"""The package's layers import downwards only."""

import subprocess
import sys
from pathlib import Path


def test_imports_keep_the_dependency_rule(root: Path, tmp_path: Path) -> None:
    """functions and local > bootstrap > services and adapters > ports > domain."""
    # In a process of its own: it switches off the loggers of whatever runs beside it.
    lint = Path(sys.executable).with_name("lint-imports")
    command = [lint, "--config", root / "pyproject.toml", "--cache-dir", tmp_path]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
