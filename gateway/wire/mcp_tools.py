"""The members of MCP messages that are about tools: calls, results, lists, mirrored headers, tasks.

Pure. Results are built per era: 2026-07-28 wants a `resultType` in every result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from gateway.core.canonical import JSON, refuse_alike
from gateway.wire.mcp import (
    CAPABILITIES_KEY,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    MODERN_VERSION,
    TASKS_EXTENSION,
    Request,
    RpcError,
    decode_header,
    encode,
    encode_header,
    is_id,
)

TOOL_NAME_MAX = 256  # longer names are no tool of ours; keeps them out of logs and headers
TaskStatus = Literal["working", "completed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """The members of `tools/call` that are read. `arguments` is {} where the caller sent none."""

    name: str
    arguments: dict[str, JSON]
    progress_token: int | str | None


def tool_call(request: Request) -> ToolCall:
    """Raises RpcError -32602 for a name or arguments of the wrong shape, ClientError `alike_names`."""
    refuse_alike(request.params, known=("name", "arguments", "_meta", "task"))
    name = request.params.get("name")
    arguments = request.params.get("arguments")
    if not isinstance(name, str) or not 0 < len(name) <= TOOL_NAME_MAX:
        raise RpcError(INVALID_PARAMS, "`params.name` must be the name of a tool")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise RpcError(INVALID_PARAMS, "`params.arguments` must be an object")
    token = request.meta.get("progressToken")
    return ToolCall(
        name=name,
        arguments=arguments,
        progress_token=token if is_id(token) else None,
    )


def with_arguments(request: Request, arguments: Mapping[str, JSON]) -> bytes:
    """The request with other arguments; every other member as it came."""
    return encode({**request.raw, "params": {**request.params, "arguments": dict(arguments)}})


def call_result(content: list[JSON], *, is_error: bool, version: str) -> dict[str, JSON]:
    """A `CallToolResult` without structuredContent, which would have to match a schema that is not ours."""
    value: dict[str, JSON] = {"content": content, "isError": is_error}
    if version == MODERN_VERSION:
        value["resultType"] = "complete"
    return value


def text_result(text: str, *, is_error: bool, version: str) -> dict[str, JSON]:
    return call_result([{"type": "text", "text": text}], is_error=is_error, version=version)


def filter_tools(
    value: Mapping[str, Any], keep: Callable[[str], bool], *, extra: Mapping[str, JSON] | None, version: str
) -> dict[str, Any]:
    """A `tools/list` result with only the tools to keep, and `extra` at the end of the last page.

    A tool of the same name as `extra` is dropped: what the gateway serves itself must not be shadowed. A filtered list
    is for this agent alone, so 2026-07-28 gets `cacheScope: private`.
    """
    own = extra["name"] if extra else None
    tools = [
        tool
        for tool in value.get("tools", ())
        if isinstance(tool, dict) and isinstance(tool.get("name"), str) and tool["name"] != own and keep(tool["name"])
    ]
    if extra is not None and value.get("nextCursor") is None:
        tools.append(dict(extra))
    changed = {**value, "tools": tools}
    if version == MODERN_VERSION:
        changed["cacheScope"] = "private"
    return changed


def takes_tasks(request: Request) -> bool:
    """Whether this request opts in to the tasks extension: per request, never remembered (tasks, "Negotiation")."""
    capabilities = request.meta.get(CAPABILITIES_KEY)
    extensions = capabilities.get("extensions") if isinstance(capabilities, dict) else None
    return isinstance(extensions, dict) and isinstance(extensions.get(TASKS_EXTENSION), dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The task view of a held action. Times are unix seconds, durations milliseconds."""

    id: str
    status: TaskStatus
    message: str
    created_s: float
    updated_s: float
    ttl_ms: int
    poll_interval_ms: int = 2000  # a person decides: a shorter interval only costs


def task_result(task: Task, *, created: bool, final: Mapping[str, JSON] | None = None) -> dict[str, JSON]:
    """`CreateTaskResult` (`created`) or the result of `tasks/get` with the `final` result of a completed task."""
    value: dict[str, JSON] = {
        "resultType": "task" if created else "complete",
        "taskId": task.id,
        "status": task.status,
        "statusMessage": task.message,
        "createdAt": _iso(task.created_s),
        "lastUpdatedAt": _iso(task.updated_s),
        "ttlMs": task.ttl_ms,
        "pollIntervalMs": task.poll_interval_ms,
    }
    if final is not None:
        value["result"] = dict(final)
    return value


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def announce_tasks(value: Mapping[str, Any]) -> dict[str, Any]:
    """A `server/discover` result that also offers the tasks extension, which the gateway serves for held calls."""
    capabilities = value.get("capabilities")
    capabilities = dict(capabilities) if isinstance(capabilities, dict) else {}
    extensions = capabilities.get("extensions")
    capabilities["extensions"] = {**(extensions if isinstance(extensions, dict) else {}), TASKS_EXTENSION: {}}
    return {**value, "capabilities": capabilities}


def mirrored_headers(schema: object, arguments: Mapping[str, JSON]) -> dict[str, str]:
    """The `mcp-param-*` headers (lowercase names) that a 2026-07-28 call carries for properties with `x-mcp-header`."""
    headers: dict[str, str] = {}
    for path, token in _annotated(schema):
        value: object = arguments
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            headers[f"mcp-param-{token.lower()}"] = "true" if value else "false"
        elif isinstance(value, str | int):
            headers[f"mcp-param-{token.lower()}"] = encode_header(str(value))
    return headers


def check_mirrored(sent: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raises RpcError -32020 where a mirrored header that the caller sent does not say what the arguments say."""
    for name, value in sent.items():
        if name in expected and decode_header(value) != decode_header(expected[name]):
            raise RpcError(HEADER_MISMATCH, f"the `{name}` header does not match the arguments")


def _annotated(schema: object) -> Iterator[tuple[tuple[str, ...], str]]:
    """Properties with `x-mcp-header`, reached through `properties` alone (2026-07-28 transports, "Custom Headers")."""
    stack: list[tuple[tuple[str, ...], object]] = [((), schema)]
    while stack:
        path, node = stack.pop()
        properties = node.get("properties") if isinstance(node, dict) else None
        if not isinstance(properties, dict) or len(path) > 16:  # deeper than any schema people write
            continue
        for name, child in properties.items():
            token = child.get("x-mcp-header") if isinstance(child, dict) else None
            if isinstance(token, str) and token and token.isascii() and token.replace("-", "").isalnum():
                yield (*path, name), token
            stack.append(((*path, name), child))
