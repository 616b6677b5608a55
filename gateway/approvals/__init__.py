"""The approval queue: what is held, who decided, and the one claim that lets it run.

Owns the connection to Redis, the server that the gateway starts by itself, and the Lua that makes every transition
atomic. Knows nothing of HTTP, policies or people's sessions: names and groups are passed in, and so is the clock.
"""

from gateway.approvals.embedded import EmbeddedRedis
from gateway.approvals.held_action import Claim, Event, HeldAction, Page, Proposal, Verdict, Vote
from gateway.approvals.link import RedisLink, Script, connect
from gateway.approvals.queue import Queue
from gateway.approvals.queue_limits import QueueLimits
from gateway.approvals.waking import MISSED, Change, Changes

__all__ = [
    "MISSED",
    "Change",
    "Changes",
    "Claim",
    "EmbeddedRedis",
    "Event",
    "HeldAction",
    "Page",
    "Proposal",
    "Queue",
    "QueueLimits",
    "RedisLink",
    "Script",
    "Verdict",
    "Vote",
    "connect",
]
