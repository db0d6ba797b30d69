"""The options by which a command is told which stage it works against."""

from pathlib import Path
from typing import Annotated

import typer

ReadyFileOption = Annotated[
    Path | None, typer.Option(help="Ready file of the local mode to work against.")
]
EndpointOption = Annotated[
    str | None, typer.Option(help="URL of local mode.  [default: http://127.0.0.1:4566]")
]
StageOption = Annotated[
    str | None,
    typer.Option(help="dev or prod; without an endpoint, the stage deployed in your AWS account."),
]
