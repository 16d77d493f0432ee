"""The `--target` of every script: what the cluster under test is made of."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from harness import containers
from harness.cluster import Cluster
from harness.kafka import KafkaNodes, kafka_home
from harness.ottla import OttlaProcesses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--target` and `--binary`."""
    parser.add_argument(
        "--target", choices=("processes", "compose", "kafka"), default="processes",
        help="ottla server processes (default), docker compose, or the Apache Kafka of KAFKA_HOME",
    )
    parser.add_argument(
        "--binary", type=Path, default=default_binary(), help="the ottla binary (default: %(default)s)"
    )


def default_binary() -> Path:
    """Where the build leaves it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", Path.home() / ".cache/ottla-target"))
    return Path(os.environ.get("OTTLA_BINARY", target / "release/ottla"))


def make(arguments: argparse.Namespace, extra: Mapping[str, str] | None = None) -> Cluster:
    """The cluster of three that the arguments ask for, not yet started. `extra`: server properties on top."""
    match arguments.target:
        case "kafka":
            home = kafka_home()
            if home is None:
                sys.exit("--target kafka: KAFKA_HOME is not set")
            return KafkaNodes(home, extra)
        case "compose":
            require_binary(arguments.binary)
            missing = containers.engine_missing()
            if missing:
                sys.exit(f"--target compose: {missing}")
            containers.build_image(arguments.binary)
            return containers.OttlaContainers()
        case _:
            require_binary(arguments.binary)
            return OttlaProcesses(arguments.binary, extra=extra)


def require_binary(binary: Path) -> None:
    """Ends with a hint where there is no binary."""
    if not binary.is_file():
        sys.exit(f"{binary} is missing: cargo build --release -p ottla, or give --binary")
