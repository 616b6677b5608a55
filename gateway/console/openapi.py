"""The OpenAPI document, made from the same table as the routes, so that the two cannot drift apart."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.console.schemas import SCHEMAS, Schema

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A word of the query."""

    name: str
    description: str
    schema: Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row of the API: where, what it does, what goes in and out. `body` and `answer` name schemas."""

    method: str
    path: str
    id: str
    summary: str
    handler: Handler
    answer: str
    body: str | None = None
    query: tuple[Parameter, ...] = ()
    refusals: tuple[int, ...] = ()


def document(operations: Sequence[Operation], *, url: str, version: str) -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gateway console",
            "version": version,
            "description": "Held actions and runs, for people and their programs. Agent keys are refused.",
        },
        "servers": [{"url": url}],
        "security": [{"approver": []}],
        "paths": paths,
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {
                "approver": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An approver token, made with `gateway approvers create NAME`.",
                }
            },
        },
    }


def _described(operation: Operation) -> Mapping[str, Any]:
    parts = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    query = [
        {"name": one.name, "in": "query", "required": False, "description": one.description, "schema": one.schema}
        for one in operation.query
    ]
    refused = {"description": "Refused.", "content": _content("Error")}
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parts + query,
        "responses": {
            "200": {"description": "Done.", "content": _content(operation.answer)},
            **{str(status): refused for status in (401, *operation.refusals, 429, 503)},
        },
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    return described


def _content(name: str) -> Mapping[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
