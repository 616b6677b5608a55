"""Tool definitions as their upstreams serve them, and the check of arguments against them.

The gateway fetches them itself, with the operator's credential and in one protocol era, so that all agents and the
executor see one definition per tool. A list that passes to an agent and shows something else makes the known one stale.
Owns `jsonschema_rs`: schemas come from upstreams, so no reference is ever fetched and patterns run in linear time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from gateway.core.canonical import JSON, canonical
from gateway.core.errors import ClientError, GatewayError, UpstreamError

if TYPE_CHECKING:
    from gateway.proxy.endpoint import Endpoint
    from gateway.proxy.mcp_client import McpClient

FRESH_S = 60.0  # after this a list is fetched again in the background
STALE_S = 900.0  # after this nothing is decided on it any more
AGAIN_S = 5.0  # between two fetches of one upstream, so that unknown names cannot be used to flood it
DEFINITION_BYTES_MAX = 256 * 1024  # the largest seen in the wild are about 60 KB
REGEX_BYTES_MAX = 1_000_000  # of one compiled pattern; `[a-z]{1,1000}` takes 40 KB
PROBLEMS_MAX = 5  # a model corrects a call by the first few
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Definition:
    """One tool as served. `digest` covers what a model reads and what arguments must be: name, description, input
    schema and annotations; titles, icons and vendor members may change without making it another tool."""

    name: str
    digest: str
    schema: Mapping[str, JSON]
    _validator: list[Any] = field(default_factory=list, repr=False, compare=False)

    def problem(self, arguments: Mapping[str, JSON]) -> str | None:
        """What is wrong with the arguments, for a model to act on, or None. Never quotes a value.

        Raises GatewayError `definition_unusable` for a schema that cannot be used: what cannot be checked must not run.
        """
        if not self._validator:
            self._validator.append(_compile(self.name, self.schema))
        validator = self._validator[0]
        if validator.is_valid(arguments):
            return None
        lines = []
        for error in validator.iter_errors(arguments):
            lines.append(_explain(error))
            if len(lines) == PROBLEMS_MAX:
                break
        return "; ".join(dict.fromkeys(lines))


def definition(tool: Mapping[str, Any]) -> Definition | None:
    """The definition in an entry of `tools/list`, or None where it is none that can be called through the gateway."""
    name, schema = tool.get("name"), tool.get("inputSchema")
    if not isinstance(name, str) or not isinstance(schema, dict):
        return None
    members: dict[str, JSON] = {"name": name, "inputSchema": schema}
    for member in ("description", "annotations"):
        if tool.get(member) is not None:
            members[member] = tool[member]
    try:
        spelled = canonical(members)
    except ClientError:
        return None
    if len(spelled) > DEFINITION_BYTES_MAX:
        return None
    return Definition(name, hashlib.sha256(spelled).hexdigest(), schema)


class Definitions:
    """The tools of each upstream. One fetch at a time per upstream; everybody who needs it waits for that one."""

    def __init__(self, client: McpClient, *, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._lists: dict[Endpoint, _List] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def get(self, endpoint: Endpoint, tool: str) -> Definition | None:
        """The definition in force, or None for a tool that the upstream does not serve. Raises UpstreamError."""
        known = self._list(endpoint)
        age = self._clock() - known.fetched_s
        if age > STALE_S or (tool not in known.tools and age > AGAIN_S):
            await self._fetch(endpoint, known)
        elif (age > FRESH_S or known.doubted) and age > AGAIN_S and not known.lock.locked():
            task = asyncio.create_task(self._refresh(endpoint, known))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return known.tools.get(tool)

    async def names(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The tools that the upstream serves. Raises UpstreamError."""
        known = self._list(endpoint)
        if self._clock() - known.fetched_s > STALE_S:
            await self._fetch(endpoint, known)
        return tuple(known.tools)

    def observe(self, endpoint: Endpoint, tools: Iterable[object]) -> None:
        """A list that passes to an agent. What it shows differently may be the other era's view or a changed tool:
        either way the gateway looks again itself before it decides on it."""
        known = self._list(endpoint)
        for tool in tools:
            seen = definition(tool) if isinstance(tool, dict) else None
            if seen is None:
                continue
            if known.seen.get(seen.name, seen.digest) != seen.digest or seen.name not in known.tools:
                known.doubted = True
            if len(known.seen) < len(known.tools) + 1000:  # an upstream that invents names must not fill memory
                known.seen[seen.name] = seen.digest

    def store(self, endpoint: Endpoint, tools: Iterable[Mapping[str, Any]]) -> None:
        """Take over a list that the gateway itself fetched a moment ago."""
        known = self._list(endpoint)
        found = (definition(tool) for tool in tools)
        fresh = {entry.name: entry for entry in found if entry is not None}
        for name, entry in fresh.items():  # an unchanged tool keeps its compiled schema
            old = known.tools.get(name)
            if old is not None and old.digest == entry.digest:
                fresh[name] = old
        known.tools = fresh
        known.fetched_s = self._clock()
        known.doubted = False

    async def aclose(self) -> None:
        """Stop fetching in the background."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _list(self, endpoint: Endpoint) -> _List:
        known = self._lists.get(endpoint)
        if known is None:
            if len(self._lists) > 1000:  # bundles come and go; an endpoint of an old one is fetched again if need be
                self._lists.clear()
            known = self._lists[endpoint] = _List()
        return known

    async def _fetch(self, endpoint: Endpoint, known: _List) -> None:
        asked_s = self._clock()
        async with known.lock:
            if known.fetched_s >= asked_s or self._clock() - known.failed_s < 1.0:
                if known.error is not None:
                    raise known.error
                return
            known.error = None
            try:
                self.store(endpoint, await self._client.list_tools(endpoint))
            except UpstreamError as error:
                known.failed_s = self._clock()
                known.error = UpstreamError(error.code, error.message, status=error.status)
                raise

    async def _refresh(self, endpoint: Endpoint, known: _List) -> None:
        with contextlib.suppress(UpstreamError):  # the known list serves until it is too old; `get` then raises
            await self._fetch(endpoint, known)


class _List:
    """What is known of one upstream."""

    __slots__ = ("doubted", "error", "failed_s", "fetched_s", "lock", "seen", "tools")

    def __init__(self) -> None:
        self.tools: dict[str, Definition] = {}
        self.seen: dict[str, str] = {}  # digests as they passed to agents
        self.fetched_s = float("-inf")
        self.failed_s = float("-inf")
        self.error: UpstreamError | None = None
        self.doubted = False
        self.lock = asyncio.Lock()


def _compile(name: str, schema: Mapping[str, JSON]) -> Any:
    try:
        return jsonschema_rs.validator_for(
            dict(schema),
            pattern_options=jsonschema_rs.RegexOptions(size_limit=REGEX_BYTES_MAX, dfa_size_limit=REGEX_BYTES_MAX),
            offline=True,
            validate_formats=False,  # formats are hints in the default vocabulary; a guess must not refuse a call
        )
    except (ValueError, TypeError, jsonschema_rs.ReferencingError):
        raise GatewayError(
            "definition_unusable",
            f"the input schema of `{name[:64]}` cannot be checked (invalid, a remote reference, or a pattern without a "
            "linear-time reading), so the tool cannot be called; ask its operator to change it",
            status=502,
        ) from None


def _explain(error: jsonschema_rs.ValidationError) -> str:
    """One problem in words of the schema: paths, keywords and what the schema wants, never what was sent."""
    where = "".join(_step(step) for step in error.instance_path).removeprefix(".") or "the arguments"
    kind, detail = error.kind.name, error.kind.as_dict()
    if kind == "required":
        return f"`{where}` lacks `{str(detail.get('property'))[:64]}`" if error.instance_path else _lacks(detail)
    if kind == "additionalProperties":
        return f"`{where}` has a property that the schema does not know" if error.instance_path else "unknown argument"
    if kind == "type":
        return f"`{where}` must be of type {_types(detail)}"
    if kind == "enum":
        return f"`{where}` must be one of {str(detail.get('options'))[:200]}"
    if kind in {"pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}:
        wanted = next(iter(detail.values()), "")
        return f"`{where}` does not fit {kind} {str(wanted)[:200]}"
    if kind in {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}:
        return f"`{where}` does not fit {kind} {str(detail.get('limit'))[:32]}"
    return f"`{where}` does not fit `{kind}` of the schema"


def _lacks(detail: Mapping[str, Any]) -> str:
    return f"the argument `{str(detail.get('property'))[:64]}` is missing"


def _types(detail: Mapping[str, Any]) -> str:
    types = detail.get("types") or detail.get("type")
    return " or ".join(map(str, types)) if isinstance(types, list | tuple | set) else str(types)


def _step(step: str | int) -> str:
    """A step of a path. A name that does not look like one may be content: it is not repeated."""
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _NAME.fullmatch(step) else ".*"
