"""Request and token limits per agent, counted in Redis so that all processes share them.

A process leases a few requests at a time, so that a busy agent costs one script in many requests; what a lease does not
use is given back with the next. Windows slide: the last one counts by the share of it that is still in view, so a burst
at the edge of a minute cannot double a limit. Tokens are known only afterwards: they are added up and written within a
second, and a crash forgets at most that second.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.approvals import Script
from gateway.core.errors import ClientError, StoreError

if TYPE_CHECKING:
    from gateway.approvals import RedisLink
    from gateway.policy import AgentView

MINUTE_S = 60
DAY_S = 86_400
LEASE_S = 1.0  # how late one process may notice what the others used
LEASE_REQUESTS_MAX = 256  # and never more than a tenth of the limit
AGENTS_MAX = 10_000  # agents remembered; one that was forgotten leases anew

# For each limit two keys (this window, the last one) and five arguments: limit, weight of the last window in 1/1000,
# what is wanted (requests) or was spent (tokens), what is given back (-1: tokens), seconds to keep. Tokens come first:
# they are spent whatever the limits say. Answers {number of the limit that is used up, or 0; requests granted}.
LEASE = Script(
    "limits_lease",
    """
local used_up = 0
for i = 1, #KEYS / 2 do
  local at = (i - 1) * 5
  local limit, weight, amount = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]) / 1000, tonumber(ARGV[at + 3])
  local key, back, keep = KEYS[2 * i - 1], tonumber(ARGV[at + 4]), ARGV[at + 5]
  local used = tonumber(redis.call('GET', key) or '0')
  local last = tonumber(redis.call('GET', KEYS[2 * i]) or '0')
  if back >= 0 then
    used = used - back
    local free = math.floor(limit - used - last * weight)
    local granted = 0
    if used_up == 0 then granted = math.max(0, math.min(amount, free)) end
    if granted - back ~= 0 then
      redis.call('INCRBY', key, granted - back)
      redis.call('EXPIRE', key, keep)
    end
    if used_up ~= 0 then return {used_up, 0} end
    if granted < 1 then return {i, 0} end
    return {0, granted}
  end
  if amount > 0 then
    redis.call('INCRBY', key, amount)
    redis.call('EXPIRE', key, keep)
  end
  if used_up == 0 and used + amount + last * weight >= limit then used_up = i end
