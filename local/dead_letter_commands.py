"""The commands of ``ml-service dlq``: messages that a queue gave up."""

import sys
from typing import Annotated

import typer

from local.target_options import EndpointOption, ReadyFileOption, StageOption

app = typer.Typer(help="Look at, redrive or drop messages that a queue gave up.")

QueueOption = Annotated[
    str | None, typer.Option(help="Only this queue's: input, or a fleet's name.  [default: all]")
]
MessagesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[MESSAGE_ID]...", help="As dlq list shows them.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every message, instead of ids.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_messages(
    queue: QueueOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Most messages to list.")] = 100,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """List the messages, with what their jobs' records say; none is taken."""
    from local.find_backend import Target
    from local.triage import run_list

    run_list(Target(ready_file, endpoint, stage), queue, limit=limit)


@app.command("show")
def show_message(
    message_id: Annotated[str, typer.Argument(help="As dlq list shows it.")],
    body: Annotated[
        bool, typer.Option("--body", help="Also what was sent: prompts, names of pictures.")
    ] = False,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """Print a message as JSON: why it is here, how its job stands, what a redrive would do."""
    from local.find_backend import Target
    from local.triage import run_show

    run_show(Target(ready_file, endpoint, stage), message_id, with_body=body)


@app.command("redrive")
def redrive_messages(
    message_ids: MessagesArgument = None,
    every: AllOption = False,
    queue: QueueOption = None,
    yes: YesOption = False,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """Let jobs go on or run again; one that has succeeded is not run again."""
    from local.find_backend import Target
    from local.triage import run_redrive

    ids = _choose(message_ids, every)
    target = Target(ready_file, endpoint, stage)
    _confirm("Redrive", ids, queue, yes=yes)
    raise typer.Exit(run_redrive(target, queue, ids))


@app.command("drop")
def drop_messages(
    message_ids: MessagesArgument = None,
    every: AllOption = False,
    queue: QueueOption = None,
    yes: YesOption = False,
    ready_file: ReadyFileOption = None,
    endpoint: EndpointOption = None,
    stage: StageOption = None,
) -> None:
    """Delete messages for good; jobs that still wait for them are cancelled and answered."""
    from local.find_backend import Target
    from local.triage import run_drop

    ids = _choose(message_ids, every)
    target = Target(ready_file, endpoint, stage)
    _confirm("Drop for good", ids, queue, yes=yes)
    raise typer.Exit(run_drop(target, queue, ids))


def _choose(message_ids: list[str] | None, every: bool) -> frozenset[str] | None:
    """Give the ids that are meant, None for all."""
    if every == bool(message_ids):
        raise typer.BadParameter("name messages, or say --all", param_hint="MESSAGE_ID")
    return frozenset(message_ids) if message_ids else None


def _confirm(verb: str, ids: frozenset[str] | None, queue: str | None, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("is needed where nobody can be asked", param_hint="--yes")
    what = "every message" if ids is None else f"{len(ids)} message(s)"
    where = "every dead-letter queue" if queue is None else f"the dead-letter queue of {queue}"
    typer.confirm(f"{verb} {what} of {where}?", abort=True)
