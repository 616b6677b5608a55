"""Bundles written into a folder for one test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.core.action import Action, Surface
from gateway.core.decision import Decision
from gateway.policy import PolicySet, load_bundle

BUNDLE = """\
agents:
  bob: {groups: [finance], owner: dana}
  eve: {groups: [interns]}
models:
  - {name: main, match: ['gpt-*'], url: 'https://models.example/v1', paths: [{path: /embeddings}], offers: [gpt-small]}
servers:
  bank: {url: 'http://127.0.0.1:9101/mcp'}
http_tools:
  crm:
    url: http://127.0.0.1:9103
    operations:
      read: {method: GET, path: '/contacts/{id}'}
      delete: {method: DELETE, path: '/contacts/{id}'}
functions: {pay: bank.transfer}
"""


def write_bundle(folder: Path, files: Mapping[str, str], *, bundle: str = BUNDLE) -> Path:
    """Write `policies/x.yaml` and so on below the folder, with a bundle.yaml of two agents, a bank and a CRM."""
    for name, text in {"bundle.yaml": bundle, **files}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def load(folder: Path, files: Mapping[str, str], *, bundle: str = BUNDLE, **options: Any) -> PolicySet:
    return load_bundle(
        write_bundle(folder, files, bundle=bundle), environment=options.pop("environment", {}), **options
    )


def decide(
    policies: PolicySet,
    agent: str,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    surface: Surface = Surface.MCP,
    session: Mapping[str, Any] | None = None,
    now: float = 1_767_614_400.0,
) -> Decision:
    view = policies.agent(agent)
    assert view is not None
    server, _, name = tool.partition(".")
    action = Action(surface=surface, server=server, tool=name, arguments=arguments or {})
    return policies.decide(view, action, session or {}, now=now)
