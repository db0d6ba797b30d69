"""Where the project's own files lie."""

from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
WORKFLOWS: Final = PROJECT / "workflows"
