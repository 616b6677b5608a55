"""Conditions of rules: CEL, checked when a bundle is loaded, evaluated with bounds, and never mistaken for true.

Owns cel-expr-python: nothing above this module sees it. Its traps and what is done about them: errors come back as
values whose bool() is True (only a value that *is* True counts); evaluation raises when the iteration budget is used
up (caught: an error); text is cut at the first NUL byte, so a condition would judge less than what is sent (refused);
NaN and infinity compare as false (refused); every argument is converted before the first operator runs (size capped).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import cache, lru_cache
from typing import Any

import orjson
from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from gateway.core.canonical import JSON
from gateway.policy.problems import did_you_mean

ARGUMENT_BYTES_MAX = 1024 * 1024  # converting 1 MB for a condition costs 1 ms
LOOP_BYTES_MAX = 32 * 1024  # CEL stops after 10,000 iterations, each may search all arguments: 0.2 s at worst, measured
CONDITION_CHARACTERS_MAX = 4096  # longer than a screen is a policy of its own

VARIABLES: Mapping[str, tuple[str, str]] = {
    "args": ("map(string, dyn)", "arguments of the call; ask `has(args.x)` before you use what may be missing"),
    "action.name": ("string", "`server.tool`"),
    "action.server": ("string", "the MCP server or HTTP tool; `local` for what the agent executes itself"),
    "action.tool": ("string", "the tool or operation"),
    "action.surface": ("string", "`model`, `mcp` or `http`"),
    "agent.name": ("string", "the calling agent"),
    "agent.groups": ("list(string)", "its groups"),
    "agent.owner": ("string", "its owner, empty where the bundle names none"),
    "session": (
        "map(string, dyn)",
        "what the agent did lately: `run` (as it names it, or null), `calls`, `held`, `denied` (numbers), "
        "`tools`, `findings` (lists of names)",
    ),
    "now": ("timestamp", "the time of the decision: `now.getHours('Europe/Berlin') < 8`"),
}
"""What a condition may name: type and meaning. Declared one by one, so that `agent.gropus` is a load error."""

_TYPES = {
    "map(string, dyn)": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    "list(string)": cel.Type.List(cel.Type.STRING),
    "string": cel.Type.STRING,
    "timestamp": cel.Type.TIMESTAMP,
}
_STATIC = tuple(name for name in VARIABLES if name.startswith(("action.", "agent.")))
_ERROR = re.compile(r"^(?:INVALID_ARGUMENT: )?ERROR: <input>:(\d+):(\d+): (.*)$", re.M)
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_LOOP = re.compile(r"\.\s*(all|exists|exists_one|existsOne|map|filter)\s*\(")


class Truth(Enum):
    """What a condition says. ERROR is not false: the rule that asked denies."""

    TRUE = "true"
    FALSE = "false"
    ERROR = "error"


class ConditionError(Exception):
    """A condition that cannot be used. `mistakes` are (line, column, what was found, hint); places count from 1 in its
    own text."""

    def __init__(self, mistakes: tuple[tuple[int, int, str, str], ...]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A compiled condition. `static` ones name only the agent and the action, so they are decided once, not per call;
    `loops` ones run through lists and get smaller arguments."""

    text: str
    static: bool
    loops: bool
    _expression: Any = field(repr=False)

    def truth(self, facts: Facts) -> Truth:
        """TRUE or FALSE, and ERROR for everything else that may come back. Never raises."""
        activation = facts.activation(loops=self.loops)
        if activation is None:
            return Truth.ERROR
        try:
            value = self._expression.eval(activation).value()
        except (RuntimeError, ValueError, TypeError, OverflowError):
            return Truth.ERROR  # the iteration budget, or a value that the binding cannot convert
        return Truth.TRUE if value is True else Truth.FALSE if value is False else Truth.ERROR

    def explain(self, facts: Facts) -> str:
        """Why `truth` said ERROR, in CEL's words. They quote arguments: for the operator's own terminal only."""
        activation = facts.activation(loops=self.loops)
        if activation is None:
            return f"the arguments are too large, not finite, or hold a NUL byte: {facts.refused}"
        try:
            return " ".join(str(self._expression.eval(activation).value()).split())
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            return " ".join(str(error).split())


