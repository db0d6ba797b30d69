"""The commands under ``ml-service workflows``."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from local.project import WORKFLOWS

app = typer.Typer(help="Look at workflows, check them, bring your own.", no_args_is_help=True)

WorkflowsOption = Annotated[
    Path, typer.Option("--workflows", help="Folder of the manifests and their graphs.")
]
GraphsOption = Annotated[
    Path | None,
    typer.Option("--graphs", metavar="DIR", help="Folder in which graphs are looked up first."),
]


@app.command("list")
def list_workflows(workflows: WorkflowsOption = WORKFLOWS) -> None:
    """List every workflow with its fleet, what asks for it, and what it takes."""
    from rich.table import Column, Table

    from local.terminal import open_terminal
    from ml_service.adapters.workflow_files import load_catalog

    names = (Column("workflow", no_wrap=True), "fleet", Column("asked for by", overflow="fold"))
    table = Table(*names, "inputs", "gives", "seconds")
    for workflow in load_catalog(workflows):
        asked_for_by = [*workflow.subjects, *workflow.prompt_files]
        table.add_row(
            workflow.workflow,
            workflow.fleet,
            "\n".join(asked_for_by),
            ", ".join(workflow.inputs),
            workflow.outputs.kind,
            f"{workflow.expected_seconds:g}",
        )
    open_terminal().print(table)


@app.command("render")
def render(
    message_file: Annotated[
        Path, typer.Argument(help="File with the body of a message; - is standard input.")
    ],
    graphs: GraphsOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The seed, in place of the message's or a random one.")
    ] = None,
    workflows: WorkflowsOption = WORKFLOWS,
) -> None:
    """Print the prompt of a message as it would be posted to ComfyUI."""
    from local.render_message import render_message

    try:
        text = (
            sys.stdin.read()
            if str(message_file) == "-"
            else message_file.read_text(encoding="utf-8")
        )
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(str(error), param_hint="MESSAGE_FILE") from None
    prompt = render_message(text, workflows, graphs=graphs, seed=seed)
    printed = json.dumps(prompt, indent=2, ensure_ascii=False)
    # Half an emoji, as a title cut short has it, has no bytes of its own; JSON's escape has.
    typer.echo(printed.encode(errors="backslashreplace"))


@app.command("check")
def check(
    graphs: GraphsOption = None,
    instance: Annotated[
        str | None,
        typer.Option(metavar="URL", help="ComfyUI server whose node classes must take the graphs."),
    ] = None,
    fleet: Annotated[str | None, typer.Option(help="Only this fleet's workflows.")] = None,
    workflows: WorkflowsOption = WORKFLOWS,
) -> None:
    """Check every manifest with its graph; exit with 1 if anything is wrong."""
    from local.check_workflows import check_workflows, fetch_definitions

    definitions = None if instance is None else fetch_definitions(instance)
    reports = check_workflows(workflows, graphs=graphs, definitions=definitions, fleet=fleet)
    for report in reports:
        if not report.faults:
            typer.echo(f"ok      {report.path}{_tell_unused(report.unused)}")
    wrong = [report for report in reports if report.faults]
    for report in wrong:
        for fault in report.faults:
            typer.echo(f"WRONG   {report.path}: {fault}")
    typer.echo(f"{len(reports) - len(wrong)} of {len(reports)} files are right.")
    raise typer.Exit(1 if wrong else 0)


@app.command("import")
def import_folder(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of graph files, named as the workflows.")
    ],
    workflows: WorkflowsOption = WORKFLOWS,
) -> None:
    """Put your own graphs into the place of the reference graphs; exit with 1 if one is refused."""
    from local.import_graphs import import_graphs

    report = import_graphs(folder, workflows)
    for file, place in report.imported:
        typer.echo(f"imported  {file.path} as {place}{_tell_unused(file.unused)}")
    for file in report.refused:
        for fault in file.faults:
            typer.echo(f"REFUSED   {file.path}: {fault}")
    if report.missing:
        typer.echo(f"No new graph for: {', '.join(report.missing)}.")
    if report.missing_warm_ups:
        typer.echo(f"No warm-up graph: {', '.join(report.missing_warm_ups)}.")
    typer.echo(f"{len(report.imported)} imported, {len(report.refused)} refused.")
    raise typer.Exit(1 if report.refused or not report.imported else 0)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of manifests, as it lies in workflows/schema."""
    from ml_service.domain.manifests import make_schema

    typer.echo(json.dumps(make_schema(), indent=2))


def _tell_unused(unused: Sequence[str]) -> str:
    return f" (does not take {', '.join(unused)})" if unused else ""
