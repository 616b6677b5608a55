"""TLS to upstreams: verified by the system's store, against the name that was configured, and no body cut unnoticed."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.proxy.pool import Pool, Target, Timeouts, UpstreamFailure
from tests.contract.conftest import Run
from tests.contract.raw_upstream import Peer, answering, ok, once, upstream

QUICK = Timeouts(connect_s=5, write_s=5, read_s=5, pool_s=5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream under test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "upstream.pem"
    path.write_bytes(
        built.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_trusted_upstream_is_spoken_to_and_kept(run: Run, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # where OpenSSL looks for the system's store

    async def main() -> None:
        pool = Pool()
        async with upstream(answering(ok(b"a" * 100_000)), serving(certificate)) as server:
            target = Target(True, "127.0.0.1", server.port)
            for _ in range(3):
                response = await pool.request(target, "POST", b"/", [], b"x" * 300_000, timeouts=QUICK)
                assert await response.read(100_000) == b"a" * 100_000
            assert len(server.peers) == 1
            await pool.aclose()
            assert pool.stats().open == 0

    run(main())


@pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", False), ("localhost", True)], ids=["unknown", "misnamed"])
def test_untrusted_upstream_gets_no_request(
    run: Run, certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def main() -> None:
        pool = Pool()
        async with upstream(answering(ok()), serving(certificate)) as server:
            with pytest.raises(UpstreamFailure) as caught:
                await pool.request(Target(True, host, server.port), "POST", b"/", [], b"x", timeouts=QUICK)
            assert (caught.value.code, caught.value.dispatched) == ("upstream_connect", False)
            assert "certificate" in caught.value.message
            assert not server.peers
            assert pool.stats().open == 0
            await pool.aclose()

    run(main())


def test_upstream_that_speaks_no_tls(run: Run) -> None:
    async def main() -> None:
        pool = Pool()

        async def script(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with upstream(script) as server:
            with pytest.raises(UpstreamFailure) as caught:
                await pool.request(Target(True, "127.0.0.1", server.port), "POST", b"/", [], b"x", timeouts=QUICK)
            assert (caught.value.code, caught.value.dispatched) == ("upstream_connect", False)
            await pool.aclose()

    run(main())


def test_body_without_length_ends_with_the_goodbye_of_tls(
    run: Run, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def main() -> None:
        pool = Pool()
        async with upstream(once(b"HTTP/1.1 200 OK\r\n\r\npay 1000"), serving(certificate)) as server:
            response = await pool.request(
                Target(True, "127.0.0.1", server.port), "POST", b"/", [], b"x", timeouts=QUICK
            )
            assert await response.read(100) == b"pay 1000"
            await pool.aclose()

    run(main())


def test_body_without_length_that_is_cut_below_tls_is_not_taken_for_whole(
    run: Run, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\npay 100")
        peer.cut()
        await peer.hung_up()

    async def main() -> None:
        pool = Pool()
        async with upstream(script, serving(certificate)) as server:
            response = await pool.request(
                Target(True, "127.0.0.1", server.port), "POST", b"/", [], b"x", timeouts=QUICK
            )
            with pytest.raises(UpstreamFailure) as caught:
                await response.read(100)
            assert caught.value.code == "upstream_closed"
            await pool.aclose()

    run(main())
