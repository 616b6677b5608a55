"""The tools of a Chat Completions request: what the agent offers, what the provider would run, taking some away."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import cast

from gateway.core.canonical import JSON
from gateway.core.errors import ClientError
from gateway.core.exchange import Path
from gateway.wire.shapes import list_at, object_at, wrong

PROVIDER_FIELDS = {
    "web_search_options": "web_search",  # OpenAI
    "search_parameters": "web_search",  # xAI
    "data_sources": "data_sources",  # Azure
    "plugins": "plugins",  # OpenRouter
    "mcp_servers": "mcp",
}
"""Fields with which the provider itself runs a tool, and the name that policies know it by (`provider.<name>`)."""


def strip_tools(raw: Mapping[str, JSON], names: Collection[str]) -> dict[str, JSON]:
    """A copy without these tools of the agent. Paths of parts below `tools` change: read the result again.

    A choice among allowed tools loses the removed ones. A request that *forces* a removed tool, or any tool where none
    is left, cannot be served as asked: ClientError `tool_denied`, rather than another answer than the agent demanded.
    """
    result = dict(raw)
    for key in ("tools", "functions"):
        offered = raw.get(key)
        if not isinstance(offered, list):
            continue
        kept = [tool for tool in offered if _tool_name(tool, key) not in names]
        if kept:
            result[key] = kept
        elif offered:
            del result[key]
    for key, group in (("tool_choice", "tools"), ("function_call", "functions")):
        if key in raw:
            _strip_choice(result, key, names, left=group in result)
    if "tools" not in result:
        result.pop("parallel_tool_calls", None)  # the API refuses it without tools
    return result


def offered(raw: Mapping[str, JSON]) -> Iterator[str]:
    """Names of the tools that the agent runs itself."""
    for key in ("tools", "functions"):
        value = raw.get(key)
        if value is None:
            continue
        for index, tool in enumerate(list_at(value, (key,))):
            path: Path = (key, index)
            kind = "" if key == "functions" else object_at(tool, path).get("type")
            if kind in ("", "function", "custom"):
                name = _tool_name(object_at(tool, path), key)
                if not name:
                    raise wrong((*path, str(kind), "name") if kind else (*path, "name"), "a name")
                yield name


def _tool_name(tool: JSON, key: str) -> str | None:
    """The name of a function or custom tool, None for one that the provider runs."""
    if not isinstance(tool, dict):
        return None
    if key == "tools":
        kind = tool.get("type")
        tool = tool.get(kind) if kind in ("function", "custom") else None
    name = tool.get("name") if isinstance(tool, dict) else None
    return name if isinstance(name, str) else None


def provider_tools(raw: Mapping[str, JSON]) -> tuple[str, ...]:
    """Names of what the provider would run by itself, each once."""
    asked = PROVIDER_FIELDS.keys() & raw.keys()
    tools = raw.get("tools")
    if not asked and tools is None:  # most requests
        return ()
    names = [name for field, name in PROVIDER_FIELDS.items() if raw.get(field) is not None]
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or not kind:
            raise wrong(("tools", index, "type"), "a string")
        if kind not in ("function", "custom"):
            names.append(kind)
    return tuple(dict.fromkeys(names))


def fallback_models(value: JSON) -> tuple[str, ...]:
    """The field `models` of upstreams that route."""
    if value is None:
        return ()
    names = list_at(value, ("models",))
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise wrong(("models", index), "the name of a model")
    return tuple(cast("list[str]", names))


def _strip_choice(result: dict[str, JSON], key: str, names: Collection[str], *, left: bool) -> None:
    choice = result[key]
    if isinstance(choice, dict):
        group = choice.get("allowed_tools")
        if choice.get("type") == "allowed_tools" and isinstance(group, dict) and isinstance(group.get("tools"), list):
            kept = [tool for tool in cast("list[JSON]", group["tools"]) if _tool_name(tool, "tools") not in names]
            if kept:
                result[key] = {**choice, "allowed_tools": {**group, "tools": kept}}
                return
            if group.get("mode") == "required":
                raise _forced()
            result[key] = "none"  # nothing of what the agent allowed is left
        elif _tool_name(choice, "tools" if key == "tool_choice" else "functions") in names:
            raise _forced()
    elif choice == "required" and not left:
        raise _forced()
    if not left and result[key] in ("auto", "none", None):
        del result[key]  # the API refuses a choice without tools


def _forced() -> ClientError:
    return ClientError(
        "tool_denied",
        "the request forces a tool that this agent may not use; choose another tool or `auto`",
        status=403,
    )
