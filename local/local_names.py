"""The names that local mode gives to what a deployed stage's backend brings along itself."""

from typing import Final

INPUT_BUCKET: Final = "local-ml-service-input"
REPLY_QUEUE: Final = "local-ml-service-replies"
