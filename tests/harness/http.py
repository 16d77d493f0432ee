"""The nodes' HTTP listener: readiness and metrics."""

import http.client


def get(address: tuple[str, int], path: str, limit_s: float = 1.0) -> tuple[int, str] | None:
    """Status and body, or None where nobody answers."""
    connection = http.client.HTTPConnection(*address, timeout=limit_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def is_ready(address: tuple[str, int]) -> bool:
    """Whether `/readyz` says 200."""
    answer = get(address, "/readyz")
    return answer is not None and answer[0] == 200


def metric(address: tuple[str, int], name: str) -> float | None:
    """The sum of a metric over its labels, or None where there is none."""
    answer = get(address, "/metrics")
    if answer is None or answer[0] != 200:
        return None
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in answer[1].splitlines()
        if line.startswith(name) and line[len(name) : len(name) + 1] in (" ", "{")
    ]
    return sum(values) if values else None


ACTIVE_CONTROLLER = "kafka_controller_kafkacontroller_activecontrollercount"
