"""The console command: words to calls. Prints for people, exits with 0 (done), 1 (found wrong) or 2 (asked wrong)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from gateway import __version__
from gateway.core.errors import GatewayError

if TYPE_CHECKING:
    from gateway.policy.identity import Role
    from gateway.settings import Settings

EPILOG = """\
first steps:
  gateway demo                    see the main job done, everything embedded
  gateway keys create bookkeeper  make a key for an agent
  gateway serve                   agents on :8080, approvals on :8081
  gateway policy test             run the test cases beside the policies

Settings are GATEWAY_* variables (docs/settings.md); what agents may do is in the bundle (docs/policy.md).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except GatewayError as error:
        print(error.message, file=sys.stderr)
        return 1
    except BrokenPipeError:  # `gateway policy schema | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="A guardrail and human-in-the-loop gateway between AI agents and what they call.",
        epilog=EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28),
    )
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)

    serve = _command(commands, "serve", "serve agents and the console until stopped", _serve)
    serve.add_argument("--bundle", type=Path, metavar="DIR", help="policy bundle (default: GATEWAY_BUNDLE)")

    demo = _command(commands, "demo", "the main job end to end: no key, no network needed", _demo)
    demo.add_argument(
        "--auto", action="store_true", help="decide by itself; exit 0 only if everything went as it should"
    )

    _command(commands, "check", "check settings, bundle, keys and store, then exit", _check)

    for word, role, people in (
        ("keys", "agent", "gateway keys of agents"),
        ("approvers", "approver", "tokens of approvers"),
    ):
        group = commands.add_parser(word, help=people, description=f"Make, list and revoke {people}.")
        verbs = group.add_subparsers(title="commands", metavar="command", required=True)
        create = _command(verbs, "create", "make one; it is shown this once", _create, role=role)
        create.add_argument("name", help="as policies and records name it")
        if role == "approver":
            create.add_argument(
                "--group", action="append", default=[], metavar="GROUP", help="group that rules name; may be repeated"
            )
        _command(verbs, "list", "names and ids, never the keys", _list, role=role)
        _command(verbs, "revoke", "remove by name or id", _revoke, role=role).add_argument("name", metavar="name-or-id")

    policy = commands.add_parser(
        "policy", help="check, test and explain policies", description="Work on policy bundles."
    )
    verbs = policy.add_subparsers(title="commands", metavar="command", required=True)
    for word, text, call in (
        ("check", "load the bundle; print every problem as file:line:column", _policy_check),
        ("test", "run the test cases that live beside the policies", _policy_test),
    ):
        _command(verbs, word, text, call).add_argument(
            "--bundle", type=Path, metavar="DIR", help="default: GATEWAY_BUNDLE"
        )
    schema = _command(verbs, "schema", "print the JSON Schema for editors", _policy_schema)
    schema.add_argument(
        "kind", nargs="?", choices=("bundle", "policy", "tests"), help="one kind of file (default: all)"
    )
    explain = _command(verbs, "explain", "which rules match one call, and why", _policy_explain)
    explain.add_argument("--agent", required=True)
    explain.add_argument("--tool", required=True, help="as server.tool")
    explain.add_argument("--args", default="{}", metavar="JSON", help="arguments of the call")
    explain.add_argument("--session", default="{}", metavar="JSON", help="session facts")
    explain.add_argument("--surface", default="mcp", choices=("model", "mcp", "http"))
    explain.add_argument("--bundle", type=Path, metavar="DIR", help="default: GATEWAY_BUNDLE")
    return parser


def _command(
    group: argparse._SubParsersAction[argparse.ArgumentParser],
    word: str,
    text: str,
    call: Callable[[argparse.Namespace], int],
    **fixed: object,
) -> argparse.ArgumentParser:
    parser = group.add_parser(word, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=call, **fixed)
    return parser


def _settings(bundle: Path | None = None) -> Settings:
    """The settings, or an exit with one line per mistake. Values are not printed: a URL may hold a password."""
    from pydantic import ValidationError

    from gateway.settings import Settings

    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = f"GATEWAY_{'_'.join(str(part) for part in problem['loc'])}".upper() if problem["loc"] else "settings"
            print(f"{name}: {problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        raise SystemExit(2) from None
    return settings if bundle is None else settings.model_copy(update={"bundle": bundle})


def _serve(options: argparse.Namespace) -> int:
    from gateway.app import serve

    return serve(_settings(options.bundle))


def _demo(options: argparse.Namespace) -> int:
    try:
        from gateway.demo.run import demo
    except ModuleNotFoundError as error:
        print(f"the demo needs the package `{error.name}`: pip install 'agent-gateway[demo]'", file=sys.stderr)
        return 2
    return demo(auto=options.auto, bundle=_settings().bundle)


def _check(options: argparse.Namespace) -> int:
    from gateway.app import check

    del options
    return check(_settings())


def _create(options: argparse.Namespace) -> int:
    from gateway.policy.identity import mint

    path = _settings().keys_path
    token = mint(path, options.role, options.name, tuple(getattr(options, "group", ())))
    print(token)
    print(f"Shown this once; its hash is in {path}.", file=sys.stderr)
    return 0


def _list(options: argparse.Namespace) -> int:
    from gateway.policy.identity import load_keyring

    role: Role = options.role
    rows = [entry for entry in load_keyring(_settings().keys_path).credentials.values() if entry.role == role]
    for entry in sorted(rows, key=lambda row: row.name):
        print(f"{entry.name}\t{entry.id}" + (f"\t{', '.join(entry.groups)}" if entry.groups else ""))
    if not rows:
        print("there are none yet", file=sys.stderr)
    return 0


def _revoke(options: argparse.Namespace) -> int:
    from gateway.policy.identity import revoke

    count = revoke(_settings().keys_path, options.role, options.name)
    if not count:
        print(f"nothing has the name or id {options.name[:80]!a}", file=sys.stderr)
        return 1
    print(f"revoked {count}; a running gateway notices within a second")
    return 0


class _Known(TypedDict):
    known_kinds: Collection[str]
    known_obligations: Collection[str]


def _known() -> _Known:
    """What a bundle may ask for, so that the loader refuses what nobody does."""
    from gateway.filters import KINDS
    from gateway.proxy.obligations import KNOWN_OBLIGATIONS

    return {"known_kinds": KINDS, "known_obligations": KNOWN_OBLIGATIONS}


def _policy_check(options: argparse.Namespace) -> int:
    from gateway.policy import commands

    return commands.check(_settings(options.bundle).bundle, environment=os.environ, **_known())


def _policy_test(options: argparse.Namespace) -> int:
    from gateway.policy import commands

    return commands.test(_settings(options.bundle).bundle, environment=os.environ, **_known())


def _policy_schema(options: argparse.Namespace) -> int:
    from gateway.policy import commands

    return commands.schema(options.kind)


def _policy_explain(options: argparse.Namespace) -> int:
    from gateway.policy import commands

    return commands.explain(
        _settings(options.bundle).bundle,
        agent=options.agent,
        tool=options.tool,
        args_json=options.args,
        session_json=options.session,
        surface=options.surface,
        environment=os.environ,
    )
