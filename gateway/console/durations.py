"""Times as people say them. Pure: the clock is passed in."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = (("day", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def span(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 5 min`, `2 days`: two units at most, and the second only where it matters."""
    left = max(int(seconds), 0)
    for at, (unit, size) in enumerate(_UNITS):
        if left >= size or size == 1:
            count, rest = divmod(left, size)
            text = f"{count} {unit}{'s' if unit == 'day' and count != 1 else ''}"
            if unit in ("day", "h") and count < 10:
                lower, lower_size = _UNITS[at + 1]
                if rest // lower_size:
                    text += f" {rest // lower_size} {lower}"
            return text
    raise AssertionError


def fine_span(nanoseconds: int) -> str:
    """Durations of calls: `0.4 ms`, `12 ms`, `1.25 s`, and from two minutes on as `span`."""
    ms = nanoseconds / 1e6
    if 0 < ms < 0.1:
        return "<0.1 ms"
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.2f} s" if ms < 120_000 else span(ms / 1000)


def moment(at_s: float) -> str:
    """`2026-11-23 06:20:05 UTC`."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at_s: float) -> str:
    """RFC 3339, for machines."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
