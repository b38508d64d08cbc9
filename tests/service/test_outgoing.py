"""What leaves together, and that it leaves: in order, before the end of a connection, and never into a closed one."""

from __future__ import annotations

import asyncio

import pytest

from service.outgoing import BYTES_MAX, GatheringTransport, Outbox

pytestmark = pytest.mark.anyio


class Wire(asyncio.Transport):
    """Writes down what is sent."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.packets: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """A packet, which no closed wire takes."""
        if self.closed:
            raise RuntimeError("closed")
        self.packets.append(bytes(data))

    def close(self) -> None:
        """No more packets."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed


@pytest.fixture
def wires() -> tuple[Wire, Wire]:
    """Two connections."""
    return Wire(), Wire()


@pytest.fixture
def transports(wires: tuple[Wire, Wire]) -> tuple[GatheringTransport, GatheringTransport]:
    """Theirs, of one server."""
    outbox = Outbox()
    first, second = (GatheringTransport(wire, outbox) for wire in wires)
    return first, second


async def test_a_turn_is_one_packet_a_connection(
    wires: tuple[Wire, Wire], transports: tuple[GatheringTransport, GatheringTransport]
) -> None:
    """What is written in one turn of the loop leaves at its end, in its order, and the next turn's after it."""
    for turn in range(3):
        for part in (b"head ", b"", b"body"):
            for transport in transports:
                transport.write(part)
        assert [len(wire.packets) for wire in wires] == [turn, turn]
        await asyncio.sleep(0)
    assert [wire.packets for wire in wires] == [[b"head body"] * 3] * 2


async def test_much_leaves_at_once(
    wires: tuple[Wire, Wire], transports: tuple[GatheringTransport, GatheringTransport]
) -> None:
    """It does not gather without bound: whoever writes on hears of the transport when to pause."""
    for _ in range(3):
        transports[0].write(b"x" * BYTES_MAX)
    transports[0].write(b"end")
    await asyncio.sleep(0)
    assert b"".join(wires[0].packets) == b"x" * 3 * BYTES_MAX + b"end"
    assert [len(packet) for packet in wires[0].packets] == [2 * BYTES_MAX, BYTES_MAX + 3]


async def test_what_was_written_leaves_before_the_end(
    wires: tuple[Wire, Wire], transports: tuple[GatheringTransport, GatheringTransport]
) -> None:
    """To close a connection takes nothing back; one that the other side closed takes nothing along."""
    transports[0].write(b"last words")
    transports[0].close()
    assert wires[0].packets == [b"last words"]
    assert wires[0].closed
    for transport in transports:
        transport.write(b"too late")
    wires[0].close()
    await asyncio.sleep(0)
    assert (wires[0].packets, wires[1].packets) == ([b"last words"], [b"too late"])


async def test_in_all_else_it_is_the_transport(
    wires: tuple[Wire, Wire], transports: tuple[GatheringTransport, GatheringTransport]
) -> None:
    """Who asks for anything else is answered by the transport itself."""
    assert transports[0].get_extra_info("peername") == ("127.0.0.1", 1)
    assert transports[0].is_closing() is False
    wires[0].close()
    assert transports[0].is_closing() is True
