"""The link over TLS and with a password, on Debian's redis-server: trusted is spoken to, untrusted is not."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.approvals.link import connect
from gateway.core.errors import StoreError
from tests.servers import DEBIAN_REDIS, ask

pytestmark = pytest.mark.skipif(DEBIAN_REDIS is None, reason="no redis-server on this machine")

PASSWORD = "correct horse @/:"
QUOTED = "correct%20horse%20%40%2F%3A"


@dataclass(frozen=True)
class TlsServer:
    port: int
    ca_file: Path


def write_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(scope="module")
def server() -> Iterator[TlsServer]:
    """A redis-server on a free TLS port of loopback; its unix socket says when it is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="gw-tls-") as name:
        folder = Path(name)
        write_certificate(folder)
        settings = {
            "port": "0",
            "tls-port": str(port),
            "bind": "127.0.0.1",
            "tls-cert-file": "cert.pem",
            "tls-key-file": "key.pem",
            "tls-auth-clients": "no",
            "requirepass": PASSWORD,
            "unixsocket": f"{folder}/s",
            "save": "",
        }
        assert DEBIAN_REDIS is not None
        process = subprocess.Popen(
            [DEBIAN_REDIS, *(word for key, value in settings.items() for word in (f"--{key}", value))],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "Ready to accept connections" in line:
                    break
            assert process.poll() is None
            with pytest.raises(Exception, match="NOAUTH"):
                ask(f"unix://{folder}/s", "PING")
            yield TlsServer(port, folder / "cert.pem")
        finally:
            process.terminate()
            process.communicate()


def test_a_trusted_server_is_logged_in_to_and_used(server: TlsServer) -> None:
    async def main() -> None:
        link = connect(f"rediss://:{QUOTED}@localhost:{server.port}/2?ca_file={server.ca_file}")
        await link.command("SET", "a", 1)
        assert await link.command("GET", "a") == b"1"
        assert b"db=2" in await link.command("CLIENT", "INFO")
        await link.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_untrusted_or_misnamed_server_gets_no_password(server: TlsServer, host: str) -> None:
    trust = "" if host == "localhost" else f"?ca_file={server.ca_file}"  # unknown issuer; known issuer, other name

    async def main() -> None:
        link = connect(f"rediss://:{QUOTED}@{host}:{server.port}/0{trust}", timeout_s=0.3)
        with pytest.raises(StoreError):
            await link.command("SET", "a", 1)
        assert not link.connected
        await link.aclose()

    asyncio.run(main())


def test_a_wrong_password_is_a_store_error(server: TlsServer) -> None:
    async def main() -> None:
        link = connect(f"rediss://:wrong@localhost:{server.port}?ca_file={server.ca_file}", timeout_s=0.3)
        with pytest.raises(StoreError) as caught:
            await link.command("SET", "a", 1)
        assert "wrong" not in caught.value.message
        await link.aclose()

    asyncio.run(main())
