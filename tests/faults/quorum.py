"""Who votes among the controllers: DescribeQuorum, whose every version has tagged fields and short lengths."""

import base64
import struct
import uuid
from pathlib import Path

from faults.raw import RawConnection

_DESCRIBE_QUORUM, _VERSION = 55, 2
_TOPIC = b"__cluster_metadata"
_NO_TAGS = b"\0"


def voters(address: tuple[str, int]) -> dict[int, uuid.UUID]:
    """The directory id under which each voter votes, as this node hears it; nothing where it cannot say."""
    # Lengths and counts are one more than they say, in one byte as long as they are small.
    topic = bytes([len(_TOPIC) + 1]) + _TOPIC + b"\2" + struct.pack(">i", 0) + _NO_TAGS + _NO_TAGS
    try:
        with RawConnection(address, 1.0) as connection:
            connection.send(_DESCRIBE_QUORUM, _VERSION, _NO_TAGS + b"\2" + topic + _NO_TAGS)
            answer = connection.receive(5)
    except OSError:
        return {}
    return _voters(answer) if answer else {}


def directory_id(data: Path) -> uuid.UUID:
    """The id of a directory, as its meta.properties has it."""
    for line in (data / "meta.properties").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "directory.id":
            return uuid.UUID(bytes=base64.urlsafe_b64decode(value + "=="))
    raise ValueError(f"no directory.id in {data}")


def _voters(answer: bytes) -> dict[int, uuid.UUID]:
    at = 1  # After the header's tags.
    (code,) = struct.unpack_from(">h", answer, at)
    at = _skip_text(answer, at + 2)
    if code != 0:
        return {}
    at = _skip_text(answer, at + 1) + 1  # One topic, its name; one partition.
    (code,) = struct.unpack_from(">4xh", answer, at)
    at = _skip_text(answer, at + 6) + 16  # Leader, epoch, high watermark.
    found = {}
    for _ in range(answer[at] - 1 if code == 0 else 0):
        node, directory = struct.unpack_from(">i16s", answer, at + 1)
        found[node] = uuid.UUID(bytes=directory)
        at += 4 + 16 + 3 * 8 + 1
    return found


def _skip_text(answer: bytes, at: int) -> int:
    return at + max(1, answer[at])
