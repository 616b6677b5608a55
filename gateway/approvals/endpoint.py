"""Where a Redis is: the URL that an operator writes, taken apart. Opens nothing."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.core.errors import ClientError

_FORMS = "redis://host:port/db, rediss://host:port/db or unix:///path?db=0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One Redis server. The password is left out of `repr`, so that it reaches no log and no traceback."""

    host: str = ""
    port: int = 6379
    path: str = ""  # of a unix socket; then host and port mean nothing
    tls: bool = False
    ca_file: str | None = None  # None: the system's store
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0

    def __str__(self) -> str:
        where = f"unix://{self.path}" if self.path else f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}"
        return f"{where} db {self.db}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """Verifying always: there is no switch that turns verification off."""
        return ssl.create_default_context(cafile=self.ca_file) if self.tls else None


def parse_url(url: str) -> Endpoint:
    """The endpoint of a URL. Raises ClientError `redis_url`, which never quotes the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        raise _refused("it is not a URL with a port from 1 to 65535") from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise _refused(f"the scheme `{parts.scheme[:20]}` is not known")
    unknown = sorted(query.keys() - ({"db", "ca_file"} if parts.scheme == "rediss" else {"db"}))
    if unknown:
        raise _refused(f"the parameter `{unknown[0][:40]}` is not known")
    ca_file = query.get("ca_file")
    if ca_file is not None and not Path(ca_file).is_file():
        raise _refused("`ca_file` is not a file")
    unix = parts.scheme == "unix"
    db = query.get("db") or ("0" if unix else parts.path.strip("/") or "0")
    if not (db.isascii() and db.isdigit()):
        raise _refused("the database is not a number")
    if unix and not parts.path.startswith("/"):
        raise _refused("a unix socket needs an absolute path")
    if not unix and not parts.hostname:
        raise _refused("it names no host")
    return Endpoint(
        host=parts.hostname or "",
        port=port,
        path=unquote(parts.path) if unix else "",
        tls=parts.scheme == "rediss",
        ca_file=ca_file,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        db=int(db),
    )


def _refused(found: str) -> ClientError:
    return ClientError("redis_url", f"the redis url is refused: {found}; write {_FORMS}")
