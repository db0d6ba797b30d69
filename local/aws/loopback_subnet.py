"""Chooses the 127.0.N.0/24 subnet whose addresses the simulated instances get."""

import errno
import random
import socket
from typing import Final

from local.aws.errors import LoopbackAddressError

# What ComfyUI listens on, here as on real instances.
COMFYUI_PORT: Final = 8188
# moto gives out addresses from .4 on, as AWS does, so .3 is never an instance's.
_GUARD_HOST: Final = 3
_FIRST_INSTANCE_HOST: Final = 4
_SUBNETS: Final = range(1, 255)
_PROPOSED_SUBNET: Final = 77


class LoopbackSubnet:
    """One subnet, held against other local modes by a socket bound to an address in it."""

    def __init__(self, number: int, guard: socket.socket) -> None:
        """Take the N of 127.0.N.0/24 and the bound socket."""
        self.number = number
        self.cidr = f"127.0.{number}.0/24"
        self._guard = guard

    def release(self) -> None:
        """Let others choose this subnet."""
        self._guard.close()


def claim_subnet(chance: random.Random) -> LoopbackSubnet:
    """Find a subnet in which nobody uses ComfyUI's port.

    Raises LoopbackAddressError with what to do about it.
    """
    failures = set()
    for number in chance.sample(_SUBNETS, len(_SUBNETS)):
        try:
            _probe(f"127.0.{number}.{_FIRST_INSTANCE_HOST}")
            return LoopbackSubnet(number, _bind(f"127.0.{number}.{_GUARD_HOST}"))
        except OSError as error:
            failures.add(error.errno)
    if errno.EADDRNOTAVAIL in failures:
        raise LoopbackAddressError(
            "this system has no addresses 127.0.N.x for the simulated instances; give it some: "
            f"for i in $(seq {_GUARD_HOST} 40); do "
            f"sudo ifconfig lo0 alias 127.0.{_PROPOSED_SUBNET}.$i up; done"
        )
    raise LoopbackAddressError(
        f"port {COMFYUI_PORT} is in use on every address of this machine: stop the ComfyUI that "
        f"listens on 0.0.0.0:{COMFYUI_PORT}, or let it listen on 127.0.0.1 and give it to "
        f"--comfyui FLEET=127.0.0.1:{COMFYUI_PORT}"
    )


def _probe(address: str) -> None:
    _bind(address).close()


def _bind(address: str) -> socket.socket:
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.bind((address, COMFYUI_PORT))
        # Only a listening socket keeps off others that set SO_REUSEADDR.
        holder.listen(1)
    except OSError:
        holder.close()
        raise
    return holder
