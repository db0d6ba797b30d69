"""What others know of our templates and our dependencies: checkov, and PyPI's advisories."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".venv-checks" / "bin"
REQUIREMENTS = ROOT / "layers" / "common" / "requirements.txt"
_UV = ROOT / ".venv" / "bin" / "uv"
# Everything is pinned by then, and nothing is to be installed.
_QUIETLY = ("--no-deps", "--disable-pip", "--progress-spinner", "off")
# A mirror that does not answer must not hold up a build.
_SECONDS = 45


def find_template_faults(paths: Sequence[Path]) -> str:
    """What checkov finds, but for what .checkov.yaml gives reasons; empty if nothing."""
    checkov: list[str | Path] = [TOOLS / "checkov", "--config-file", ROOT / ".checkov.yaml"]
    status, output = _run([*checkov, "-f", *paths])
    return output if status else ""


def audit_dependencies(requirements: Path = REQUIREMENTS) -> tuple[Sequence[str], str]:
    """Advisories on what is deployed, one sentence each; and why there are none if nobody knows.

    Asks PyPI for each dependency and theirs. A mirror may have no advisories: then nothing is said
    against any of them, and nothing for them either.
    """
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "pinned.txt"
        status, output = _run([_UV, "pip", "compile", "--quiet", requirements, "-o", pinned])
        if status:
            return [], f"the dependencies cannot be resolved: {output.strip()}"
        tool: list[str | Path] = [TOOLS / "pip-audit", "-s", "pypi", "-f", "json"]
        try:
            _, output = _run([*tool, *_QUIETLY, "-r", pinned], timeout_seconds=_SECONDS)
        except subprocess.TimeoutExpired:
            return [], f"PyPI has not answered within {_SECONDS} seconds"
    return read_audit(output)


def read_audit(output: str) -> tuple[Sequence[str], str]:
    """What pip-audit says as JSON, which stands below its own messages."""
    start = output.find('{"dependencies"')
    if start < 0:
        return (
            [],
            f"pip-audit says: {output.strip().splitlines()[-1] if output.strip() else 'nothing'}",
        )
    dependencies: list[dict[str, Any]] = json.JSONDecoder().raw_decode(output[start:])[0][
        "dependencies"
    ]
    faults = [
        f"{dependency['name']} {dependency['version']}: {advisory['id']}, mended in "
        f"{', '.join(advisory['fix_versions']) or 'no version yet'}"
        for dependency in dependencies
        for advisory in dependency.get("vulns", ())
    ]
    unknown = [d["name"] for d in dependencies if "skip_reason" in d]
    if not unknown:
        return faults, ""
    return faults, f"PyPI tells nothing here of {len(unknown)} of {len(dependencies)} packages"


def _run(command: Sequence[str | Path], *, timeout_seconds: float | None = None) -> tuple[int, str]:
    result = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout_seconds,
    )
    return result.returncode, result.stdout
