"""JSON-RPC envelopes of MCP: 2024-11-05 to 2025-11-25 by handshake, 2026-07-28 stateless.

Owns: what a message is, which protocol version it speaks, and whether its headers agree with its body. Must not know
policies, sessions or I/O. Unknown members are carried through: only what is read is modelled.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.canonical import JSON, parse
from gateway.core.errors import ClientError
from gateway.wire import leaves

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSION = "2026-07-28"
VERSIONS = (*HANDSHAKE_VERSIONS, MODERN_VERSION)
BATCH_VERSION = "2025-03-26"  # the only revision with JSON-RPC batches; it also sends no version header
ID_CHARS_MAX = 1024  # UUIDs and counters are far shorter
BATCH_MAX = 50  # one HTTP request must not fan out without bound

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO_KEY = "io.modelcontextprotocol/clientInfo"
TASKS_EXTENSION = "io.modelcontextprotocol/tasks"

# Which member of params the Mcp-Name header repeats (2026-07-28 transports; tasks extension "Routing Headers").
NAME_MEMBERS = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}

MEMBERS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})

RequestId = int | str


class RpcError(ClientError):
    """A refusal that travels as a JSON-RPC error. `status` is the HTTP status that goes with it."""

    def __init__(self, rpc_code: int, message: str, *, status: int = 400, data: JSON = None) -> None:
        super().__init__("mcp_refused", message, status=status)
        self.rpc_code = rpc_code
        self.data = data


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    id: RequestId
    method: str
    params: dict[str, Any]
    raw: dict[str, Any]

    @property
    def meta(self) -> dict[str, Any]:
        return _meta(self.params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    method: str
    params: dict[str, Any]
    raw: dict[str, Any]

    @property
    def meta(self) -> dict[str, Any]:
        return _meta(self.params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer: `result` or `error` is set. A client sends these too, to requests of a server (handshake eras)."""

    id: RequestId | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    raw: dict[str, Any]


Message = Request | Notification | Response


def _meta(params: Mapping[str, Any]) -> dict[str, Any]:
    meta = params.get("_meta")
    return meta if isinstance(meta, dict) else {}


def decode(body: bytes) -> Message | tuple[Message, ...]:
    """One message, or the messages of a batch (a JSON array).

    Raises RpcError with the JSON-RPC code: -32700 for what is not strict JSON (duplicate keys included),
    -32600 for what is no JSON-RPC 2.0 message, or an empty or too long batch.
    """
    try:
        value = parse(body)
    except ClientError as error:
        raise RpcError(PARSE_ERROR, error.message) from None
    if isinstance(value, list):
        if not 0 < len(value) <= BATCH_MAX:
            raise RpcError(INVALID_REQUEST, f"a batch holds 1 to {BATCH_MAX} messages")
        return tuple(decode_message(item) for item in value)
    return decode_message(value)


def decode_message(value: object) -> Message:
    """A JSON value as one JSON-RPC 2.0 message. Raises RpcError -32600."""
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'not a JSON-RPC 2.0 message; send an object with `"jsonrpc": "2.0"`')
    method = value.get("method")
    if method is None:
        return _response(value)
    if not isinstance(method, str) or "result" in value or "error" in value:
        raise RpcError(INVALID_REQUEST, "a request has a `method` and neither `result` nor `error`")
    params = value.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise RpcError(INVALID_REQUEST, "`params` must be an object")
    if "id" not in value:
        return Notification(method=method, params=params, raw=value)
    identifier = value["id"]
    if not is_id(identifier):
        raise RpcError(INVALID_REQUEST, "`id` must be a string or an integer")
    return Request(id=identifier, method=method, params=params, raw=value)


def _response(value: dict[str, Any]) -> Response:
    identifier = value.get("id")
    if identifier is not None and not is_id(identifier):
        raise RpcError(INVALID_REQUEST, "`id` must be a string or an integer")
    result, error = value.get("result"), value.get("error")
    if isinstance(result, dict) and error is None and identifier is not None:
        return Response(id=identifier, result=result, error=None, raw=value)
    if isinstance(error, dict) and "result" not in value and _is_integer(error.get("code")):
        return Response(id=identifier, result=None, error=error, raw=value)
    raise RpcError(INVALID_REQUEST, "not a JSON-RPC 2.0 message; it has no `method`, and no valid `result` or `error`")


