"""Read what people and programs post: forms and JSON objects with known fields, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from gateway.core.canonical import JSON, parse
from gateway.core.errors import ClientError

FIELDS_MAX = 20
COMMENT_CHARS_MAX = 2_000


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a plain form. The guard caps the size. Raises ClientError; repeated fields are refused, for the
    page shows one value and which of two would count is a guess."""
    if _media_type(request) != "application/x-www-form-urlencoded":
        raise ClientError("unsupported_media_type", "send a plain form", status=415)
    try:
        pairs = parse_qsl(
            (await request.body()).decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise ClientError("invalid_form", "the form cannot be read") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ClientError("invalid_form", "the form has a field twice")
    return fields


async def read_json(request: Request) -> Mapping[str, JSON]:
    """A JSON object. Raises ClientError."""
    if _media_type(request) != "application/json":
        raise ClientError("unsupported_media_type", "send `application/json`", status=415)
    value = parse(await request.body())
    if not isinstance(value, dict):
        raise ClientError("invalid_json", "the body must be a JSON object")
    return value


def comment_of(text: str, what: str = "comment") -> str:
    """A comment with uniform line ends. Raises ClientError when it is too long."""
    text = text.replace("\r\n", "\n").strip()
    if len(text) > COMMENT_CHARS_MAX:
        raise ClientError("comment_too_long", f"the {what} is longer than {COMMENT_CHARS_MAX} characters")
    return text


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