end
return {used_up, 1}
""",
)


@dataclass(frozen=True, slots=True)
class _Window:
    code: str
    what: str
    limit: int
    seconds: int
    requests: bool


@dataclass(slots=True, eq=False)
class _Account:
    """What this process knows of one agent. `windows` has the tokens first and the requests, if limited, last."""

    name: str
    windows: tuple[_Window, ...]
    left: int = 0
    minute: int = -1
    until_s: float = 0.0
    step: int = 1  # requests to lease next: doubles while leases are used up, starts over when one is not
    spent: int = 0
    spent_at_s: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    flush: asyncio.TimerHandle | None = None

    def usable(self, now: float) -> bool:
        """Whether a leased request is left."""
        return self.left > 0 and now < self.until_s and self.minute == now // MINUTE_S


class Limiter:
    """`admit` before a request, `charge` with its tokens afterwards. Raises StoreError when Redis is away: closed."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._accounts: dict[str, _Account] = {}
        self._views: dict[int, tuple[AgentView, _Account | None]] = {}
        self._flushes: set[asyncio.Task[None]] = set()

    def take(self, agent: AgentView, *, now: float) -> bool:
        """Take a request that is leased already, or that needs no lease. False: ask `admit`."""
        account = self._account(agent)
        if account is None:
            return True
        if not account.usable(now):
            return False
        account.left -= 1
        return True

    async def admit(self, agent: AgentView, *, now: float) -> None:
        """Take a request, leasing some where none is left. Raises ClientError `requests_limit` or `tokens_limit` (429,
        with Retry-After) when a limit is used up."""
        while not self.take(agent, now=now):
            account = self._account(agent)
            assert account is not None
            async with account.turn:
                if not account.usable(now):  # else the one before us leased for all who waited
                    await self._lease(account, now)

    def charge(self, agent: AgentView, tokens: int, *, now: float) -> None:
        """Count tokens that were used, whatever the limit says now: they are spent."""
        account = self._account(agent)
        if account is None or tokens <= 0 or all(window.requests for window in account.windows):
            return
        account.spent += tokens
        account.spent_at_s = now
        if account.flush is None:
            account.flush = asyncio.get_running_loop().call_later(LEASE_S, self._flush_soon, account)

    async def aclose(self) -> None:
        """Write what was spent and not written yet."""
        for account in self._accounts.values():
            if account.flush is not None:
                account.flush.cancel()
                self._flush_soon(account)
        if self._flushes:
            await asyncio.wait(self._flushes)

    def _account(self, agent: AgentView) -> _Account | None:
        known = self._views.get(id(agent))
        if known is not None and known[0] is agent:
            return known[1]
        if len(self._views) > AGENTS_MAX:
            self._views.clear()
        windows = _windows(agent)
        account = self._accounts.get(agent.name)
        if not windows:
            account = None
        elif account is None or account.windows != windows:
            account = self._accounts[agent.name] = _Account(
                agent.name, windows, spent=account.spent if account is not None else 0
            )
        self._views[id(agent)] = (agent, account)
        return account

    async def _lease(self, account: _Account, now: float) -> None:
        minute = int(now // MINUTE_S)
        same = account.minute == minute
        back = account.left if same else 0
        account.step = 1 if account.left else min(2 * account.step, LEASE_REQUESTS_MAX)
        account.left, spent, account.spent = 0, account.spent, 0
        try:
            refused, granted = await self._ask(account, account.windows, spent, back, now)
        except StoreError:
            account.spent += spent
            raise
        if refused:
            window = account.windows[refused - 1]
            raise ClientError(
                window.code,
                f"the limit of {window.limit} {window.what} is used up; try again later",
                status=429,
                retry_after_s=max(1, int(window.seconds - now % window.seconds)),
            )
        limited = account.windows[-1].requests
        account.left = granted if limited else LEASE_REQUESTS_MAX
        account.minute, account.until_s = minute, now + LEASE_S

    def _flush_soon(self, account: _Account) -> None:
        account.flush = None
        task = asyncio.ensure_future(self._flush(account))
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _flush(self, account: _Account) -> None:
        tokens = tuple(window for window in account.windows if not window.requests)
        spent, account.spent = account.spent, 0
        if not spent:
            return
        try:
            await self._ask(account, tokens, spent, 0, account.spent_at_s)
        except StoreError:
            account.spent += spent  # the next lease or charge carries it

    async def _ask(
        self, account: _Account, windows: tuple[_Window, ...], spent: int, back: int, now: float
    ) -> tuple[int, int]:
        keys: list[str] = []
        arguments: list[str | int] = []
        for window in windows:
            number, into = divmod(now, window.seconds)
            kind = "r" if window.requests else "t"
            prefix = f"gw:{{limits:{account.name}}}:{kind}{window.seconds}:"
            keys += [f"{prefix}{int(number)}", f"{prefix}{int(number) - 1}"]
            weight = 1000 - int(1000 * into / window.seconds)
            wanted = min(account.step, max(1, window.limit // 10)) if window.requests else spent
            arguments += [window.limit, weight, wanted, back if window.requests else -1, 2 * window.seconds]
        refused, granted = await self._link.script(LEASE, keys, arguments)
        return int(refused), int(granted)


def _windows(agent: AgentView) -> tuple[_Window, ...]:
    limits = agent.limits
    found = (
        _Window("tokens_limit", "tokens a minute", limits.tokens_per_minute or 0, MINUTE_S, False),
        _Window("tokens_limit", "tokens a day", limits.tokens_per_day or 0, DAY_S, False),
        _Window("requests_limit", "requests a minute", limits.requests_per_minute or 0, MINUTE_S, True),
    )
    return tuple(window for window in found if window.limit)
