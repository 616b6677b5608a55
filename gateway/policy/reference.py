"""The tables of keys as a JSON Schema for editors and as Markdown for docs/policy.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.policy.conditions import VARIABLES
from gateway.policy.policy_keys import FILES, OBLIGATION
from gateway.policy.shape import Key, ListOf, MapOf, Record, Shape, Tagged

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: str | None = None) -> dict[str, Any]:
    """The schema of one kind of file (`bundle`, `policy` or `tests`), or of all three as alternatives."""
    if kind is not None:
        record, pattern = FILES[kind]
        return {"$schema": DIALECT, "title": f"agent gateway: {pattern}", **record.schema()}
    alternatives = {name: {"title": pattern, **record.schema()} for name, (record, pattern) in FILES.items()}
    return {
        "$schema": DIALECT,
        "title": "agent gateway: files of a policy bundle",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in FILES],
        "$defs": alternatives,
    }


def records() -> Mapping[str, Record]:
    """Every record by its name, files first, each before what it holds."""
    found: dict[str, Record] = {}
    for record, _ in FILES.values():
        _collect(record, found)
    return found


def _collect(shape: Shape, found: dict[str, Record]) -> None:
    match shape:
        case Record() if shape.name not in found:
            found[shape.name] = shape
            for key in shape.keys.values():
                _collect(key.shape, found)
        case ListOf():
            _collect(shape.item, found)
        case MapOf():
            _collect(shape.value, found)
        case Tagged():
            for record in shape.records.values():
                _collect(record, found)


def markdown() -> Iterator[str]:
    """One table per record, then the variables of conditions. docs/policy.md holds this between two marks."""
    for name, record in records().items():
        yield f"### {name}"
        yield ""
        yield "| key | what it says | value | left out | example |"
        yield "| --- | --- | --- | --- | --- |"
        for key_name, key in record.keys.items():
            cells = (f"`{key_name}`", key.doc, _words(key), _absent(key), f"`{key_name}: {key.example}`")
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""
    yield "### variables of conditions"
    yield ""
    yield "| variable | type | meaning |"
    yield "| --- | --- | --- |"
    for variable, (kind, meaning) in VARIABLES.items():
        yield f"| `{variable}` | `{kind}` | {meaning} |"


def _words(key: Key) -> str:
    shape = key.shape
    match shape:
        case Record():
            return f"[{shape.name}](#{_anchor(shape.name)})"
        case ListOf(item=Record() as item):
            return f"list of [{item.name}](#{_anchor(item.name)})"
        case ListOf(item=Tagged()):
            return "list of " + " or ".join(f"[{r.name}](#{_anchor(r.name)})" for r in OBLIGATION.records.values())
        case MapOf(value=Record() as value):
            return f"names to [{value.name}](#{_anchor(value.name)})"
    return shape.words


def _anchor(name: str) -> str:
    return "".join(c for c in name.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _absent(key: Key) -> str:
    return "an error" if key.required else key.default or "nothing"
