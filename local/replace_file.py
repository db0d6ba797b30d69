"""Writing a file in one step: who sees it, sees all of it."""

import tempfile
from pathlib import Path


def replace_file(path: Path, content: str) -> None:
    """Put a file in the place of one that may be there; raises OSError."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
    ) as file:
        file.write(content)
    Path(file.name).replace(path)
