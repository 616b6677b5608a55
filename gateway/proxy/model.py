"""The model surface: everything below `/v1/`. The dialects and the list of models; the rest is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

import orjson

from gateway.core.errors import ClientError
from gateway.proxy.asgi import respond
from gateway.proxy.model_anthropic import AnthropicExchange, CountTokensExchange
from gateway.proxy.model_chat import ChatExchange
from gateway.proxy.model_exchange import ModelExchange, model_not_found
from gateway.proxy.model_path import PathExchange
from gateway.proxy.model_responses import ResponsesExchange
from gateway.proxy.model_upstream import ModelEndpoint
from gateway.proxy.plane import Request
from gateway.wire import openai_chat

if TYPE_CHECKING:
    from gateway.policy import ModelRoute
    from gateway.proxy.deps import Deps
    from gateway.proxy.limits import Limiter

DIALECTS: Mapping[str, type[ModelExchange]] = {
    "/v1/chat/completions": ChatExchange,
    "/v1/responses": ResponsesExchange,
    "/v1/messages": AnthropicExchange,
    "/v1/messages/count_tokens": CountTokensExchange,
}
MODELS = "/v1/models"
ENDPOINTS_MAX = 1000  # routes of releases that are gone; the next request finds its own again


class ModelSurface:
    """Handles everything below `/v1/`."""

    def __init__(self, deps: Deps, limiter: Limiter) -> None:
        self.deps = deps
        self.limiter = limiter
        self.runs = deps.runs
        self._endpoints: dict[int, ModelEndpoint] = {}

    def endpoint(self, route: ModelRoute) -> ModelEndpoint:
        """The route, taken apart once for each release."""
        known = self._endpoints.get(id(route))
        if known is None or known.route is not route:
            if len(self._endpoints) > ENDPOINTS_MAX:
                self._endpoints.clear()
            known = self._endpoints[id(route)] = ModelEndpoint.of(route)
        return known

    def __call__(self, request: Request) -> Awaitable[None]:
        dialect = DIALECTS.get(request.path)
        if dialect is not None and request.scope["method"] == "POST":
            return dialect(self, request).run()
        return self._other(request)

    async def _other(self, request: Request) -> None:
        method = request.scope["method"]
        if request.path in DIALECTS:
            raise ClientError("method_not_allowed", f"use POST for `{request.path}`", status=405)
        if request.path == MODELS and method == "GET":
            names = self.deps.policy().visible_models(request.caller.agent)
            await respond(request.send, 200, openai_chat.models_list(names))
        elif request.path.startswith(MODELS + "/") and method == "GET":
            name = request.path.removeprefix(MODELS + "/")
            if self.deps.policy().route(request.caller.agent, name) is None:
                raise model_not_found(name)
            entry = {"id": name, "object": "model", "created": 0, "owned_by": "gateway"}
            await respond(request.send, 200, orjson.dumps(entry))
        else:
            path = request.path.removeprefix("/v1")
            route = self.deps.policy().passthrough(request.caller.agent, method, path)
            if route is None:
                raise ClientError(
                    "path_not_allowed",
                    "this path is not open to this agent; the operator can list it in the bundle",
                    status=404,
                )
            await PathExchange(self, request, self.endpoint(route), path).run()
