"""Held calls as an MCP client sees them: a task, an error that says NOT EXECUTED, or the stored result.

Owns `tasks/get`, `tasks/cancel`, `tasks/update` for the gateway's own ids and the tool `gateway_approval_status`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.core.canonical import JSON, parse
from gateway.core.errors import FilterError
from gateway.core.exchange import Direction
from gateway.core.held import State
from gateway.proxy import texts
from gateway.proxy.held_words import STATUS_TOOL, describe
from gateway.proxy.mcp_relay import withheld
from gateway.wire import mcp, mcp_tools
from gateway.wire.mcp import RpcError

if TYPE_CHECKING:
    from gateway.approvals.held_action import HeldAction
    from gateway.proxy.mcp_visit import Visit
    from gateway.proxy.tool_calls import ToolGate

ID_PREFIX = "ha_"
TASK_METHODS = frozenset({"tasks/get", "tasks/cancel", "tasks/update"})
TASK_TTL_S = 3600  # beyond the expiry of the action: as long as results are kept

STATUS_DEFINITION: Mapping[str, JSON] = {
    "name": STATUS_TOOL,
    "title": "Status of a parked call",
    "description": (
        "Says what became of a tool call that the gateway parked for a person to decide. Give it the id that the "
        "parked call answered with. Returns the result of the call once it was approved and has run."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {"id": {"type": "string", "description": "The id of the parked call, such as ha_..."}},
        "required": ["id"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False},
}


class HeldCalls:
    """Answers about held calls."""

    def __init__(self, gate: ToolGate) -> None:
        self._gate = gate

    async def parked(self, visit: Visit, held: HeldAction, *, tasks: bool) -> dict[str, JSON]:
        """The result of a `tools/call` that was held: what ran, what was decided, or that nothing ran yet."""
        if tasks and held.open:
            return mcp_tools.task_result(_task(held), created=True)
        return await self.outcome(visit, held)

    async def outcome(self, visit: Visit, held: HeldAction) -> dict[str, JSON]:
        """A `CallToolResult`: the stored result, filtered as any other is, or the state in words."""
        stored = held.result if held.state in {State.SUCCEEDED, State.FAILED} else None
        if stored is None:
            return mcp_tools.text_result(
                describe(held), is_error=held.state is not State.SUCCEEDED, version=visit.version
            )
        value = parse(stored, "stored result")
        if not isinstance(value, dict) or not isinstance(value.get("content"), list):
            value = {"content": [{"type": "text", "text": stored.decode()}], "isError": held.result_error}
        try:
            parts = texts.result_parts(value) if visit.exchange.caller.agent.filter_rules else []
            found = await self._gate.look(visit.exchange, parts, Direction.RESPONSE, held.name)
        except FilterError as error:
            said = f"The tool ran, but its answer is withheld: {error.message}"
            return mcp_tools.text_result(said, is_error=True, version=visit.version)
        if found.denied is not None:
            said = f"The tool ran, but its answer is {withheld(found.denied)}"
            return mcp_tools.text_result(said, is_error=True, version=visit.version)
        shown = texts.edited(value, found.edits)
        assert isinstance(shown, dict)
        if visit.modern:
            return {**shown, "resultType": "complete"}
        return {key: item for key, item in shown.items() if key != "resultType"}

    async def status_call(self, visit: Visit, arguments: Mapping[str, Any]) -> dict[str, JSON]:
        """`gateway_approval_status`: waits a moment for a decision, so that a model need not ask again and again."""
        held_id = arguments.get("id")
        if set(arguments) != {"id"} or not isinstance(held_id, str):
            text = f"{STATUS_TOOL} takes one argument, `id`, which is a string."
            return mcp_tools.text_result(text, is_error=True, version=visit.version)
        held = await self._gate.find(visit.exchange.caller, held_id)
        if held is None:
            text = f"There is no parked call of yours with this id. Give {STATUS_TOOL} the `id` that a parked call had."
            return mcp_tools.text_result(text, is_error=True, version=visit.version)
        self._remember(visit, held)
        visit.exchange.record.name = f"{visit.server.name}.{STATUS_TOOL}"  # it asks about the call, it is not the call
        held = await self._gate.wait(held)
        result = await self.outcome(visit, held)
        if held.open:
            result["isError"] = False  # the question was answered; it is the call that did not run
        return result

    async def task_call(self, visit: Visit, request: mcp.Request) -> dict[str, JSON]:
        """`tasks/get`, `tasks/cancel` and `tasks/update` for a held action.

        Raises RpcError -32021 for a client that did not opt in, -32602 for an id that is not this agent's."""
        if not mcp_tools.takes_tasks(request):
            needed: JSON = {"requiredCapabilities": {"extensions": {mcp.TASKS_EXTENSION: {}}}}
            raise RpcError(mcp.MISSING_CAPABILITY, "declare the tasks extension to use its methods", data=needed)
        held = await self._gate.find(visit.exchange.caller, str(request.params.get("taskId")))
        if held is None:
            raise RpcError(mcp.INVALID_PARAMS, "there is no task of yours with this id")
        self._remember(visit, held)
        if request.method == "tasks/cancel":
            await self._gate.withdraw(visit.exchange.caller, held)
        if request.method != "tasks/get":  # `tasks/update` has nothing to answer: a held call never asks its agent
            return {"resultType": "complete"}
        task = _task(held)
        final = await self.outcome(visit, held) if task.status == "completed" else None
        return mcp_tools.task_result(task, created=False, final=final)

    @staticmethod
    def _remember(visit: Visit, held: HeldAction) -> None:
        record = visit.exchange.record
        record.name, record.held, record.effect = held.name, held.id, "allow"
        record.rule, record.reason = held.rule, held.reason


def is_held_id(value: object) -> bool:
    """Whether a task id looks like one of the gateway's own."""
    return isinstance(value, str) and value.startswith(ID_PREFIX)


def _task(held: HeldAction) -> mcp_tools.Task:
    status: mcp_tools.TaskStatus = "working" if held.open else "completed"
    if held.state is State.CANCELLED:
        status = "cancelled"
    return mcp_tools.Task(
        id=held.id,
        status=status,
        message=describe(held),
        created_s=held.created_s,
        updated_s=held.changed_s,
        ttl_ms=int((held.expires_s - held.created_s + TASK_TTL_S) * 1000),
    )
