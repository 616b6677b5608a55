"""Writes what is generated from the tables of keys: the tables of docs/policy.md and policies/schema/*.json.

Run `python -m tests.policy_reference` after a change of the tables; a test fails while they are stale.
"""

from __future__ import annotations

import json
from pathlib import Path

from gateway.policy.policy_keys import FILES
from gateway.policy.reference import json_schema, markdown

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "policy.md"
BEGIN, END = (
    "<!-- generated from the tables that validate: python -m tests.policy_reference -->",
    "<!-- end of generated text -->",
)


def generated() -> dict[Path, str]:
    """Every generated file with the text that it should hold."""
    head, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    files = {DOCS: "\n".join((head + BEGIN, "", *markdown(), "", END)) + tail}
    for kind in FILES:
        files[ROOT / "policies" / "schema" / f"{kind}.json"] = json.dumps(json_schema(kind), indent=2) + "\n"
    return files


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
