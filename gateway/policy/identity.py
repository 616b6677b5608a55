"""Who calls: gateway keys of agents and tokens of approvers, known only by their hash.

The keys file is YAML that `gateway keys` and `gateway approvers` write and that may be versioned or mounted: it holds
no secret. Tokens carry 256 random bits, so one SHA-256 is enough: a slow hash would slow no guess that can succeed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gateway.core.errors import ClientError, PolicyLoadError

Role = Literal["agent", "approver"]
PREFIX: dict[Role, str] = {"agent": "gk", "approver": "ga"}
TOKEN = re.compile(r"(gk|ga)_([a-z0-9]{8})_([A-Za-z0-9_-]{43})", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
KEYS_FILE_BYTES_MAX = 4_000_000  # about 20,000 keys; a larger file is a mistake, and would be read on every change


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """An approver. `groups` are what rules name in `approval.group`."""

    name: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One line of the keys file. `id` is public: it finds the line; `sha256` of the whole token proves it."""

    role: Role
    id: str
    name: str
    sha256: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Keyring:
    """All credentials, by role and id. Immutable: a changed file makes a new one."""

    credentials: dict[tuple[Role, str], Credential] = field(default_factory=dict)

    def agent(self, token: str) -> str | None:
        """The name of the agent that holds this gateway key, or None."""
        found = self._verify("agent", token)
        return found.name if found else None

    def approver(self, token: str) -> Person | None:
        """The person that holds this approver token, or None."""
        found = self._verify("approver", token)
        return Person(name=found.name, groups=frozenset(found.groups)) if found else None

    def _verify(self, role: Role, token: str) -> Credential | None:
        match = TOKEN.fullmatch(token)
        if match is None or match[1] != PREFIX[role]:
            return None
        found = self.credentials.get((role, match[2]))
        # Hash and compare in any case, so that an unknown id takes as long as a wrong secret.
        proof = hashlib.sha256(token.encode("ascii")).hexdigest()
        matches = hmac.compare_digest(proof, found.sha256 if found else "0" * 64)
        return found if matches else None


def load_keyring(path: Path) -> Keyring:
    """Read the keys file; a missing one is an empty keyring. Raises PolicyLoadError for anything it does not know."""
    return Keyring({(c.role, c.id): c for c in _read(path)})


def mint(path: Path, role: Role, name: str, groups: tuple[str, ...] = ()) -> str:
    """Add a credential and return its token, which is shown this once and stored nowhere.

    Raises ClientError `bad_name` for a name or group that could not be written in a policy.
    """
    for word in (name, *groups):
        if not NAME.fullmatch(word):
            raise ClientError(
                "bad_name", f"`{word[:80]!a}` is not a name: use letters, digits and . _ @ - (at most 64)"
            )
    identifier = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(8))
    token = f"{PREFIX[role]}_{identifier}_{secrets.token_urlsafe(32)}"
    proof = hashlib.sha256(token.encode("ascii")).hexdigest()
    with _locked(path):
        entries = [*_read(path), Credential(role=role, id=identifier, name=name, sha256=proof, groups=groups)]
        _write(path, entries)
    return token


def revoke(path: Path, role: Role, name_or_id: str) -> int:
    """Remove every credential of that role with that name or id; returns how many went."""
    with _locked(path):
        entries = _read(path)
        kept = [c for c in entries if c.role != role or name_or_id not in (c.name, c.id)]
        if len(kept) != len(entries):
            _write(path, kept)
    return len(entries) - len(kept)


_SECTIONS: dict[str, Role] = {"agents": "agent", "approvers": "approver"}
_FIELDS = {"id", "name", "sha256", "groups"}


def _read(path: Path) -> list[Credential]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PolicyLoadError((f"{path.name}: cannot be read ({error.strerror})",)) from None
    if len(data) > KEYS_FILE_BYTES_MAX:
        raise PolicyLoadError((f"{path.name}: larger than {KEYS_FILE_BYTES_MAX} bytes",))
    try:
        tree: Any = YAML(typ="safe", pure=True).load(data) or {}
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise PolicyLoadError((f"{path.name}{where}: not valid YAML",)) from None
    if not isinstance(tree, dict) or not set(tree) <= set(_SECTIONS):
        raise PolicyLoadError((f"{path.name}: expected the keys `agents` and `approvers`",))
    found: list[Credential] = []
    for section, entries in tree.items():
        for at, entry in enumerate(entries or []):
            found.append(_credential(path.name, section, at, entry))
    return found


def _credential(file: str, section: str, at: int, entry: Any) -> Credential:
    where = f"{file}: {section}[{at}]"
    if not isinstance(entry, dict) or not set(entry) <= _FIELDS:
        raise PolicyLoadError((f"{where}: expected `id`, `name`, `sha256` and, for approvers, `groups`",))
    identifier, name, proof = (entry.get(key) for key in ("id", "name", "sha256"))
    if not isinstance(identifier, str) or not re.fullmatch(r"[a-z0-9]{8}", identifier):
        raise PolicyLoadError((f"{where}.id: expected 8 lowercase letters or digits, in quotes",))
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise PolicyLoadError((f"{where}.name: expected letters, digits and . _ @ -",))
    if not isinstance(proof, str) or not re.fullmatch(r"[0-9a-f]{64}", proof):
        raise PolicyLoadError((f"{where}.sha256: expected 64 lowercase hex digits, in quotes",))
    groups = entry.get("groups") or []
    if not isinstance(groups, list) or not all(isinstance(g, str) and NAME.fullmatch(g) for g in groups):
        raise PolicyLoadError((f"{where}.groups: expected a list of names",))
    return Credential(role=_SECTIONS[section], id=identifier, name=name, sha256=proof, groups=tuple(groups))


def _write(path: Path, entries: list[Credential]) -> None:
    lines = ["# Hashes of gateway keys and approver tokens, written by `gateway keys` and `gateway approvers`."]
    for section, role in _SECTIONS.items():
        lines.append(f"{section}:")
        for entry in entries:
            if entry.role != role:
                continue
            fields = [f"{key}: {_quoted(getattr(entry, key))}" for key in ("id", "name", "sha256")]
            if entry.groups:
                fields.append(f"groups: [{', '.join(map(_quoted, entry.groups))}]")
            lines.append(f"  - {{{', '.join(fields)}}}")
    replacement = path.with_name(path.name + ".new")
    descriptor = os.open(replacement, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    replacement.replace(path)


def _quoted(word: str) -> str:
    return f'"{word}"'  # NAME and hex admit neither quotes nor backslashes


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time: two `gateway keys create` at once must not lose one of the keys."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(lock, "w"):
        flock(lock, LOCK_EX)
        yield
