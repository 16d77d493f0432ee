"""Runs the compatibility cases: `tests/python.sh -m compat --target kafka`."""

import argparse
import logging
import sys
import time
import traceback

from compat import aiokafka_client, java_tools, kafka_python, kcat, librdkafka, on_disk
from compat.cases import CASES, Case, Skipped, World
from harness import target
from harness.cluster import Violation
from harness.kafka import kafka_home

#: In this order; importing registers the cases.
MODULES = (librdkafka, kafka_python, aiokafka_client, kcat, java_tools, on_disk)


def main() -> int:
    parser = argparse.ArgumentParser(prog="compat", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if arguments.only in case.name]
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # It reports each retry.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    cluster = target.make(arguments, extra={"group.initial.rebalance.delay.ms": "0"})
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    try:
        with cluster:
            print(f"{len(chosen)} cases on {cluster.name}", flush=True)
            world = World(cluster, kafka_home())
            for case in chosen:
                counts[_run(case, world)] += 1
            if counts["failed"]:
                raise Violation  # The nodes' logs are shown.
    except Violation:
        pass
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts), flush=True)
    return 1 if counts["failed"] or not counts["passed"] else 0


def _run(case: Case, world: World) -> str:
    began = time.monotonic()
    try:
        case.run(world)
    except Skipped as reason:
        print(f"SKIP {case.name}: {reason}", flush=True)
        return "skipped"
    except Exception:  # A case may fail in any way; the others still run.
        print(f"FAIL {case.name} ({time.monotonic() - began:.1f} s)", flush=True)
        traceback.print_exc(file=sys.stdout)
        return "failed"
    print(f"PASS {case.name} ({time.monotonic() - began:.1f} s)", flush=True)
    return "passed"


if __name__ == "__main__":
    sys.exit(main())
