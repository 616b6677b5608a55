"""Other paths below `/v1` that the operator's bundle lists, such as embeddings: JSON in, JSON out.

Nothing is known of their meaning, so every string in either direction goes through the filters and streams are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from gateway.core.canonical import JSON, parse, refuse_alike_members
from gateway.core.errors import ClientError, UpstreamError
from gateway.core.exchange import Direction, Origin, Part, Path
from gateway.proxy.asgi import JSON_TYPE, require_json, respond
from gateway.proxy.model_exchange import ModelExchange, model_not_found
from gateway.proxy.model_upstream import ModelEndpoint
from gateway.proxy.plane import Request
from gateway.wire import openai_chat
from gateway.wire.leaves import encode, leaves, with_values

if TYPE_CHECKING:
    from gateway.proxy.model import ModelSurface
    from gateway.proxy.pool import Response


class PathExchange(ModelExchange):
    """One request to a listed path."""

    operation = "passthrough"

    def __init__(self, surface: ModelSurface, request: Request, endpoint: ModelEndpoint, path: str) -> None:
        super().__init__(surface, request)
        self.endpoint = endpoint
        self.path = path
        self.record.name = path

    async def serve(self, body: bytes) -> None:
        method = self.request.scope["method"]
        if self.request.scope.get("query_string"):
            raise ClientError("query_not_allowed", "this path takes no query string")
        sent = await self._read(body) if body else b""
        await self.forward(self.endpoint, self.path.encode("ascii"), sent, method=method)

    async def _read(self, body: bytes) -> bytes:
        require_json(self.request.headers)
        value = parse(body)
        if not isinstance(value, dict):
            raise ClientError("invalid_request", "the body must be a JSON object")
        refuse_alike_members(value, known=("model", "models", "stream", "fallbacks"))
        if value.get("stream"):
            raise ClientError("stream_not_allowed", "streams are not inspected on this path; send `stream: false`")
        changes: dict[Path, JSON] = {}
        model = value.get("model")
        if model is not None:
            if not isinstance(model, str):
                raise ClientError("invalid_request", "`model` must be the name of a model")
            if self.deps.policy().route(self.caller.agent, model) is not self.endpoint.route:
                raise model_not_found(model)
            self.record.model = model
            renamed = self.endpoint.route.upstream_model(model)
            if renamed != model:
                changes["model",] = renamed
        for name in openai_chat.other_models(value):
            if self.deps.policy().route(self.caller.agent, name) is None:
                raise model_not_found(name)
        changes |= await self._edits(value, Origin.USER, Direction.REQUEST)
        return encode(with_values(value, changes)) if changes else body

    async def answer(self, response: Response) -> None:
        raw = await response.read(self.deps.body_bytes_max)
        try:
            value = parse(raw, "answer of the upstream")
        except ClientError:
            raise UpstreamError("upstream_protocol", "the model endpoint did not answer with JSON") from None
        changes = await self._edits(value, Origin.ASSISTANT, Direction.RESPONSE)
        self.record.response = encode(with_values(value, changes)) if changes else raw
        self.record.response_type = "application/json"
        self.give_verdict()
        await respond(self.request.send, 200, self.record.response, [*self.headers(response), JSON_TYPE])

    async def _edits(self, value: JSON, origin: Origin, direction: Direction) -> dict[Path, JSON]:
        parts = (Part(origin, text, path) for path, text in leaves(value, ()) if path != ("model",))
        return cast("dict[Path, JSON]", (await self.screened(parts, direction)).edits)
