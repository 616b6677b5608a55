"""`gateway policy ...`: text for people and an exit code: 0 done, 1 found wrong, 2 asked wrong.

Environment variables that are not set are no problem here: bundles are checked on machines that hold no secrets.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TextIO

from gateway.core.action import Action, Surface
from gateway.core.canonical import JSON, parse
from gateway.core.errors import ClientError, PolicyLoadError
from gateway.policy.cases import CaseResult, run_cases, unreached_rules
from gateway.policy.explanation import explain as explanation
from gateway.policy.load import load_bundle
from gateway.policy.policyset import PolicySet
from gateway.policy.problems import did_you_mean, listing, quote
from gateway.policy.reference import json_schema

SHORT_DIGEST = 12


def check(
    path: Path,
    *,
    environment: Mapping[str, str],
    known_kinds: Collection[str] | None = None,
    known_obligations: Collection[str] | None = None,
    out: TextIO | None = None,
) -> int:
    """Load the bundle; print what it declares, or every problem."""
    out = out or sys.stdout
    policies = _load(path, environment, out, known_kinds, known_obligations)
    if policies is None:
        return 1
    counts = {
        "agent": len(policies.agents),
        "model route": len(policies.models),
        "MCP server": len(policies.servers),
        "HTTP tool": len(policies.http_tools),
        "policy": len(policies.policies),
        "rule": sum(len(policy.rules) for policy in policies.policies),
        "filter": sum(len(policy.filters) for policy in policies.policies),
        "test case": len(policies.cases),
    }
    print(f"{path} is good: " + ", ".join(_count(number, word) for word, number in counts.items()), file=out)
    print(f"release {policies.release}", file=out)
    for name in policies.agents:
        view = policies.agent(name)
        if view is not None and not view.layers:
            print(f"note: no policy applies to agent {quote(name)}: everything it asks for is denied", file=out)
    return 0


def test(
    path: Path,
    *,
    environment: Mapping[str, str],
    known_kinds: Collection[str] | None = None,
    known_obligations: Collection[str] | None = None,
    out: TextIO | None = None,
) -> int:
    """Run the cases of the bundle; print each, and what a failed one got. A bundle without cases fails."""
    out = out or sys.stdout
    policies = _load(path, environment, out, known_kinds, known_obligations)
    if policies is None:
        return 1
    results = list(run_cases(policies))
    for result in results:
        _print_case(result, out)
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed} passed, {failed} failed, release {policies.release[:SHORT_DIGEST]}", file=out)
    for name in unreached_rules(policies, results):
        print(f"note: no case is decided by {name}", file=out)
    if not results:
        print(f"no test cases: put some into {path / 'tests'}", file=out)
    return 1 if failed or not results else 0


def schema(kind: str | None = None, *, out: TextIO | None = None) -> int:
    """Print the JSON Schema of `bundle`, `policy` or `tests` files; without a kind, one that accepts all three."""
    json.dump(json_schema(kind), out or sys.stdout, indent=2)
    print(file=out or sys.stdout)
    return 0


def explain(  # noqa: PLR0913 - one parameter per word of the command line
    path: Path,
    *,
    agent: str,
    tool: str,
    args_json: str = "{}",
    session_json: str = "{}",
    surface: str = "mcp",
    environment: Mapping[str, str],
    now: float | None = None,
    out: TextIO | None = None,
) -> int:
    """Print every layer and rule for one call, and the decision."""
    out = out or sys.stdout
    policies = _load(path, environment, out)
    if policies is None:
        return 1
    view = policies.agent(agent)
    if view is None:
        print(f"no agent {quote(agent)}; declared are {listing(policies.agents)}", file=out)
        return 2
    if surface not in tuple(Surface):
        print(f"no surface {quote(surface)}; it is {listing(Surface)}", file=out)
        return 2
    server, dot, name = tool.partition(".")
    if not dot or not name:
        print(f"no tool {quote(tool)}; write it as `server.tool`{did_you_mean(tool, policies.servers)}", file=out)
        return 2
    try:
        arguments, session = _object(args_json, "--args"), _object(session_json, "--session")
    except ClientError as error:
        print(error.message, file=out)
        return 2
    action = Action(surface=Surface(surface), server=server, tool=name, arguments=arguments)
    for line in explanation(policies, view, action, session, time.time() if now is None else now):
        print(line, file=out)
    return 0


def _load(
    path: Path,
    environment: Mapping[str, str],
    out: TextIO,
    known_kinds: Collection[str] | None = None,
    known_obligations: Collection[str] | None = None,
) -> PolicySet | None:
    try:
        return load_bundle(
            path,
            environment=environment,
            known_kinds=known_kinds,
            known_obligations=known_obligations,
            lenient=True,
        )
    except PolicyLoadError as error:
        for problem in error.problems:
            print(problem, file=out)
        print(f"{path} cannot be used: {_count(len(error.problems), 'problem')}", file=out)
        return None


def _object(text: str, what: str) -> dict[str, JSON]:
    value = parse(text.encode("utf-8", "surrogatepass"), f"value of {what}")
    if not isinstance(value, dict):
        raise ClientError("invalid_json", f"the value of {what} is not an object; write `{{...}}`")
    return value


def _print_case(result: CaseResult, out: TextIO) -> None:
    case = result.case
    if result.passed:
        print(f"ok    {case.name}", file=out)
        return
    print(f"FAIL  {case.name}", file=out)
    print(f"      {case.place}: {case.agent} calls {case.tool or case.model}", file=out)
    print(f"      expected {case.expect}{f' by {case.rule}' if case.rule else ''}", file=out)
    by = f" by {' and '.join(result.rules)}" if result.rules else ""
    where = f" ({result.decided_at})" if result.decided_at else ""
    print(f"      got      {result.effect}{by}{where}: {result.reason}", file=out)


def _count(number: int, word: str) -> str:
    if number == 1:
        return f"1 {word}"
    return f"{number} {word.removesuffix('y')}ies" if word.endswith("cy") else f"{number} {word}s"
