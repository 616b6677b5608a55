"""The tools of a Responses request: what the agent offers, what the provider would run, taking some away."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import cast

from gateway.core.canonical import JSON
from gateway.core.errors import ClientError
from gateway.core.exchange import Path
from gateway.wire.openai_chat_tools import PROVIDER_FIELDS
from gateway.wire.shapes import list_at, object_at, wrong

_OWN = ("function", "custom")  # tools that the agent runs and whose names it chose
_SPACE = "namespace"
_DATED = re.compile(r"(_preview)?(_\d{4}_\d{2}_\d{2})?")
_SAME = {"computer": "computer_use"}


def offered(raw: Mapping[str, JSON]) -> Iterator[str]:
    """Names of the tools that the agent runs itself. A function in a namespace is called `namespace__name`."""
    for path, tools in _lists(raw):
        for index, tool in enumerate(list_at(tools, path)):
            yield from _names(object_at(tool, (*path, index)), (*path, index))


def provider_tools(raw: Mapping[str, JSON]) -> tuple[str, ...]:
    """What the provider would run by itself, each once, by the name that policies know it by: `provider.<name>`."""
    names = [name for field, name in PROVIDER_FIELDS.items() if raw.get(field) is not None]
    for path, tools in _lists(raw):
        for index, tool in enumerate(list_at(tools, path)):
            kind = object_at(tool, (*path, index)).get("type")
            if not isinstance(kind, str) or not kind:
                raise wrong((*path, index, "type"), "a string")
            if kind not in (*_OWN, _SPACE):
                names.append(provider_name(kind))
    choice = raw.get("tool_choice")
    if isinstance(choice, dict):
        chosen: list[JSON] = [choice]
        if choice.get("type") == "allowed_tools":
            chosen = list_at(choice.get("tools"), ("tool_choice", "tools"))
        for entry in chosen:
            kind = entry.get("type") if isinstance(entry, dict) else None
            if isinstance(kind, str) and kind not in (*_OWN, _SPACE):
                names.append(provider_name(kind))
    return tuple(dict.fromkeys(names))


def provider_name(kind: str) -> str:
    """The tool that a type means: `web_search_preview_2025_03_11` and `web_search` are the same."""
    name = re.sub(f"{_DATED.pattern}$", "", kind, count=1) or kind
    return _SAME.get(name, name)


def strip_tools(raw: Mapping[str, JSON], names: Collection[str]) -> dict[str, JSON]:
    """A copy without these tools of the agent. Paths of parts below `tools` change: read the result again.

    A choice among allowed tools loses the removed ones. A request that *forces* a removed tool, or any tool where none
    is left, cannot be served as asked: ClientError `tool_denied`, rather than another answer than the agent demanded.
    """
    result = dict(raw)
    tools = raw.get("tools")
    if isinstance(tools, list):
        kept = _kept(tools, names)
        if kept:
            result["tools"] = kept
        elif tools:
            del result["tools"]
    items = raw.get("input")
    if isinstance(items, list):
        result["input"] = [_without(item, names) if _brings_tools(item) else item for item in items]
    if "tool_choice" in raw:
        _strip_choice(result, names)
    if "tools" not in result:
        result.pop("parallel_tool_calls", None)
    return result


def _lists(raw: Mapping[str, JSON]) -> Iterator[tuple[Path, JSON]]:
    """Every list of tools: the request's own and those that items of its input bring."""
    if raw.get("tools") is not None:
        yield ("tools",), raw["tools"]
    items = raw.get("input")
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if _brings_tools(item):
            yield ("input", index, "tools"), cast("dict[str, JSON]", item)["tools"]


def _brings_tools(item: JSON) -> bool:
    """`mcp_list_tools` tells what a server has; other items make tools usable."""
    return isinstance(item, dict) and isinstance(item.get("tools"), list) and item.get("type") != "mcp_list_tools"


def _without(item: JSON, names: Collection[str]) -> JSON:
    assert isinstance(item, dict)
    return {**item, "tools": _kept(cast("list[JSON]", item["tools"]), names)}


def _names(tool: dict[str, JSON], path: Path, space: str = "") -> Iterator[str]:
    kind, name = tool.get("type"), tool.get("name")
    if kind not in (*_OWN, _SPACE):
        return
    if not isinstance(name, str) or not name:
        raise wrong((*path, "name"), "a name")
    if kind == _SPACE and not space:
        for index, inner in enumerate(list_at(tool.get("tools"), (*path, "tools"))):
            at = (*path, "tools", index)
            if object_at(inner, at).get("type") not in _OWN:
                raise wrong((*at, "type"), "`function` or `custom`")
            yield from _names(object_at(inner, at), at, name)
    else:
        yield f"{space}__{name}" if space else name


def _kept(tools: list[JSON], names: Collection[str]) -> list[JSON]:
    kept: list[JSON] = []
    for tool in tools:
        if not isinstance(tool, dict):
            kept.append(tool)
        elif tool.get("type") == _SPACE and isinstance(tool.get("tools"), list):
            inner = cast("list[JSON]", tool["tools"])
            left = [each for each in inner if not _is_named(each, names, f"{tool.get('name')}__")]
            if left:
                kept.append(tool if len(left) == len(inner) else {**tool, "tools": left})
        elif not _is_named(tool, names):
            kept.append(tool)
    return kept


def _is_named(tool: JSON, names: Collection[str], prefix: str = "") -> bool:
    if not isinstance(tool, dict) or tool.get("type") not in _OWN:
        return False
    if not prefix and isinstance(tool.get("namespace"), str):
        prefix = f"{tool['namespace']}__"
    return f"{prefix}{tool.get('name')}" in names


def _strip_choice(result: dict[str, JSON], names: Collection[str]) -> None:
    choice, left = result["tool_choice"], "tools" in result
    if isinstance(choice, dict):
        group = choice.get("tools")
        if choice.get("type") == "allowed_tools" and isinstance(group, list):
            kept = [tool for tool in group if not _is_named(tool, names)]
            if kept:
                result["tool_choice"] = {**choice, "tools": kept}
                return
            if choice.get("mode") == "required":
                raise _forced()
            result["tool_choice"] = "none"  # nothing of what the agent allowed is left
        elif _is_named(choice, names):
            raise _forced()
    elif choice == "required" and not left:
        raise _forced()
    if not left and result["tool_choice"] in ("auto", "none", None):
        del result["tool_choice"]


def _forced() -> ClientError:
    return ClientError(
        "tool_denied",
        "the request forces a tool that this agent may not use; choose another tool or `auto`",
        status=403,
    )