class Facts:
    """What conditions may look at in one decision; converted at most once, and only when a condition asks."""

    __slots__ = ("_activation", "_arguments", "_checked", "_fixed", "_now", "_session", "_size", "refused")

    def __init__(
        self, fixed: Mapping[str, Any], arguments: Mapping[str, JSON], session: Mapping[str, JSON], now: float
    ) -> None:
        self._fixed = fixed
        self._arguments = arguments
        self._session = session
        self._now = now
        self._activation: Any = None
        self._checked = False
        self._size = 0
        self.refused = ""

    def without_call(self) -> Facts:
        """Only what is known before a call: enough for static conditions."""
        return Facts(self._fixed, {}, {}, 0.0)

    def activation(self, *, loops: bool) -> Any:
        """The converted facts, or None when they must not be given to a condition."""
        if not self._checked:
            self._check()
        return None if self._activation is None or (loops and self._size > LOOP_BYTES_MAX) else self._activation

    def _check(self) -> None:
        self._checked = True
        arguments = self._arguments if type(self._arguments) is dict else dict(self._arguments)
        session = self._session if type(self._session) is dict else dict(self._session)
        try:
            # One pass in C finds the size, integers beyond 64 bits, lone surrogates, foreign types and deep nesting.
            spelled = orjson.dumps(arguments)
            self._size = len(spelled)
            if self._size > ARGUMENT_BYTES_MAX:
                self.refused = f"{self._size} bytes"
                return
            if (b"null" in spelled or b"\\u0000" in spelled) and not all(map(_convertible, _leaves(arguments))):
                self.refused = "a value that is cut or compares as false"
                return
            now = datetime.fromtimestamp(self._now, UTC)
            self._activation = environment().Activation(
                {**self._fixed, "args": arguments, "session": session, "now": now}
            )
        except (TypeError, ValueError, OverflowError, OSError, RuntimeError) as error:
            self.refused = type(error).__name__


def _leaves(value: Any) -> Iterator[Any]:
    """Every key and scalar. Recursion is bounded: orjson refused more than 254 levels before."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _convertible(leaf: Any) -> bool:
    return math.isfinite(leaf) if isinstance(leaf, float) else not (isinstance(leaf, str) and "\0" in leaf)


@cache
def environment() -> Any:
    """The CEL environment with every variable; 50 ms once, so it is made when the first condition is compiled."""
    return _environment(tuple(VARIABLES))


@cache
def _environment(names: tuple[str, ...]) -> Any:
    variables = {name: _TYPES[VARIABLES[name][0]] for name in names}
    return cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings()])


@lru_cache(maxsize=4096)  # 0.1 ms each; a reload compiles only what changed
def compile_condition(text: str) -> Condition:
    """Compile and type-check. Raises ConditionError unless the result is certain to be true or false."""
    if len(text) > CONDITION_CHARACTERS_MAX:
        raise ConditionError(((1, 1, f"more than {CONDITION_CHARACTERS_MAX} characters", ""),))
    try:
        expression = environment().compile(text)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConditionError(_mistakes(str(error))) from None
    if not expression.return_type() == cel.Type.BOOL:
        raise ConditionError(((1, 1, f"an expression that gives {_named(expression.return_type())}", ""),))
    try:
        expression = _environment(_STATIC).compile(text)
        static = True
    except RuntimeError:
        static = False
    return Condition(text, static, _LOOP.search(text) is not None, expression)


def _named(kind: Any) -> str:
    return "a value of unknown type (compare it: `== true`)" if kind == cel.Type.DYN else str(kind.name()).lower()


def _mistakes(message: str) -> tuple[tuple[int, int, str, str], ...]:
    """CEL's errors with their places; the words of the parser are kept, its internals are not."""
    found = []
    for line, column, text in _ERROR.findall(message):
        undeclared = _UNDECLARED.search(text)
        if undeclared:
            name = undeclared[1]
            words, hint = f"`{name}`, which is no variable or function", did_you_mean(name, VARIABLES)
        else:
            words, hint = re.sub(r"\s*expecting \{.*", "", text).strip(), ""
        found.append((int(line), int(column), words.removeprefix("found ")[:200], hint))
    return tuple(found[:5]) or ((1, 1, "an expression that CEL cannot read", ""),)
