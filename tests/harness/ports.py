"""Free port numbers on loopback."""

import os
import socket

_FIRST, _LAST = 20_000, 31_000


def free_block(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on.

    They lie below the range the kernel takes for outgoing connections: the port of a node that is down must not be
    taken by a client's connection before the node is back.
    """
    first = _FIRST + os.getpid() * 64 % (_LAST - _FIRST)
    for _ in range(_FIRST, _LAST, count):
        if first + count > _LAST:
            first = _FIRST
        if all(_is_free(port) for port in range(first, first + count)):
            return first
        first += count
    raise RuntimeError(f"no {count} free ports in a row between {_FIRST} and {_LAST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
