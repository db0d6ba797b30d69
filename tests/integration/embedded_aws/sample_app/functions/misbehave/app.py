"""Does to its runtime whatever the event asks for."""

import decimal
import os
import subprocess
import sys
import time

sys.stdout.write(f"loaded by process {os.getpid()}\n")
sys.stdout.flush()


class OddError(Exception):
    """When the event asks for an error."""


def handler(event, context):
    if "requestPayload" in event:
        sys.stdout.write(f"told of {event['requestPayload']}\n")
        sys.stdout.flush()
    match event.get("do"):
        case "raise":
            raise OddError("as asked")
        case "hang":
            # A child of the handler has to die with it.
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            with open(event["file"], "w") as file:
                file.write(str(child.pid))
            time.sleep(60)
        case "sleep":
            time.sleep(event["seconds"])
        case "exit":
            os._exit(3)
        case "unserializable":
            return {"value": object()}
        case "large":
            return "x" * (7 * 1024 * 1024)
        case "environment":
            return dict(os.environ)
        case "context":
            return {
                "request_id": context.aws_request_id,
                "arn": context.invoked_function_arn,
                "name": context.function_name,
                "memory": context.memory_limit_in_mb,
                "remaining_ms": context.get_remaining_time_in_millis(),
                "decimal": decimal.Decimal("1.5"),
                "process_id": os.getpid(),
            }
    return event
