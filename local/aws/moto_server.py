"""Starts and stops the moto process, which answers the AWS API and interprets state machines."""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from local.aws.clients import AwsClients
from local.aws.errors import MotoError
from local.aws.virtual_clock import VirtualClock

# moto starts in 1 to 2 s; a loaded machine may take much longer.
_START_SECONDS: Final = 60
# The ready line lists some 150 resource types.
_LINE_LIMIT: Final = 1 << 20


class MotoServer:
    """One moto process on a port of its own, made by ``start``."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        clients: AwsClients,
        resource_types: frozenset[str],
    ) -> None:
        """Take the running process and the resource types that its CloudFormation can create."""
        self._process = process
        self.clients = clients
        self.resource_types = resource_types

    @classmethod
    async def start(
        cls, *, gateway: str, report_url: str, clock: VirtualClock, region: str, run_folder: Path
    ) -> "MotoServer":
        """Start moto and wait until it answers; raises MotoError.

        Tasks of executions go to the URL ``gateway``, reports of their ends to ``report_url``.
        moto's own output goes to moto.log in the run folder.
        """
        options = {
            "parent_id": os.getpid(),
            "gateway": gateway,
            "report_url": report_url,
            "clock": asdict(clock),
        }
        log_path = run_folder / "moto.log"
        with log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "local.aws.serve_moto",
                json.dumps(options),
                env=_environment(gateway, region, run_folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                limit=_LINE_LIMIT,
            )
        try:
            line = await _read_ready_line(process)
        except BaseException:
            await _kill(process)
            raise
        if not line:
            await _kill(process)
            raise MotoError(f"moto did not start: {_last_line(log_path)}")
        ready = json.loads(line)
        clients = AwsClients(f"http://127.0.0.1:{ready['port']}", region)
        return cls(process, clients, frozenset(ready["resource_types"]))

    async def stop(self) -> None:
        """Kill moto, which keeps nothing."""
        await _kill(self._process)


async def _read_ready_line(process: asyncio.subprocess.Process) -> bytes:
    """Wait for the line that moto prints when it answers; empty when it does not come."""
    if process.stdout is None:
        return b""
    try:
        return await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
    except TimeoutError:
        return b""


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


def _environment(gateway: str, region: str, run_folder: Path) -> dict[str, str]:
    # Clean, so that neither a proxy nor a profile of the user reaches the clients inside moto.
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "TZ": "UTC",  # moto compares a Wait state's timestamp with the local time.
        "TMPDIR": str(run_folder),
        "MOTO_PORT": gateway.rpartition(":")[2],
        "VALIDATE_LAMBDA_S3": "false",  # The functions' code stays in its folders.
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "(it is empty)"
