"""Sessions are signed, expire, end, and fall with the credential that made them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.console.sessions import SESSION_S, SIGN_IN_FORM_S, FailureLimit, Sessions
from gateway.policy.identity import load_keyring, mint, revoke

LINK = "the-token-of-the-link"


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


@pytest.fixture
def sessions(keys: Path, clock: Clock) -> Sessions:
    return Sessions(b"k" * 32, lambda: load_keyring(keys), clock, sign_in_token=LINK)


def test_an_approver_token_makes_a_session_with_the_groups_of_the_keyring(sessions: Sessions, keys: Path) -> None:
    cookie = sessions.sign_in(mint(keys, "approver", "ana", ("finance",)))
    session = sessions.read(cookie)
    assert session is not None and session.person.name == "ana" and not session.operator
    assert session.belongs_to("finance") and not session.belongs_to("platform")
    assert session.groups_for("platform") == frozenset({"finance"})


def test_the_link_makes_an_operator_who_counts_for_every_group(sessions: Sessions) -> None:
    session = sessions.read(sessions.sign_in(LINK))
    assert session is not None and session.operator and session.person.name == "operator"
    assert session.groups_for("anything") == frozenset({"anything"})


@pytest.mark.parametrize("token", ["", "x", LINK + "x", LINK[:-1], "ga_aaaaaaaa_" + "A" * 43, "\u00e4", "\ud800"])
def test_wrong_tokens_make_no_session(sessions: Sessions, token: str) -> None:
    assert sessions.sign_in(token) is None


def test_an_agent_key_makes_no_session(sessions: Sessions, keys: Path) -> None:
    key = mint(keys, "agent", "bookkeeper")
    assert sessions.sign_in(key) is None and sessions.bearer(key) is None


def test_no_link_no_operator(keys: Path, clock: Clock) -> None:
    sessions = Sessions(b"k" * 32, lambda: load_keyring(keys), clock)
    assert sessions.sign_in("") is None and sessions.sign_in("None") is None


def test_a_changed_cookie_is_no_session(sessions: Sessions) -> None:
    cookie = sessions.sign_in(LINK)
    assert cookie is not None
    for at in range(len(cookie)):
        assert sessions.read(cookie[:at] + ("A" if cookie[at] != "A" else "B") + cookie[at + 1 :]) is None
    for broken in (None, "", ".", cookie.partition(".")[0], cookie + "x", "ä" + cookie, cookie * 50):
        assert sessions.read(broken) is None


def test_a_cookie_of_another_secret_or_link_is_no_session(sessions: Sessions, keys: Path, clock: Clock) -> None:
    cookie = sessions.sign_in(LINK)
    for secret, link in ((b"j" * 32, LINK), (b"k" * 32, "another-link"), (b"k" * 32, None)):
        other = Sessions(secret, lambda: load_keyring(keys), clock, sign_in_token=link)
        assert other.read(cookie) is None


def test_a_session_expires(sessions: Sessions, clock: Clock) -> None:
    cookie = sessions.sign_in(LINK)
    clock.now += SESSION_S - 1
    assert sessions.read(cookie) is not None
    clock.now += 1
    assert sessions.read(cookie) is None


def test_signing_out_ends_copies_of_the_cookie(sessions: Sessions) -> None:
    cookie, other = sessions.sign_in(LINK), sessions.sign_in(LINK)
    session = sessions.read(cookie)
    assert session is not None
    sessions.end(session)
    assert sessions.read(cookie) is None and sessions.read(other) is not None


def test_revoking_the_credential_ends_its_sessions_at_once(sessions: Sessions, keys: Path) -> None:
    cookie = sessions.sign_in(mint(keys, "approver", "ana", ("finance",)))
    assert sessions.read(cookie) is not None
    revoke(keys, "approver", "ana")
    assert sessions.read(cookie) is None


def test_csrf_tokens_belong_to_one_session(sessions: Sessions) -> None:
    assert sessions.csrf_matches("a", sessions.csrf("a"))
    for wrong in ("", sessions.csrf("b"), sessions.csrf("a")[:-1], "ä"):
        assert not sessions.csrf_matches("a", wrong)


def test_the_form_cookie_is_no_session_and_expires(sessions: Sessions, clock: Clock) -> None:
    cookie = sessions.form_cookie()
    assert sessions.read(cookie) is None and sessions.form_id(cookie) is not None
    assert sessions.form_id(sessions.sign_in(LINK)) is None
    clock.now += SIGN_IN_FORM_S
    assert sessions.form_id(cookie) is None


def test_a_short_secret_is_refused(keys: Path, clock: Clock) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sessions(b"short", lambda: load_keyring(keys), clock)


def test_failures_are_limited_by_address_and_forgotten_in_time(clock: Clock) -> None:
    limit = FailureLimit(clock)
    for _ in range(limit.FAILURES_MAX):
        assert limit.wait_s("a") == 0
        limit.failed("a")
    assert 0 < limit.wait_s("a") <= limit.WINDOW_S + 1 and limit.wait_s("b") == 0
    clock.now += limit.WINDOW_S
    assert limit.wait_s("a") == 0


def test_the_table_of_failures_is_bounded(clock: Clock) -> None:
    limit = FailureLimit(clock)
    for number in range(limit.ADDRESSES_MAX + 50):
        limit.failed(str(number))
    assert len(limit._failures) == limit.ADDRESSES_MAX
