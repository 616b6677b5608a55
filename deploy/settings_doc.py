"""Prints the table of docs/settings.md from gateway/settings.py: `python deploy/settings_doc.py --write` renews it."""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"


def table() -> str:
    """One row for each setting: variable, default, what it is for."""
    rows = ["| variable | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else f"`{field.default}`"
        rows.append(f"| `GATEWAY_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """The page with its table renewed."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(table())
