"""Checks templates and state machine, then builds what `sam deploy` uploads: `make build`."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from samtranslator.model.exceptions import InvalidDocumentException

from local.aws.read_template import read_template
from local.check_workflows import check_workflows
from scripts.check_security import audit_dependencies, find_template_faults
from scripts.check_state_machine import find_definition_faults
from scripts.lint_template import lint_plain, lint_transformed
from scripts.transform_template import transform_template

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "template.yaml"
WORKFLOWS = ROOT / "workflows"
FLEETS_TEMPLATE = ROOT / "fleets" / "template.yaml"
SAM = ROOT / ".venv-sam" / "bin" / "sam"

RUNTIME = "python3.13"
_MISSING_RUNTIME = f"""\
{RUNTIME} is missing. `sam build` runs pip of the functions' own Python version, so it has to be
here, while everything else (make test, make demo) works with 3.11 and 3.12 too. Do one of these,
then run make build again:
  uv:      .venv/bin/uv python install 3.13   (and put the folder that it names on the PATH)
  pyenv:   pyenv install 3.13
  Debian:  apt-get install python3.13 python3.13-venv
  macOS:   brew install python@3.13
"""


class BuildError(Exception):
    """When a check finds a fault or a tool fails; the text says what to do."""


def validate_template(path: Path = TEMPLATE) -> None:
    """The SAM form: what the SAM command line itself would object to."""
    _run_sam("validate", "--lint", "--template", str(path))


def check_transformed_template(path: Path = TEMPLATE) -> None:
    """The form that CloudFormation gets."""
    try:
        transformed = transform_template(path)
    except InvalidDocumentException as error:
        raise BuildError(error.message) from error
    _refuse(lint_transformed(transformed))


def check_fleets_template(path: Path = FLEETS_TEMPLATE) -> None:
    """The instances' template, which needs no transform."""
    _refuse(lint_plain(path))


def check_security() -> None:
    """Both templates, by checkov; what it may not say stands in .checkov.yaml."""
    if faults := find_template_faults([TEMPLATE, FLEETS_TEMPLATE]):
        raise BuildError(faults)


def audit_layer() -> str:
    """The advisories on what the layer holds; gives the reason if nobody here knows any."""
    faults, unknown = audit_dependencies()
    _refuse(faults)
    return f"not audited: {unknown}" if unknown else ""


def check_state_machines(path: Path = TEMPLATE) -> None:
    """Every state machine of a template, with the substitutions that the template supplies."""
    for resource in read_template(path)["Resources"].values():
        if resource["Type"] == "AWS::Serverless::StateMachine":
            properties = resource["Properties"]
            text = (path.parent / properties["DefinitionUri"]).read_text()
            supplied = properties.get("DefinitionSubstitutions", {}).keys()
            _refuse(find_definition_faults(text, json.loads(text), supplied=supplied))


def check_shipped_workflows(directory: Path = WORKFLOWS) -> None:
    """Every manifest with its graph: what a function would refuse when it starts."""
    reports = check_workflows(directory)
    _refuse([f"{report.path}: {fault}" for report in reports for fault in report.faults])


def build_application() -> None:
    """`sam build` into .aws-sam/, with the functions' Python first on the PATH."""
    runtime = find_runtime()
    if runtime is None:
        raise BuildError(_MISSING_RUNTIME)
    _run_sam("build", first_on_path=runtime.parent)


def find_runtime(name: str = RUNTIME) -> Path | None:
    """A working interpreter of the functions' version, from the PATH or from pyenv; None without.

    It is tried out, since pyenv puts a python3.13 on the PATH that only says it is not selected.
    """
    candidates = [shutil.which(name)]
    if pyenv := shutil.which("pyenv"):
        prefix = subprocess.run(
            [pyenv, "prefix", name.removeprefix("python")],
            capture_output=True,
            text=True,
            check=False,
        )
        if prefix.returncode == 0:
            candidates.append(str(Path(prefix.stdout.strip()) / "bin" / name))
    for candidate in filter(None, candidates):
        works = subprocess.run(
            [candidate, "-m", "pip", "--version"], capture_output=True, check=False
        )
        if works.returncode == 0:
            return Path(candidate)
    return None


def _run_sam(*arguments: str, first_on_path: Path | None = None) -> None:
    environment = {
        # Neither command calls AWS, but both want to know a Region.
        "AWS_DEFAULT_REGION": "us-east-1",
        **os.environ,
        "SAM_CLI_TELEMETRY": "0",
    }
    if first_on_path is not None:
        environment["PATH"] = f"{first_on_path}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        [SAM, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise BuildError(result.stdout)


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise BuildError("\n".join(faults))


STEPS: Sequence[tuple[str, Callable[[], str | None]]] = (
    ("sam validate --lint", validate_template),
    ("lint of the transformed template", check_transformed_template),
    ("lint of the fleets' template", check_fleets_template),
    ("checkov", check_security),
    ("pip-audit", audit_layer),
    ("state machine", check_state_machines),
    ("workflows", check_shipped_workflows),
    ("sam build", build_application),
)


def main() -> int:
    """Run every step; stop at the first that fails."""
    for title, step in STEPS:
        started = time.monotonic()
        print(f"{title:<36}", end="", flush=True)
        try:
            note = step()
        except BuildError as error:
            print(f"failed\n\n{error}")
            return 1
        print(f"ok {time.monotonic() - started:6.1f} s  {note or ''}".rstrip())
    print("\nDeploy with: .venv-sam/bin/sam deploy --config-env dev")
    return 0


if __name__ == "__main__":
    sys.exit(main())
