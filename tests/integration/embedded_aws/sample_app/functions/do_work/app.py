"""Works, or fails in the way that the order asks for."""

import os
import tempfile


class FlakyError(Exception):
    """When a second try may help."""


class HopelessError(Exception):
    """When no second try helps."""


def handler(event, context):
    attempts = count_attempt(event["name"])
    if event.get("hopeless"):
        raise HopelessError(f"order {event['name']} cannot be done")
    if attempts <= event.get("failures", 0):
        raise FlakyError(f"attempt {attempts} failed")
    return {"attempts": event.get("report", attempts), "rest_seconds": event.get("rest_seconds", 0)}


def count_attempt(name):
    # In a file, since each attempt may come to another process of this function.
    with open(os.path.join(tempfile.gettempdir(), name), "ab") as file:
        file.write(b".")
    return os.path.getsize(os.path.join(tempfile.gettempdir(), name))
