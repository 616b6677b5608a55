"""What a request to a model may ask for, the same for every dialect: its model, its tools, the run it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.core.action import Action, Surface
from gateway.core.decision import Effect
from gateway.core.errors import ClientError
from gateway.proxy.caller import Caller
from gateway.proxy.model_exchange import ModelExchange, model_not_found

if TYPE_CHECKING:
    from gateway.policy import ModelRoute


def join_run(exchange: ModelExchange, opening: tuple[str, ...]) -> None:
    """An agent that names neither run nor trace is known by how its conversation begins."""
    if exchange.request.named:
        return
    caller = exchange.caller
    trace = exchange.surface.runs.of_conversation(caller.agent.name, opening, now=exchange.record.started_s)
    exchange.caller = Caller(agent=caller.agent, trace_id=trace, span=caller.span)
    exchange.record.trace_id = trace


def find_route(exchange: ModelExchange, model: str, others: Iterable[str] = ()) -> ModelRoute:
    """Where the model is served. `others` are models that the upstream may use instead: the agent must be allowed each.

    Raises ClientError `model_not_found`.
    """
    policy, agent = exchange.deps.policy(), exchange.caller.agent
    for name in others:
        if policy.route(agent, name) is None:
            raise model_not_found(name)
    route = policy.route(agent, model)
    if route is None:
        raise model_not_found(model)
    return route


def admit_provider_tools(exchange: ModelExchange, tools: Iterable[str]) -> None:
    """Tools that the provider would run by itself need a rule that allows them. Raises ClientError `tool_denied`."""
    policy, record = exchange.deps.policy(), exchange.record
    for tool in tools:
        action = Action(surface=Surface.MODEL, server="provider", tool=tool, arguments={})
        session = exchange.deps.session(exchange.caller)
        decision = policy.decide(exchange.caller.agent, action, session, now=record.started_s)
        if decision.effect is not Effect.ALLOW:
            record.rule, record.reason = decision.rule, decision.reason
            raise ClientError(
                "tool_denied", f"the provider's tool `{tool}` is not allowed: {decision.reason}", status=403
            )


def hidden_tools(exchange: ModelExchange, tools: Iterable[str]) -> list[str]:
    """The agent's own tools that it may never use and that the model therefore does not get to see."""
    policy, agent = exchange.deps.policy(), exchange.caller.agent
    if not agent.strip_denied_tools:
        return []
    names = [(function, ".".join(policy.resolve_function(function))) for function in tools]
    return [function for function, name in names if not policy.may_use(agent, name, Surface.MODEL)]
