"""Content made fit for storage: whatever the rules say, what is stored holds no finding.

JSON stays JSON: strings (keys too) and long numbers are masked in place and every other byte stays as it was, so that a
body in which nothing was found is stored unchanged.
"""

from __future__ import annotations

import hashlib
import re

import orjson

from gateway.core.exchange import Finding
from gateway.core.filtering import Edit, Masked, apply_edits
from gateway.filters.kinds import placeholder
from gateway.filters.scanner import Scanner

DEPTH_MAX = 3
"""JSON within a string within a string: tool arguments in a model's answer in a trace. Deeper is masked as text."""

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NUMBER = re.compile(r"[-+0-9.eE]*")
_NAME = re.compile(r'"([^"\\]{1,64})"\s*:\s*$')
"""The member that a string is the value of, looking back from the string. Names with escapes go without."""
_NAME_SPAN = 90


def mask_text(scanner: Scanner, text: str) -> str:
    """The text with a placeholder for every finding. Raises FilterError."""
    return apply_edits(text, _edits(scanner.scan(text)))


def mask_for_storage(scanner: Scanner, data: bytes) -> Masked:
    """A body, JSON or text, with a placeholder for every finding; bytes that are not UTF-8 give way to a note of their
    size and digest. Raises FilterError: then store nothing."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        digest = hashlib.sha256(data).hexdigest()
        return Masked(orjson.dumps({"not_text": {"bytes": len(data), "sha256": digest}}))
    masked = _mask(scanner, text, DEPTH_MAX)
    return Masked(data if masked is text else masked.encode())


def _edits(found: tuple[Finding, ...]) -> list[Edit]:
    return [Edit(finding.start, finding.end, placeholder(finding.kind)) for finding in found]


def _mask(scanner: Scanner, text: str, depth: int) -> str:
    """The masked text, the same object where nothing was found."""
    found = scanner.scan(text)
    if "\\" not in text and not found:
        return text  # without escapes a string is in the text as it is, between quotes: it was inspected just now
    edits = _edits(found)
    if depth and '"' in text:
        edits = _in_strings(scanner, text, edits, depth)
    if not edits:
        return text
    masked = apply_edits(text, edits)
    return masked if depth == 0 or not _is_json(text) or _is_json(masked) else '"<MASKED>"'


def _in_strings(scanner: Scanner, text: str, edits: list[Edit], depth: int) -> list[Edit]:
    """Edits of the text as a whole, those of strings with escapes replaced by edits of what the strings say."""
    result: list[Edit] = []
    rest = iter([*edits, None])
    edit = next(rest)
    is_json = bool(edits) and _is_json(text)
    for string in _STRING.finditer(text):
        start, end = string.span()
        while edit is not None and edit.start < start:
            result.append(_as_value(text, edit) if is_json else edit)
            edit = next(rest)
        inner: list[Edit] = []
        while edit is not None and edit.start < end:
            inner.append(edit)
            edit = next(rest)
        if "\\" in string[0]:
            inner = _decoded(scanner, text, string, depth) or inner
        result.extend(inner)
    while edit is not None:
        result.append(_as_value(text, edit) if is_json else edit)
        edit = next(rest)
    return result


def _decoded(scanner: Scanner, text: str, string: re.Match[str], depth: int) -> list[Edit]:
    """The edit of a string with escapes, by what it says and by the name it is given to."""
    try:
        value = orjson.loads(string[0])
    except orjson.JSONDecodeError:
        return []  # not a JSON string but quotes in prose
    masked = _mask(scanner, value, depth - 1)
    name = _NAME.search(text[max(0, string.start() - _NAME_SPAN) : string.start()])
    if masked is value and name is not None:
        assignment = f'{name[1]}="'
        masked = mask_text(scanner, assignment + value).removeprefix(assignment)
    return [Edit(string.start(), string.end(), orjson.dumps(masked).decode())] if masked != value else []


def _as_value(text: str, edit: Edit) -> Edit:
    """An edit of a bare number in JSON covers all of it and is quoted, so that the body stays JSON."""
    start = edit.start
    while start > 0 and text[start - 1] in "-+0123456789.eE":
        start -= 1
    end = _NUMBER.match(text, edit.end)
    return Edit(start, end.end() if end else edit.end, f'"{edit.replacement}"')


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
