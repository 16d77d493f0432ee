"""What a person watching sees: numbered steps, progress, tables."""

import sys
import time
from collections.abc import Sequence

_BAR = 30


class Console:
    """Steps with the time since the start. Progress is one moving line on a terminal, a line each tenth elsewhere."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._tenth: dict[str, int] = {}
        self._moving = False

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def step(self, text: str) -> None:
        """Something begins or happened."""
        self._line(f"[{self.elapsed_s:6.1f} s] {text}")

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        """How far a long part is."""
        share = min(1.0, done / total) if total else 1.0
        bar = "#" * round(share * _BAR)
        text = f"{label} [{bar:<{_BAR}}] {share:4.0%} {done:,}/{total:,} {note}"
        if sys.stdout.isatty():
            sys.stdout.write(f"\r\x1b[K  {text}")
            sys.stdout.flush()
            self._moving = True
        elif int(share * 10) != self._tenth.get(label):
            self._tenth[label] = int(share * 10)
            self._line(f"           {text}")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Columns, numbers to the right."""
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
        self._line("  " + "  ".join(f"{name:>{width}}" for name, width in zip(header, widths, strict=True)))
        for row in cells:
            self._line("  " + "  ".join(f"{value:>{width}}" for value, width in zip(row, widths, strict=True)))

    def verdict(self, violations: Sequence[str], what: str) -> None:
        """The last word: loud where something is wrong."""
        if not violations:
            self._line(f"OK: {what}")
            return
        self._line("!" * 78)
        for violation in violations[:40]:
            self._line(f"!! VIOLATION: {violation}")
        if len(violations) > 40:
            self._line(f"!! and {len(violations) - 40:,} more")
        self._line(f"!! FAILED: {what}")
        self._line("!" * 78)

    def _line(self, text: str) -> None:
        if self._moving:
            sys.stdout.write("\n")
            self._moving = False
        print(text, flush=True)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
