"""Policy bundles: YAML in, decisions out. Bundles are read here; what is decided is acted on elsewhere."""

from gateway.policy.load import load_bundle
from gateway.policy.model import (
    CALLER_KEY_HEADER,
    Agent,
    Credential,
    HttpTool,
    Limits,
    McpServer,
    ModelRoute,
    Operation,
    Upstream,
)
from gateway.policy.policyset import AgentView, PolicySet
from gateway.policy.watch import BundleWatcher, WatchStatus

__all__ = [
    "CALLER_KEY_HEADER",
    "Agent",
    "AgentView",
    "BundleWatcher",
    "Credential",
    "HttpTool",
    "Limits",
    "McpServer",
    "ModelRoute",
    "Operation",
    "PolicySet",
    "Upstream",
    "WatchStatus",
    "load_bundle",
]
