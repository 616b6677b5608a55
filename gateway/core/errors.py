"""The one family of errors that leave a room.

Messages are lowercase, one line, and never hold prompt text, argument values or secrets: they travel to agents, logs
and traces. `code` is a stable API; `status` is the HTTP status an agent would see.
"""

from __future__ import annotations

import traceback

_FRAMES = 4


def places(error: BaseException) -> str:
    """Where a foreign exception came from, for a log. Its message may quote a prompt, so it is not repeated."""
    frames = reversed(traceback.extract_tb(error.__traceback__)[-_FRAMES:])
    return " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames)


class GatewayError(Exception):
    """Something that the gateway answers by itself. Subclasses name whose fault it is."""

    status_default = 500

    def __init__(self, code: str, message: str, *, status: int | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = self.status_default if status is None else status
        self.retry_after_s = retry_after_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r}, status={self.status})"


class ClientError(GatewayError):
    """The caller sent something that cannot be served: malformed, too large, unknown, not permitted."""

    status_default = 400


class UpstreamError(GatewayError):
    """A model or tool endpoint did not answer as its protocol says. Never quotes what it answered."""

    status_default = 502


class StoreError(GatewayError):
    """Redis or the audit file is away. Holds and limits deny; nothing acknowledged is lost."""

    status_default = 503

    def __init__(
        self,
        code: str = "store_unavailable",
        message: str = "the store is unavailable; try again",
        *,
        retry_after_s: int = 2,
    ) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)


class FilterError(GatewayError):
    """A filter failed or ran out of time: text that was not inspected must not pass as inspected."""

    status_default = 503


class PolicyLoadError(GatewayError):
    """A bundle that cannot be used. `problems` are lines `file:line:column: what was found; what was expected`."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("policy_load", "\n".join(problems))
        self.problems = problems


class TransitionError(GatewayError):
    """A held action was asked to go where its state table does not lead."""

    status_default = 409
