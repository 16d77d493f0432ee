"""The attacker, a process of its own: `python -m faults.hostile_client ATTACK HOST:PORT...`. Says what it did."""

import itertools
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

Address = tuple[str, int]
#: HTTP/2's first words, so that what follows reaches the gRPC layer.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_SEED = 20_240_607


def main() -> None:
    attack = ATTACKS[sys.argv[1]]
    targets = [(host, int(port)) for host, _, port in (word.partition(":") for word in sys.argv[2:])]
    print(attack(targets))


def _random_bytes(targets: list[Address]) -> str:
    """Noise, plain and behind beginnings that a server takes seriously."""
    noise = random.Random(_SEED)
    sent = 0
    beginnings = (b"", _PREFACE, _PREFACE + _SETTINGS, b"GET /metrics HTTP/1.1\r\n", struct.pack(">i", 64))
    for target, start, _ in itertools.product(targets, beginnings, range(6)):
        sent += _send_and_close(target, start + noise.randbytes(noise.choice((1, 40, 400, 40_000))))
    return f"{sent} connections"


def _absurd_lengths(targets: list[Address]) -> str:
    """Frames and fields that claim to be huge, negative or empty."""
    sent = 0
    sizes = (-1, -(2**31), 0, 1, 3, 2**31 - 1, 100 << 20, (100 << 20) + 1)
    frames = [struct.pack(">i", size) + b"\0\3\0\4\0\0\0\1\0\1x" for size in sizes]
    # Well framed, absurd within: arrays of two thousand million, strings of 32 KiB in a frame of 30 bytes.
    header = struct.pack(">hhi", 3, 4, 1) + struct.pack(">h", 3) + b"raw"
    for body in (
        struct.pack(">i", 2**31 - 1), struct.pack(">i", -2), struct.pack(">ih", 1, 32767), b"\xff" * 12, b"",
    ):
        frames.append(struct.pack(">i", len(header) + len(body)) + header + body)
    for api, version in itertools.product((0, 1, 2, 18, 19, 36, 57, 1000, -1), (-1, 0, 3, 9, 12, 99)):
        frames.append(struct.pack(">ihhi", 40, api, version, 1) + b"\xff" * 32)
    # HTTP/2 frames of 16 MiB on a stream that is not open.
    frames += [_PREFACE + _SETTINGS + b"\xff\xff\xff" + bytes([kind]) + b"\0\0\0\0\1" for kind in range(10)]
    for target, frame in itertools.product(targets, frames):
        sent += _send_and_close(target, frame, wait_s=0.002)
    return f"{sent} frames"


def _half_frames(targets: list[Address]) -> str:
    """Frames of 100 MiB that were promised and begun: what was claimed must not be allocated."""
    with ExitStack() as stack:
        open_connections = 0
        for target, _ in itertools.product(targets, range(10)):
            connection = stack.enter_context(socket.create_connection(target, timeout=5))
            connection.sendall(struct.pack(">i", 99 << 20) + b"\0\0\0\t\0\0\0\1\0\1x" + b"\0" * 1000)
            open_connections += 1
        time.sleep(1.5)
    return f"{open_connections} frames of 99 MiB begun, {open_connections * 99:,} MiB claimed"


def _slowloris(targets: list[Address]) -> str:
    """One byte each tenth of a second."""
    text = struct.pack(">i", 1000) + b"GET / HTTP/1.1\r\nX: " * 40
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(target, timeout=5)) for target in targets for _ in range(8)
        ]
        for position in range(30):
            for connection in connections:
                _try_send(connection, text[position : position + 1])
            time.sleep(0.1)
    return f"{len(connections)} connections, 30 bytes each in 3 s"


def _many_connections(targets: list[Address]) -> str:
    """500 connections to each Kafka port and some to each other port, all open at once, silent."""
    with ExitStack() as stack:
        connecting = []
        for number, target in enumerate(targets):
            # The last of each four is HTTP's, where what is over its places and its backlog waits for seconds.
            for _ in range((500, 100, 100, 40)[number % 4]):
                connection = stack.enter_context(socket.socket())
                connection.setblocking(False)
                connection.connect_ex(target)
                connecting.append(connection)
        poller = select.poll()
        for connection in connecting:
            poller.register(connection, select.POLLOUT)
        end, opened = time.monotonic() + 10, 0
        while opened < len(connecting) and time.monotonic() < end:
            for number, _ in poller.poll(100):
                poller.unregister(number)
                opened += 1
        time.sleep(0.5)
    return f"{opened} of {len(connecting)} connections at once"


def _never_reads(targets: list[Address]) -> str:
    """Requests by the hundred whose answers nobody takes."""
    frame = _metadata_of_everything()
    asked = 0
    with ExitStack() as stack:
        connections = []
        for target, _ in itertools.product(targets[::4], range(20)):
            connection = socket.socket()
            stack.enter_context(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(target)
            connection.setblocking(False)
            connections.append(connection)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            writable = select.select([], connections, [], 0.1)[1]
            asked += sum(_try_send(connection, frame) for connection in writable)
    return f"{asked:,} requests on {len(connections)} connections"


def _metadata_of_everything() -> bytes:
    body = struct.pack(">hhi", 3, 4, 1) + struct.pack(">h", 3) + b"raw" + struct.pack(">ib", -1, 0)
    return struct.pack(">i", len(body)) + body


def _send_and_close(target: Address, content: bytes, wait_s: float = 0.0) -> int:
    with socket.create_connection(target, timeout=5) as connection:
        _try_send(connection, content)
        if wait_s:
            select.select([connection], [], [], wait_s)
    return 1


def _try_send(connection: socket.socket, content: bytes) -> int:
    """1 where it was taken; the other side may have closed, or take no more."""
    try:
        connection.send(content)
    except OSError:
        return 0
    return 1


def _named() -> Iterator[tuple[str, Callable[[list[Address]], str]]]:
    for attack in (_random_bytes, _absurd_lengths, _half_frames, _slowloris, _never_reads, _many_connections):
        yield attack.__name__[1:].replace("_", "-"), attack


ATTACKS = dict(_named())


if __name__ == "__main__":
    main()
