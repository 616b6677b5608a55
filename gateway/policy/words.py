"""The words that a bundle may use: names, patterns and choices that several tables share."""

from __future__ import annotations

from gateway.core.action import LOCAL_SERVER, PROVIDER_SERVER, Surface
from gateway.core.decision import Effect
from gateway.policy.shape import Text

ABSTAIN = "abstain"
RESERVED_RULES = ("default", "condition_error", "conflicting_groups")
"""Rule ids that the gateway itself writes into decisions."""

NAME = Text(
    many="names",
    words="a name (lowercase letters, digits, single `-` or `_`)",
    pattern=r"[a-z0-9]+(?:[_-][a-z0-9]+){0,20}",
)
SERVER_NAME = Text(words=NAME.words, pattern=NAME.pattern, reserved=(LOCAL_SERVER, PROVIDER_SERVER))
RULE_ID = Text(words=NAME.words, pattern=NAME.pattern, reserved=RESERVED_RULES)
PERSON = Text(many="names", words="a name", pattern=r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
VARIABLE = Text(words="the name of an environment variable", pattern=r"[A-Z_][A-Z0-9_]{0,99}", secret=True)
HEADER = Text(words="the name of a header", pattern=r"[A-Za-z0-9-]{1,60}")
SENTENCE = Text(words="one sentence for people", pattern=r"[^\x00-\x1f\x7f]{1,500}")
MODEL = Text(many="model names", words="a model name", pattern=r"[^\s\x00-\x1f\x7f]{1,200}")
EXTRA_PATH = Text(many="paths", words="a path below `/v1` such as `/embeddings`", pattern=r"(?:/[A-Za-z0-9_-]+){1,8}")
TEMPLATE = Text(
    words="a path such as `/contacts/{id}`; a `{name}` is a whole segment",
    pattern=r"(?:/(?:\{[A-Za-z_][A-Za-z0-9_]*\}|(?!\.\.?(?:/|$))[A-Za-z0-9._~@:-]+))+|/",
)
ARGUMENT = Text(many="argument names", words="an argument name", pattern=r"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,99}")
FUNCTION = Text(words="a function name", pattern=r"[A-Za-z0-9_.-]{1,128}")
TOOL = Text(words="`server.tool`", pattern=r"[a-z0-9_-]+\.[^\s*?\x00-\x1f\x7f]{1,200}")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
EFFECTS = tuple(effect.value for effect in Effect)
SURFACES = tuple(surface.value for surface in Surface)

FRAMING_HEADERS = frozenset(
    [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""What HTTP itself needs; a credential must not replace it."""
CREDENTIAL_HEADERS = frozenset(["authorization", "cookie", "x-api-key", "x-upstream-key"])
OWN_HEADERS = frozenset(
    [
        "accept",
        "accept-encoding",
        "accept-language",
        "http2-settings",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        "traceparent",
        "tracestate",
    ]
)
"""What the gateway writes into its requests, or takes over from the agent's."""
_GUARDED_PREFIXES = ("content-", "mcp-", "proxy-", "x-gateway-")


def is_guarded(header: str) -> bool:
    """Whether HTTP, credentials or the gateway itself use the header (lowercase): no obligation may add it."""
    taken = header in FRAMING_HEADERS or header in CREDENTIAL_HEADERS or header in OWN_HEADERS
    return taken or header.startswith(_GUARDED_PREFIXES)
