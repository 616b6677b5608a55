"""Request and token limits per agent, counted in Redis so that all processes share them.

Sliding windows from two fixed ones: the last window counts by the share of it that is still in view, so a burst at the
edge of a minute cannot double the limit. One script a request, pipelined with those of other requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.approvals import Script
from gateway.core.errors import ClientError

if TYPE_CHECKING:
    from gateway.approvals import RedisLink
    from gateway.policy import AgentView

MINUTE_S = 60
DAY_S = 86_400

# Each limit is two keys (this window, the last one) and five arguments: limit, weight of the last window in 1/1000,
# amount to add, seconds to keep, 1 to check. Answers the number of the first limit that is used up, or 0. Nothing is
# added unless every limit admits, so a refused request costs the agent nothing.
ADMIT = Script(
    "limits_admit",
    """
local count = #KEYS / 2
for i = 1, count do
  local at = (i - 1) * 5
  if ARGV[at + 5] == '1' then
    local now = tonumber(redis.call('GET', KEYS[2 * i - 1]) or '0')
    local last = tonumber(redis.call('GET', KEYS[2 * i]) or '0')
    if now + last * tonumber(ARGV[at + 2]) / 1000 + 1 > tonumber(ARGV[at + 1]) then return i end
  end
end
for i = 1, count do
  local at = (i - 1) * 5
  if ARGV[at + 3] ~= '0' then
    redis.call('INCRBY', KEYS[2 * i - 1], ARGV[at + 3])
    redis.call('EXPIRE', KEYS[2 * i - 1], ARGV[at + 4])
  end
end
return 0
""",
)


@dataclass(frozen=True, slots=True)
class _Window:
    code: str
    what: str
    limit: int
    seconds: int
    per_request: int  # what a request adds when it is admitted; tokens are only known afterwards


class Limiter:
    """`admit` before a request, `charge` with its tokens afterwards. Raises StoreError when Redis is away: closed."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._windows: dict[int, tuple[object, tuple[_Window, ...]]] = {}

    async def admit(self, agent: AgentView, *, now: float) -> None:
        """Raises ClientError `requests_limit` or `tokens_limit` (429, with Retry-After) when a limit is used up."""
        windows = self._of(agent)
        if not windows:
            return
        refused = await self._run(agent, windows, [window.per_request for window in windows], "1", now)
        if refused:
            window = windows[refused - 1]
            raise ClientError(
                window.code,
                f"the limit of {window.limit} {window.what} is used up; try again later",
                status=429,
                retry_after_s=max(1, int(window.seconds - now % window.seconds)),
            )

    async def charge(self, agent: AgentView, tokens: int, *, now: float) -> None:
        """Count tokens that were used, whatever the limit says now: they are spent."""
        windows = tuple(window for window in self._of(agent) if not window.per_request)
        if windows and tokens > 0:
            await self._run(agent, windows, [tokens] * len(windows), "0", now)

    def _of(self, agent: AgentView) -> tuple[_Window, ...]:
        known = self._windows.get(id(agent))
        if known is not None and known[0] is agent:
            return known[1]
        limits = agent.limits
        windows = tuple(
            window
            for window in (
                _Window("requests_limit", "requests a minute", limits.requests_per_minute or 0, MINUTE_S, 1),
                _Window("tokens_limit", "tokens a minute", limits.tokens_per_minute or 0, MINUTE_S, 0),
                _Window("tokens_limit", "tokens a day", limits.tokens_per_day or 0, DAY_S, 0),
            )
            if window.limit
        )
        if len(self._windows) > 10_000:  # releases come and go; their agents need not be remembered
            self._windows.clear()
        self._windows[id(agent)] = (agent, windows)
        return windows

    async def _run(
        self, agent: AgentView, windows: tuple[_Window, ...], amounts: list[int], check: str, now: float
    ) -> int:
        keys: list[str] = []
        arguments: list[str | int] = []
        for window, amount in zip(windows, amounts, strict=True):
            number, into = divmod(now, window.seconds)
            kind = "r" if window.per_request else "t"
            prefix = f"gw:{{limits:{agent.name}}}:{kind}{window.seconds}:"
            keys += [f"{prefix}{int(number)}", f"{prefix}{int(number) - 1}"]
            weight = 1000 - int(1000 * into / window.seconds)
            arguments += [window.limit, weight, amount, 2 * window.seconds, check]
        return int(await self._link.script(ADMIT, keys, arguments))
