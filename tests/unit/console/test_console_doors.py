"""Who gets in, from where, and with what on every response."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from gateway.console.guard import BODY_BYTES_MAX
from gateway.console.sessions import SESSION_S
from gateway.policy.identity import mint, revoke
from tests.consoles import LINK_TOKEN, RunningConsole, Status, running_console
from tests.unit.console.conftest import csrf_of

HTML = Path(__file__).parents[3] / "gateway" / "console" / "templates"


def test_following_the_link_shows_a_page_with_one_button_and_signs_nobody_in(
    console: RunningConsole, anonymous: httpx2.Client
) -> None:
    page = anonymous.get(console.sign_in_url)
    assert page.status_code == 200 and page.text.count("<button") == 1
    assert "gateway_session" not in anonymous.cookies
    assert anonymous.get("/approvals").status_code == 303


def test_the_button_makes_a_session_and_leads_on(console: RunningConsole, operator: httpx2.Client) -> None:
    page = operator.get("/approvals")
    assert page.status_code == 200 and "operator" in page.text
    assert operator.get("/").headers["location"] == "/approvals"


def test_the_session_cookie_is_strict_and_out_of_reach_of_scripts(anonymous: httpx2.Client) -> None:
    page = anonymous.get("/sign-in")
    answer = anonymous.post("/sign-in", data={"csrf": csrf_of(page), "token": LINK_TOKEN})
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("gateway_session="))
    for word in ("HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={SESSION_S}"):
        assert word in cookie
    assert "Secure" not in cookie  # plain http on loopback


def test_over_https_the_cookie_is_secure_and_bound_to_the_host(redis_url: str) -> None:
    with running_console(redis_url, public_url="https://approvals.example.com") as console:
        with httpx2.Client(base_url=console.url, headers={"host": "approvals.example.com"}) as client:
            page = client.get("/sign-in")
            cookie = page.headers["set-cookie"]
            assert cookie.startswith("__Host-gateway_sign_in=") and "Secure" in cookie
            assert page.headers["strict-transport-security"].startswith("max-age=")
            assert client.get("/healthz", headers={"host": "10.0.0.7:8081"}).status_code == 200
            assert client.get("/sign-in", headers={"host": "localhost"}).status_code == 421


@pytest.mark.parametrize("token", ["", "wrong", LINK_TOKEN[:-1], "ga_aaaaaaaa_" + "A" * 43])
def test_a_wrong_token_is_refused(anonymous: httpx2.Client, token: str) -> None:
    page = anonymous.get("/sign-in")
    answer = anonymous.post("/sign-in", data={"csrf": csrf_of(page), "token": token})
    assert answer.status_code == 403 and "gateway_session" not in anonymous.cookies
    assert token == "" or token not in answer.text


def test_an_agent_key_does_not_open_the_console(console: RunningConsole, anonymous: httpx2.Client) -> None:
    key = mint(console.keys_path, "agent", "bookkeeper")
    page = anonymous.get("/sign-in")
    assert anonymous.post("/sign-in", data={"csrf": csrf_of(page), "token": key}).status_code == 403
    assert anonymous.get("/api/actions", headers={"authorization": f"Bearer {key}"}).status_code == 401


def test_where_there_is_no_link_no_token_of_a_link_opens(redis_url: str) -> None:
    with running_console(redis_url, link_token=None) as console, httpx2.Client(base_url=console.url) as client:
        page = client.get("/sign-in")
        assert "printed when it started" not in page.text
        for token in ("", "None", LINK_TOKEN):
            assert client.post("/sign-in", data={"csrf": csrf_of(page), "token": token}).status_code == 403


def test_signing_in_needs_the_form_of_this_browser(console: RunningConsole, anonymous: httpx2.Client) -> None:
    page = anonymous.get("/sign-in")
    with httpx2.Client(base_url=console.url) as other:
        answer = other.post("/sign-in", data={"csrf": csrf_of(page), "token": LINK_TOKEN})
        assert answer.status_code == 403 and "gateway_session" not in other.cookies


def test_failures_are_limited(anonymous: httpx2.Client) -> None:
    page = anonymous.get("/sign-in")
    form = {"csrf": csrf_of(page), "token": "wrong"}
    statuses = [anonymous.post("/sign-in", data=form).status_code for _ in range(11)]
    assert statuses == [403] * 10 + [429]
    answer = anonymous.get("/api/status", headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0


def test_failures_of_others_do_not_lock_out_a_right_token(console: RunningConsole, anonymous: httpx2.Client) -> None:
    """Everybody behind one proxy has one address: an agent that reaches the console could keep approvers out."""
    token = console.approver("ana", "finance")
    for _ in range(12):
        anonymous.get("/api/status", headers={"authorization": "Bearer wrong"})
    assert anonymous.get("/api/status", headers={"authorization": f"Bearer {token}"}).status_code == 200
    page = anonymous.get("/sign-in")
    assert anonymous.post("/sign-in", data={"csrf": csrf_of(page), "token": "wrong"}).status_code == 429
    assert anonymous.post("/sign-in", data={"csrf": csrf_of(page), "token": token}).status_code == 303


def test_a_session_ends_by_time_sign_out_and_revocation(
    console: RunningConsole, operator: httpx2.Client, sign_in: Callable[[str], httpx2.Client]
) -> None:
    ana = sign_in(console.approver("ana", "finance"))
    assert ana.get("/approvals").status_code == 200
    revoke(console.keys_path, "approver", "ana")
    assert ana.get("/approvals").status_code == 303
    copy = operator.cookies["gateway_session"]
    answer = operator.post("/sign-out", data={"csrf": csrf_of(operator.get("/approvals"))})
    assert answer.headers["location"] == "/sign-in"
    assert operator.get("/approvals", headers={"cookie": f"gateway_session={copy}"}).status_code == 303
    late = sign_in(LINK_TOKEN)
    console.clock.ahead_s += SESSION_S
    assert late.get("/approvals").status_code == 303


@pytest.mark.parametrize(
    ("target", "lands"),
    [
        ("/runs?agent=a", "/runs?agent=a"),
        ("/approvals/ha_x", "/approvals/ha_x"),
        ("https://evil.example", "/approvals"),
        ("//evil.example", "/approvals"),
        ("/runs//evil.example", "/approvals"),
        ("/runs\\evil", "/approvals"),
        ("/approvals\r\nset-cookie: a=b", "/approvals"),
        ("/sign-out", "/approvals"),
    ],
)
def test_signing_in_leads_to_pages_of_ours_only(anonymous: httpx2.Client, target: str, lands: str) -> None:
    page = anonymous.get("/sign-in", params={"next": target})
    answer = anonymous.post("/sign-in", data={"csrf": csrf_of(page), "token": LINK_TOKEN, "next": target})
    assert answer.headers["location"] == lands


def test_a_link_from_another_site_hops_once_so_that_the_strict_cookie_comes_along(operator: httpx2.Client) -> None:
    operator.cookies.clear()
    page = operator.get("/approvals?cursor=x", headers={"sec-fetch-site": "cross-site"})
    assert page.status_code == 200 and 'content="0; url=/approvals?cursor=x"' in page.text
    assert operator.get("/approvals", headers={"sec-fetch-site": "same-origin"}).status_code == 303


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", ""])
def test_foreign_host_names_are_refused(anonymous: httpx2.Client, host: str) -> None:
    answer = anonymous.get("/approvals", headers={"host": host})
    assert answer.status_code == 421 and answer.json()["error"]["code"] == "unknown_host"


def test_loopback_names_of_the_same_port_are_ours(console: RunningConsole, anonymous: httpx2.Client) -> None:
    port = console.url.rpartition(":")[2]
    assert anonymous.get("/sign-in", headers={"host": f"localhost:{port}"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["10.0.0.7:8081", "127.0.0.1:1", "[::1]:8081", "[fd00::7]", "localhost", "evil.example", "[", "1.2.3.4.evil"],
)
def test_metrics_are_for_whoever_asks_by_address_and_not_for_a_name_that_was_rebound(
    anonymous: httpx2.Client, host: str
) -> None:
    answer = anonymous.get("/metrics", headers={"host": host})
    if host.startswith(("1", "[f", "[:")) and not host.endswith("evil"):
        assert (answer.status_code, answer.text) == (200, "gateway_store_up 1\n")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    else:
        assert answer.status_code == 421
    assert anonymous.get("/approvals", headers={"host": host}).status_code == 421


def test_metrics_are_only_read(anonymous: httpx2.Client, operator: httpx2.Client) -> None:
    assert anonymous.get("/metrics").text == operator.get("/metrics").text == "gateway_store_up 1\n"
    assert anonymous.post("/metrics").status_code == 405
    assert "access-control-allow-origin" not in anonymous.get("/metrics", headers={"origin": "http://evil"}).headers


@pytest.mark.parametrize(
    "path", ["/sign-in", "/nothing", "/api/openapi.json", "/api/actions", "/healthz", "/events", "/runs", "/metrics"]
)
def test_every_response_carries_the_security_headers(anonymous: httpx2.Client, path: str) -> None:
    headers = anonymous.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["referrer-policy"] == "no-referrer" and headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store" and headers["x-frame-options"] == "DENY"


def test_cross_site_writes_are_refused_before_anything_is_read(operator: httpx2.Client) -> None:
    for site in ("cross-site", "same-site"):
        answer = operator.post("/sign-out", data={"csrf": "x"}, headers={"sec-fetch-site": site})
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "cross_site"


def test_large_bodies_are_refused_with_and_without_a_length(operator: httpx2.Client) -> None:
    big = b"csrf=" + b"x" * BODY_BYTES_MAX
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert operator.post("/sign-out", content=big, headers=form).status_code == 413
    assert operator.post("/sign-out", content=iter([big[:50_000], big[50_000:]]), headers=form).status_code == 413


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"csrf=a&csrf=b", "application/x-www-form-urlencoded", 400),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
        (b"csrf=%ff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"f%d=1" % n for n in range(50)), "application/x-www-form-urlencoded", 400),
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data; boundary=x", 415),
    ],
)
def test_malformed_forms_are_refused(operator: httpx2.Client, body: bytes, media: str, status: int) -> None:
    assert operator.post("/sign-out", content=body, headers={"content-type": media}).status_code == status


def test_static_files_are_named_by_their_content(operator: httpx2.Client) -> None:
    page = operator.get("/approvals").text
    found = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert {path.rpartition("/")[2] for path in found} == {"console.css", "console.js", "icon.svg"}
    for path in found:
        answer = operator.get(path)
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert operator.get("/static/0000000000000000/console.css").status_code == 404
    assert operator.get("/static/x/..%2f..%2fapp.py").status_code == 404


def test_pages_hold_no_inline_script_style_or_handler() -> None:
    for template in HTML.glob("*.html"):
        text = template.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", text), template.name
        assert "|safe" not in text and "autoescape" not in text, template.name


def test_a_crash_tells_nothing_and_keeps_the_headers(console: RunningConsole, operator: httpx2.Client) -> None:
    def broken() -> Status:
        raise RuntimeError("a secret detail")

    console.policy = broken
    answer = operator.get("/approvals")
    assert answer.status_code == 500 and "secret detail" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
