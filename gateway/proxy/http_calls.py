"""Operations of HTTP tools as the bundle declares them, in the forms that requests need: template, schema, digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.canonical import JSON, digest
from gateway.proxy.definitions import Definition
from gateway.wire import http_tool

if TYPE_CHECKING:
    from gateway.policy import HttpTool, Operation


@dataclass(frozen=True, slots=True)
class Prepared:
    """One operation. `definition.digest` covers method, path, query and schema: an edit of any of them is another
    operation to those who approved the old one."""

    declared: Operation
    template: http_tool.Operation
    definition: Definition

    def problem(self, arguments: Mapping[str, JSON]) -> str | None:
        """What is wrong with the arguments, or None. Raises GatewayError `definition_unusable`."""
        return None if self.declared.arguments is None else self.definition.problem(arguments)


class Operations:
    """Prepared operations by tool, remembered as long as their declaration is in use."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[HttpTool, dict[str, Prepared]]] = {}

    def of(self, tool: HttpTool) -> Mapping[str, Prepared]:
        """All operations of a tool by name."""
        known = self._known.get(id(tool))
        if known is not None and known[0] is tool:
            return known[1]
        prepared = {name: _prepare(operation) for name, operation in tool.operations.items()}
        if len(self._known) > 1000:  # of releases that are gone
            self._known.clear()
        self._known[id(tool)] = (tool, prepared)
        return prepared


def _prepare(declared: Operation) -> Prepared:
    schema: Mapping[str, JSON] = dict(declared.arguments or {})
    spelled = digest(
        {
            "name": declared.name,
            "method": declared.method,
            "path": declared.path,
            "query": list(declared.query),
            "arguments": None if declared.arguments is None else dict(schema),
        }
    )
    template = http_tool.operation(declared.name, declared.method, declared.path, declared.query)
    return Prepared(declared, template, Definition(declared.name, spelled, schema))
