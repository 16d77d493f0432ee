"""A few requests of Kafka's protocol by hand, for what a well-behaved client never does."""

import socket
import struct
from collections.abc import Iterable

from harness.topics import Partition

LIST_OFFSETS, METADATA, OFFSET_FETCH, FIND_COORDINATOR, CREATE_TOPICS = 2, 3, 9, 10, 19
_TOPIC_ALREADY_EXISTS = 36


class RawConnection:
    """One connection, one request at a time; the versions used here are those without tagged fields."""

    def __init__(self, address: tuple[str, int], limit_s: float = 5.0) -> None:
        self._socket = socket.create_connection(address, timeout=limit_s)
        self._correlation = 0

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def send(self, api: int, version: int, body: bytes) -> None:
        """Puts a request on the wire."""
        self._correlation += 1
        header = struct.pack(">hhi", api, version, self._correlation) + text("raw")
        self._socket.sendall(struct.pack(">i", len(header) + len(body)) + header + body)

    def receive(self, limit_s: float) -> bytes | None:
        """The answer without its header; None where the other side closes."""
        self._socket.settimeout(limit_s)
        head = self._exactly(4)
        answer = self._exactly(struct.unpack(">i", head)[0]) if head else None
        return answer[4:] if answer else None

    def _exactly(self, size: int) -> bytes | None:
        found = b""
        while len(found) < size:
            try:
                part = self._socket.recv(size - len(found))
            except ConnectionError:
                return None
            if not part:
                return None
            found += part
        return found


def text(value: str) -> bytes:
    """A string with a length of two bytes."""
    return struct.pack(">h", len(value)) + value.encode()


def find_coordinator(group: str) -> bytes:
    """Body of FindCoordinator version 1."""
    return text(group) + struct.pack(">b", 0)


def found_coordinator(answer: bytes) -> tuple[int, int]:
    """Error code and node of a FindCoordinator answer of version 1."""
    code, length = struct.unpack_from(">hh", answer, 4)
    (node,) = struct.unpack_from(">i", answer, 8 + max(0, length))
    return code, node


def offset_fetch(group: str, topic: str, partition: int) -> bytes:
    """Body of OffsetFetch version 5."""
    return text(group) + struct.pack(">i", 1) + text(topic) + struct.pack(">ii", 1, partition)


def list_offsets(topic: str, partition: int) -> bytes:
    """Body of ListOffsets version 2 for the end of one partition."""
    return struct.pack(">ibi", -1, 0, 1) + text(topic) + struct.pack(">iiq", 1, partition, -1)


def create_topics(topic: str, partitions: int, limit_ms: int) -> bytes:
    """Body of CreateTopics version 4 for one topic of replication factor 3."""
    return struct.pack(">i", 1) + text(topic) + struct.pack(">ihiiib", partitions, 3, 0, 0, limit_ms, 0)


class _Cursor:
    """Reads an answer from its start."""

    def __init__(self, answer: bytes) -> None:
        self._answer, self._at = answer, 0

    def take(self, layout: str) -> tuple[int, ...]:
        found = struct.unpack_from(f">{layout}", self._answer, self._at)
        self._at += struct.calcsize(f">{layout}")
        return found

    def text(self) -> str:
        (length,) = self.take("h")
        start, self._at = self._at, self._at + max(0, length)
        return self._answer[start : self._at].decode()

    def integers(self) -> tuple[int, ...]:
        (count,) = self.take("i")
        return self.take(f"{count}i")


def fetched_offset(answer: bytes) -> tuple[int, int]:
    """Error code and committed offset in an OffsetFetch answer of version 5 about at most one partition."""
    at = _Cursor(answer)
    _, topics = at.take("ii")
    code, offset = 0, -1
    for _ in range(topics):
        at.text(), at.take("ii")
        offset, _ = at.take("qi")
        at.text()
        (code,) = at.take("h")
    (whole,) = at.take("h")
    return whole or code, offset


def listed_offset(answer: bytes) -> tuple[int, int]:
    """Error code and end offset in a ListOffsets answer of version 2 about one partition."""
    at = _Cursor(answer)
    at.take("ii"), at.text(), at.take("i")
    _, code, _, offset = at.take("ihqq")
    return code, offset


def metadata(topic: str) -> bytes:
    """Body of Metadata version 4 for one topic, which is not created."""
    return struct.pack(">i", 1) + text(topic) + b"\0"


def described(answer: bytes) -> dict[int, Partition]:
    """The partitions in a Metadata answer of version 4 about one topic."""
    at = _Cursor(answer)
    _, brokers = at.take("ii")
    for _ in range(brokers):
        at.take("i"), at.text(), at.take("i"), at.text()
    at.text(), at.take("i")
    at.take("i"), at.take("h"), at.text(), at.take("b")
    (partitions,) = at.take("i")
    found = {}
    for _ in range(partitions):
        _, number, leader = at.take("hii")
        found[number] = Partition(leader, at.integers(), tuple(sorted(at.integers())))
    return found


def describe(addresses: Iterable[tuple[str, int]], topic: str) -> dict[int, Partition]:
    """What the first of these nodes that answers says of a topic; nothing where none does."""
    for address in addresses:
        try:
            with RawConnection(address, 1.0) as connection:
                connection.send(METADATA, 4, metadata(topic))
                answer = connection.receive(2.0)
        except OSError:
            continue
        if answer is not None:
            return described(answer)
    return {}


def create(address: tuple[str, int], topic: str, partitions: int, limit_s: float) -> str | None:
    """Asks one node for a topic; None where it is there now, else what was said."""
    try:
        with RawConnection(address, 1.0) as connection:
            connection.send(CREATE_TOPICS, 4, create_topics(topic, partitions, int(limit_s * 1000)))
            answer = connection.receive(limit_s + 1)
    except OSError as error:
        return str(error)
    if answer is None:
        return "the connection was closed"
    at = _Cursor(answer)
    at.take("ii"), at.text()
    (code,) = at.take("h")
    return None if code in (0, _TOPIC_ALREADY_EXISTS) else f"error {code}: {at.text()}"
