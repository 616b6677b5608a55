"""The documentation and the schema for editors say what the loader does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateway.policy.policy_keys import FILES
from gateway.policy.problems import Problems
from gateway.policy.reference import json_schema, records
from gateway.policy.shape import Page, Record, plain
from gateway.policy.source import parse
from tests.policy_reference import DOCS, ROOT, generated

YAML_FILES = sorted((ROOT / "policies").rglob("*.yaml"))


def read(record: Record, text: str) -> tuple[str, ...]:
    """The problems of a text read as that record, without those between files."""
    source = parse("file.yaml", text.encode())
    problems = Problems()
    problems.extend(source.problems)
    if source.root is not None:
        record.read(source.root, Page(source.lines, problems, {}, lenient=True))
    return problems.lines()


def test_generated_files_are_not_stale() -> None:
    stale = [path.name for path, text in generated().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python -m tests.policy_reference"


def test_every_key_is_documented_with_an_example_that_is_valid() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for record in records().values():
        assert f"### {record.name}\n" in text
        for name, key in record.keys.items():
            assert f"| `{name}` | {key.doc.replace('|', chr(92) + '|')} |" in text
            assert read(Record("example", {name: key}), f"{name}: {key.example}\n") == (), (record.name, name)
            jsonschema_rs.validate(key.shape.schema(), plain(parse("e", key.example.encode()).root))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_schema_accepts_the_files_that_ship_and_their_first_line_leads_to_it(path: Path) -> None:
    kind = {"policies": "policy", "tests": "tests"}.get(path.parent.name, "bundle")
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve()
    assert named == ROOT / "policies" / "schema" / f"{kind}.json"
    value = plain(parse(str(path), path.read_bytes()).root)
    jsonschema_rs.validate(json_schema(kind), value)
    jsonschema_rs.validate(json_schema(), value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("policy", "applies_to: {agents: ['*']}\ndefualt: deny\n"),
        ("policy", "default: deny\n"),
        ("policy", "applies_to: {agents: []}\n"),
        ("policy", "applies_to: {agents: ['*']}\nrules: [{id: a, tools: [transfer], effect: allow, reason: r}]\n"),
        ("policy", "applies_to: {agents: ['*']}\nrules: [{id: A, tools: [a.b], effect: allow, reason: r}]\n"),
        ("policy", "applies_to: {agents: ['*']}\nrules: [{id: a, tools: [a.b], effect: alow, reason: r}]\n"),
        ("policy", "applies_to: {agents: ['*']}\napproval: {quorum: 0}\n"),
        ("policy", "applies_to: {agents: ['*']}\napproval: {expires: 30}\n"),
        ("bundle", "agents: {bob: {group: [a]}}\n"),
        ("bundle", "agents: {bob: {}}\nservers: {A: {url: 'http://h'}}\n"),
        ("bundle", "agents: {bob: {}}\nservers: {a: {url: 'ftp://h'}}\n"),
        ("tests", "cases: [{name: a, agent: b, expect: maybe}]\n"),
    ],
)
def test_schema_refuses_what_the_loader_refuses(kind: str, text: str) -> None:
    assert read(FILES[kind][0], text) != ()
    value: Any = plain(parse("file.yaml", text.encode()).root)
    assert not jsonschema_rs.is_valid(json_schema(kind), value)


def test_schemas_are_valid_schemas() -> None:
    for schema in (json_schema(), *(json_schema(kind) for kind in FILES)):
        jsonschema_rs.meta.validate(schema)