def is_id(value: object) -> bool:
    """Whether a value can be a request id or a progress token. Bounded: ids are repeated in answers and records."""
    return len(value) <= ID_CHARS_MAX if isinstance(value, str) else _is_integer(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def encode(message: Mapping[str, Any]) -> bytes:
    """The message as compact JSON."""
    return leaves.encode(dict(message))


def result(identifier: RequestId, value: Mapping[str, Any]) -> bytes:
    return encode({"jsonrpc": "2.0", "id": identifier, "result": value})


def error(identifier: RequestId | None, code: int, message: str, data: JSON = None) -> bytes:
    body: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return encode({"jsonrpc": "2.0", "id": identifier, "error": body})


def at_least(version: str, minimum: str) -> bool:
    """Whether `version` is a known revision no older than `minimum`. An unknown one is not."""
    return version in VERSIONS and VERSIONS.index(version) >= VERSIONS.index(minimum)


def header_version(headers: Mapping[str, str]) -> str:
    """The protocol version that the headers name. Without one it is 2025-03-26 (2025-06-18, transports).

    Raises RpcError -32022 for a version that the gateway does not know: it could name a tool call differently.
    """
    version = headers.get("mcp-protocol-version")
    if version is None:
        return BATCH_VERSION
    if version not in VERSIONS:
        raise unsupported(version)
    return version


def unsupported(version: str) -> RpcError:
    """The refusal that lets a client negotiate: it lists what is spoken here."""
    return RpcError(
        UNSUPPORTED_VERSION,
        "this protocol version is not spoken here; choose one of `data.supported`",
        data={"supported": list(VERSIONS), "requested": version[:64]},
    )


def agree(message: Request, headers: Mapping[str, str]) -> str:
    """The protocol version of a request, once its headers and its body say the same.

    2026-07-28 (transports, "Header validation"): the version, `Mcp-Method` and `Mcp-Name` are required and must equal
    the body. In older eras these headers mean nothing, but where they are sent they must not lie either: a balancer may
    have read them. Raises RpcError -32020, -32602 (envelope incomplete) or -32022.
    """
    version = header_version(headers)
    named = message.meta.get(VERSION_KEY)
    modern = version == MODERN_VERSION
    if modern or named is not None:
        if named is None or CAPABILITIES_KEY not in message.meta:
            raise RpcError(INVALID_PARAMS, f"`params._meta` must hold `{VERSION_KEY}` and `{CAPABILITIES_KEY}`")
        if named != headers.get("mcp-protocol-version"):
            raise RpcError(HEADER_MISMATCH, "the `MCP-Protocol-Version` header does not match the body")
    method = headers.get("mcp-method")
    if method != message.method and (modern or method is not None):
        raise RpcError(HEADER_MISMATCH, "the `Mcp-Method` header does not match the body")
    member = NAME_MEMBERS.get(message.method)
    name = headers.get("mcp-name")
    if member is not None and (modern or name is not None):
        value = message.params.get(member)
        if value is not None and (name is None or decode_header(name) != value):
            raise RpcError(HEADER_MISMATCH, f"the `Mcp-Name` header does not match `params.{member}`")
    return version


_SENTINEL = re.compile(r"=\?base64\?(.*)\?=")
_PLAIN = re.compile(r"[\x20-\x7e]*")


def encode_header(value: str) -> str:
    """A value as an HTTP field value: verbatim, or `=?base64?...?=` where it would not survive (2026-07-28)."""
    if _PLAIN.fullmatch(value) and value == value.strip() and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode_header(value: str) -> str | None:
    """The inverse of `encode_header`. None for a malformed or non-canonical encoding, so that it matches nothing."""
    match = _SENTINEL.fullmatch(value)
    if match is None:
        return value
    try:
        data = base64.b64decode(match[1], validate=True)
        return data.decode() if base64.b64encode(data).decode() == match[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None
