"""The web pages and the JSON API for people who approve. Knows the queue and the run store, never the data plane."""

from gateway.console.app import console_app
from gateway.console.deps import ConsoleDeps, PolicyStatus

__all__ = ["ConsoleDeps", "PolicyStatus", "console_app"]
