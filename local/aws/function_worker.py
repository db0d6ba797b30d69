"""A function's process: ``python -m local.aws.function_worker PARENT_ID CLIENT HANDLER``.

CLIENT says who speaks to the Lambda Runtime API: ``awslambdaric``, which Lambda itself uses, or
``builtin``, for systems that awslambdaric has no wheel for.
"""

import sys

from local.aws.die_with_parent import die_with_parent


def run_worker(parent_id: int, client: str, handler: str) -> None:
    """Run the handler's invocations in this process until killed."""
    die_with_parent(parent_id)
    if client == "awslambdaric":
        from awslambdaric.__main__ import main as run_awslambdaric

        run_awslambdaric(["awslambdaric", handler])
    else:
        from local.aws.runtime_client import run_handler

        run_handler(handler)


if __name__ == "__main__":
    run_worker(int(sys.argv[1]), *sys.argv[2:])
