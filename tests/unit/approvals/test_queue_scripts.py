"""The Lua carries the state table of core, and nothing else decides where an action may go."""

from __future__ import annotations

import re

import pytest

from gateway.approvals import scripts
from gateway.approvals.link import Script
from gateway.core.held import TRANSITIONS

ALL = [value for value in vars(scripts).values() if isinstance(value, Script)]


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_every_script_carries_exactly_the_edges_of_the_table(script: Script) -> None:
    line = next(line for line in script.source.splitlines() if line.startswith("local EDGES"))
    edges = {tuple(edge.split(">")) for edge in re.findall(r"\['(\w+>\w+)'\] = true", line)}
    assert edges == {(str(source), str(target)) for source, targets in TRANSITIONS.items() for target in targets}


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_a_state_is_written_in_two_places_only(script: Script) -> None:
    written = re.findall(r"'HSET', held\.action, 'state', (\S+?),", script.source)
    assert written.count("to") == 1  # `move`, which asks the table
    assert set(written) - {"to"} == ({"'PENDING'"} if script.name == "propose" else set())


def test_every_name_of_a_state_in_the_lua_exists() -> None:
    for script in ALL:
        named = set(re.findall(r"'([A-Z]{5,})'", script.source)) - {"MAXLEN"}
        commands = set(re.findall(r"redis\.call\('([A-Z]+)'", script.source))
        assert named - commands <= {str(state) for state in TRANSITIONS}, script.name
