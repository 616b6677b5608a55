"""The tools of a Messages request: what the agent runs itself, what the provider would run, taking some away.

Anthropic's `bash`, `text_editor`, `memory`, `computer` and `browser` tools are defined by the provider and executed by
the agent: each use comes back as a `tool_use` block. So they are the agent's own tools (`local.bash`,
`local.computer.left_click`), and each use is judged with its arguments like any call. What is left is run by the
provider out of the gateway's sight, and is an action `provider.<tool>` that a rule must allow before the request goes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from gateway.core.canonical import JSON, refuse_alike_members
from gateway.core.errors import ClientError
from gateway.core.exchange import Path
from gateway.wire.shapes import list_at, object_at, wrong

PROVIDER_FIELDS = {
    "mcp_servers": "mcp",
    "container": "container",  # files and skills of earlier requests, perhaps another agent's
    "plugins": "plugins",  # OpenRouter
    "thread": "stored_context",  # a conversation that the provider holds: earlier turns nobody here has seen
}
"""Fields with which the provider itself runs or recalls something, and the name that policies know it by."""

_PROVIDER_KINDS = {"mcp_toolset": "mcp"}
_VERSION = re.compile(r"_[0-9]{8}$")
_CLIENT_TOOL = re.compile(r"(bash|text_editor|memory|computer)_[0-9]{8}")
_CLIENT_TOOLSET = re.compile(r"(computer|browser)_toolset_[0-9]{8}")


def strip_tools(raw: Mapping[str, JSON], names: Collection[str]) -> dict[str, JSON]:
    """A copy without these tools of the agent. Paths of parts below `tools` change: read the result again.

    A request that *forces* a removed tool, or any tool where none is left, cannot be served as asked: ClientError
    `tool_denied`. Where none would be left and the conversation has calls in it, the tools stay, because the API
    refuses such a conversation without them; each call is judged when the model proposes it.
    """
    tools = raw.get("tools")
    result = dict(raw)
    if not isinstance(tools, list):
        return result
    kept = [tool for tool in tools if _own_name(tool) not in names]
    choice = raw.get("tool_choice")
    if isinstance(choice, dict):
        forced = choice.get("type")
        if (forced == "tool" and choice.get("name") in names) or (forced == "any" and not kept):
            raise ClientError(
                "tool_denied",
                "the request forces a tool that this agent may not use; choose another tool or `auto`",
                status=403,
            )
    if kept:
        result["tools"] = kept
    elif tools and not _has_calls(raw):
        del result["tools"]
        result.pop("tool_choice", None)  # the API refuses it without tools
    return result


def offered(raw: Mapping[str, JSON]) -> Iterator[str]:
    """Names of the tools that the agent runs itself. A toolset has none: its members are judged when they are used."""
    value = raw.get("tools")
    for index, tool in enumerate(list_at(value, ("tools",)) if value is not None else ()):
        path: Path = ("tools", index)
        kind = _kind(object_at(tool, path), path)
        if kind == "custom" or _CLIENT_TOOL.fullmatch(kind):
            name = _own_name(tool)
            if not name:
                raise wrong((*path, "name"), "a name")
            yield name


def provider_tools(raw: Mapping[str, JSON]) -> tuple[str, ...]:
    """Names of what the provider would run by itself, each once: `web_search` for `web_search_20260318`."""
    names = [name for field, name in PROVIDER_FIELDS.items() if raw.get(field) is not None]
    tools = raw.get("tools")
    found = list(enumerate(tools if isinstance(tools, list) else ()))
    entries: list[tuple[Path, JSON]] = [(("tools", index), tool) for index, tool in found]
    entries.extend(_inline(raw.get("messages")))
    for path, tool in entries:
        kind = _kind(object_at(tool, path), path)
        if kind != "custom" and not _CLIENT_TOOL.fullmatch(kind) and not _CLIENT_TOOLSET.fullmatch(kind):
            names.append(_PROVIDER_KINDS.get(kind) or _VERSION.sub("", kind))
    return tuple(dict.fromkeys(names))


def _kind(tool: Mapping[str, JSON], path: Path) -> str:
    refuse_alike_members(tool, known=("type", "name"))
    kind = tool.get("type")
    if kind is None:
        return "custom"
    if not isinstance(kind, str) or not kind:
        raise wrong((*path, "type"), "a string")
    return kind


def _own_name(tool: JSON) -> str | None:
    """The name of a tool that the agent runs, None for one that the provider runs."""
    if not isinstance(tool, dict):
        return None
    kind, name = tool.get("type"), tool.get("name")
    own = kind in (None, "custom") or (isinstance(kind, str) and _CLIENT_TOOL.fullmatch(kind) is not None)
    return name if own and isinstance(name, str) else None


def _inline(messages: JSON) -> Iterator[tuple[Path, JSON]]:
    """Tools that are defined in the middle of a conversation (`tool_addition`, also within a compaction)."""
    stack: list[tuple[Path, JSON]] = [(("messages",), messages)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, dict):
            if node.get("type") == "tool_definition":
                yield (*path, "definition"), node.get("definition")
            elif node.get("type") != "tool_use":  # arguments are the tool's own matter
                stack.extend(((*path, key), value) for key, value in node.items())
        elif isinstance(node, list):
            stack.extend(((*path, index), value) for index, value in enumerate(node))


def _has_calls(raw: Mapping[str, JSON]) -> bool:
    messages = raw.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") in ("tool_use", "tool_result"):
                return True
    return False
