"""`make build` finds a Python of the functions' version, or says how to get one."""

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from scripts import build_application
from scripts.build_application import RUNTIME, BuildError, find_runtime


def _write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_builds_with_the_functions_runtime(template: dict[str, Any]) -> None:
    """The version is written in the template and in the script; both mean the same."""
    assert template["Globals"]["Function"]["Runtime"] == RUNTIME


def test_finds_a_python_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _write_program(tmp_path / RUNTIME, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_runtime() == program


def test_passes_over_pyenvs_shim_and_takes_the_installed_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyenv's shim stands on the PATH although the version is not selected, and fails."""
    _write_program(tmp_path / "shims" / RUNTIME, "exit 127")
    _write_program(tmp_path / "shims" / "pyenv", f"echo {tmp_path}/version")
    program = _write_program(tmp_path / "version" / "bin" / RUNTIME, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))

    assert find_runtime() == program


@pytest.mark.reference_graphs
def test_refuses_workflows_that_a_function_would_refuse_at_its_start(
    root: Path, tmp_path: Path
) -> None:
    workflows = shutil.copytree(root / "workflows", tmp_path / "workflows")
    build_application.check_shipped_workflows(workflows)

    graph = workflows / "pulid" / "flux-prompt.json"
    graph.write_text(graph.read_text().replace('"value"', '"text"'))
    with pytest.raises(BuildError, match=r"flux-prompt.json: node 3 .*input value: promptText is"):
        build_application.check_shipped_workflows(workflows)


def test_says_what_to_do_where_the_runtime_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BuildError, match=rf"{RUNTIME} is missing[\s\S]+pyenv install"):
        build_application.build_application()
