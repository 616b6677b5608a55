"""Who is signed in: signed cookies, CSRF tokens, and a limit on failed sign-ins.

A session holds no rights. It names a credential, and every request asks the keyring anew whether that credential still
stands and which groups it has: a revoked approver is out at once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.policy.identity import TOKEN, Keyring, Person

SESSION_S = 12 * 3600  # a working day; then the token is asked for again
SIGN_IN_FORM_S = 3600  # how long an opened sign-in page may lie about
COOKIE_BYTES_MAX = 1024  # ours are about 250 bytes
ENDED_MAX = 10_000  # signed-out sessions remembered until they expire; each took a sign-in to make


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed-in person. `operator`: came by the link of the embedded default and counts for every group."""

    id: str
    person: Person
    operator: bool
    expires_s: float

    def groups_for(self, group: str) -> frozenset[str]:
        """The groups to decide with, for an action that needs `group`."""
        return frozenset({group}) if self.operator else self.person.groups

    def belongs_to(self, group: str) -> bool:
        return self.operator or group in self.person.groups


class Sessions:
    """Makes and reads the cookies. Keeps nothing but which sessions were signed out early."""

    def __init__(
        self,
        secret: bytes,
        keyring: Callable[[], Keyring],
        clock: Callable[[], float],
        *,
        sign_in_token: str | None = None,
        operator: str = "operator",
    ) -> None:
        if len(secret) < 32:
            raise ValueError("the session secret is shorter than 32 bytes")
        self._cookie_key = _subkey(secret, b"console session cookie 1")
        self._csrf_key = _subkey(secret, b"console csrf 1")
        self._bind_key = _subkey(secret, b"console session binding 1")
        self._keyring = keyring
        self._clock = clock
        self._sign_in_token = sign_in_token
        self._operator = operator
        self._ended: OrderedDict[str, float] = OrderedDict()

    def sign_in(self, token: str) -> str | None:
        """The cookie of a new session for an approver token or the token of the printed link; None for others."""
        if self._is_operator(token):
            return self._seal("link", "", self._bind(token), SESSION_S)
        if self._keyring().approver(token) is None:
            return None
        match = TOKEN.fullmatch(token)
        credential = self._keyring().credentials.get(("approver", match[2])) if match else None
        return self._seal("key", credential.id, self._bind(credential.sha256), SESSION_S) if credential else None

    def bearer(self, token: str) -> Session | None:
        """The session that lasts for one API request."""
        person = self._keyring().approver(token)
        if person is None:
            return None
        return Session(id="", person=person, operator=False, expires_s=self._clock())

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie, if it is genuine, has not expired or ended, and its credential still stands."""
        content = self._open(cookie)
        if content is None or content["i"] in self._ended:
            return None
        operator = content["k"] == "link"
        person = self._linked(content["b"]) if operator else self._keyed(content["c"], content["b"])
        if person is None:
            return None
        return Session(id=content["i"], person=person, operator=operator, expires_s=content["e"])

    def end(self, session: Session) -> None:
        """Sign out: a copy of the cookie is worthless from here on."""
        now = self._clock()
        for known, expires_s in list(self._ended.items()):
            if expires_s > now and len(self._ended) < ENDED_MAX:
                break
            del self._ended[known]
        self._ended[session.id] = session.expires_s

    def form_cookie(self) -> str:
        """For the sign-in form: without it, another site could sign a person in as somebody else."""
        return self._seal("form", "", "", SIGN_IN_FORM_S)

    def form_id(self, cookie: str | None) -> str | None:
        content = self._open(cookie)
        return content["i"] if content is not None and content["k"] == "form" else None

    def csrf(self, session_id: str) -> str:
        """The token that every form of this session carries."""
        return _mac(self._csrf_key, session_id.encode())

    def csrf_matches(self, session_id: str, token: str) -> bool:
        return hmac.compare_digest(self.csrf(session_id).encode(), token.encode("utf-8", "replace"))

    def _is_operator(self, token: str) -> bool:
        expected = self._sign_in_token
        return expected is not None and hmac.compare_digest(expected.encode(), token.encode("utf-8", "replace"))

    def _bind(self, proof: str) -> str:
        return _mac(self._bind_key, proof.encode())[:22]

    def _linked(self, binding: str) -> Person | None:
        token = self._sign_in_token
        if token is None or not hmac.compare_digest(self._bind(token), binding):
            return None
        return Person(name=self._operator, groups=frozenset())

    def _keyed(self, credential_id: str, binding: str) -> Person | None:
        credential = self._keyring().credentials.get(("approver", credential_id))
        if credential is None or not hmac.compare_digest(self._bind(credential.sha256), binding):
            return None
        return Person(name=credential.name, groups=frozenset(credential.groups))

    def _seal(self, kind: str, credential_id: str, binding: str, lasts_s: int) -> str:
        content = {
            "i": secrets.token_urlsafe(16),
            "k": kind,
            "c": credential_id,
            "b": binding,
            "e": int(self._clock()) + lasts_s,
        }
        payload = base64.urlsafe_b64encode(orjson.dumps(content)).decode().rstrip("=")
        return f"{payload}.{_mac(self._cookie_key, payload.encode())}"

    def _open(self, cookie: str | None) -> dict[str, Any] | None:
        if cookie is None or len(cookie) > COOKIE_BYTES_MAX or not cookie.isascii():
            return None
        payload, _, mac = cookie.partition(".")
        if not hmac.compare_digest(_mac(self._cookie_key, payload.encode()), mac):
            return None
        # Genuine from here on: we wrote it ourselves.
        try:
            content: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (binascii.Error, orjson.JSONDecodeError):
            return None
        return content if float(content["e"]) > self._clock() else None


class FailureLimit:
    """How often an address may fail to sign in. Tokens cannot be guessed; this keeps the attempts from being free."""

    FAILURES_MAX = 10
    WINDOW_S = 300.0
    ADDRESSES_MAX = 10_000

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Seconds until the address may try again; 0 when it may now."""
        recent = self._recent(address)
        return int(recent[0] + self.WINDOW_S - self._clock()) + 1 if len(recent) >= self.FAILURES_MAX else 0

    def failed(self, address: str) -> None:
        self._failures[address] = [*self._recent(address), self._clock()][-self.FAILURES_MAX :]
        self._failures.move_to_end(address)
        while len(self._failures) > self.ADDRESSES_MAX:
            self._failures.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        return [at for at in self._failures.get(address, ()) if at > self._clock() - self.WINDOW_S]


def _subkey(secret: bytes, purpose: bytes) -> bytes:
    return hmac.new(secret, purpose, hashlib.sha256).digest()


def _mac(key: bytes, data: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.new(key, data, hashlib.sha256).digest()).decode().rstrip("=")
