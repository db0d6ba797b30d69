"""What of a request's headers may be logged."""

import re
from collections.abc import Mapping

_CREDENTIAL = re.compile(r"authorization|cookie|credential|key|password|secret|signature|token")
HIDDEN = "(hidden)"


def hide_credentials(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, without the values of those whose names sound like a credential."""
    return {
        name: HIDDEN if _CREDENTIAL.search(name.lower()) else value
        for name, value in headers.items()
    }
