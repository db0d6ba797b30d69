"""Draws docs/dashboard.png: the dashboard with what half an hour on this machine brings."""

from pathlib import Path

from local.dashboard.show_run import show_run

PICTURE = Path(__file__).parents[1] / "docs" / "dashboard.png"
_MINUTES = 36.0


if __name__ == "__main__":
    show_run(PICTURE, minutes=_MINUTES)
