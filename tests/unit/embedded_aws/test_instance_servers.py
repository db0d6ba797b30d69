"""What stands behind an instance's address: a free subnet, a way to a real server."""

import asyncio
import errno
import random
import socket
import sys
from pathlib import Path

import pytest

from local.aws import loopback_subnet
from local.aws.errors import LoopbackAddressError
from local.aws.loopback_subnet import COMFYUI_PORT, claim_subnet
from local.aws.tcp_proxy import TcpProxy
from local.comfyui.simulator_settings import SimulatorSettings
from local.local_mode import LocalOptions, RealServers, SimulatedServers, run_local

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux answers all of 127.0.0.0/8"
)


@linux_only
def test_two_claims_never_get_the_same_subnet() -> None:
    first, second = claim_subnet(random.Random(1)), claim_subnet(random.Random(1))
    try:
        assert first.number != second.number
        assert first.cidr == f"127.0.{first.number}.0/24"
    finally:
        first.release()
        second.release()


@linux_only
def test_a_released_subnet_can_be_claimed_again() -> None:
    first = claim_subnet(random.Random(2))
    first.release()
    second = claim_subnet(random.Random(2))
    second.release()
    assert first.number == second.number


@linux_only
def test_a_subnet_whose_first_address_is_in_use_is_left_alone() -> None:
    wanted = claim_subnet(random.Random(3))
    wanted.release()
    with socket.socket() as other:
        other.bind((f"127.0.{wanted.number}.4", COMFYUI_PORT))
        other.listen(1)
        claimed = claim_subnet(random.Random(3))
        claimed.release()
    assert claimed.number != wanted.number


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EADDRNOTAVAIL, "ifconfig lo0 alias"), (errno.EADDRINUSE, r"0\.0\.0\.0:8188")],
)
def test_a_system_without_free_addresses_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(address: str) -> socket.socket:
        raise OSError(number, f"cannot bind {address}")

    monkeypatch.setattr(loopback_subnet, "_bind", refuse)
    with pytest.raises(LoopbackAddressError, match=words):
        claim_subnet(random.Random())


def test_a_proxy_passes_bytes_both_ways_and_stops() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    async def run() -> tuple[bytes, bytes, bytes]:
        real = await asyncio.start_server(echo, "127.0.0.1", 0)
        proxy = TcpProxy("127.0.0.1", real.sockets[0].getsockname()[1])
        port = _free_port()
        await proxy.start("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        first = await reader.readline()
        writer.write(b"again\n")
        writer.write_eof()
        second = await reader.read()
        _, open_writer = pair = await asyncio.open_connection("127.0.0.1", port)
        open_writer.write(b"still open\n")
        await pair[0].readline()
        await proxy.stop()
        cut = await pair[0].read()
        real.close()
        return first, second, cut

    assert asyncio.run(run()) == (b"HELLO\n", b"AGAIN\n", b"")


def test_a_proxy_to_a_server_that_is_down_closes_the_connection() -> None:
    async def run(closed_port: int) -> bytes:
        proxy = TcpProxy("127.0.0.1", closed_port)
        port = _free_port()
        await proxy.start("127.0.0.1", port)
        reader, _ = await asyncio.open_connection("127.0.0.1", port)
        answer = await reader.read()
        await proxy.stop()
        return answer

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # Bound, but nobody listens.
        assert asyncio.run(run(closed.getsockname()[1])) == b""


def test_each_real_server_stands_behind_one_instance_at_a_time() -> None:
    servers = RealServers(["10.0.0.1:8188", "10.0.0.2:8189"])
    assert servers.boot_seconds == 0
    first, second = servers.take_server("i-1"), servers.take_server("i-2")
    assert isinstance(first, TcpProxy)
    assert isinstance(second, TcpProxy)
    assert (first.target, second.target) == (("10.0.0.1", 8188), ("10.0.0.2", 8189))
    servers.give_back("i-1")
    third = servers.take_server("i-3")
    assert isinstance(third, TcpProxy)
    assert third.target == ("10.0.0.1", 8188)


def test_simulated_servers_have_a_folder_each(tmp_path: Path) -> None:
    servers = SimulatedServers(tmp_path, boot_seconds=240, settings=SimulatorSettings())
    assert servers.boot_seconds == 240
    assert servers.take_server("i-1") is not servers.take_server("i-2")


def test_a_port_in_use_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        assert run_local(LocalOptions(port=port)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"ml-service local: port {port} is in use: stop what listens there, "
        "or choose another --port\n"
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
