"""Templates to pages. Autoescape is on for everything; untrusted text goes through `reveal` beside."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from gateway.console import durations
from gateway.console.reveal import reveal
from gateway.core.errors import ClientError

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class Assets:
    """The static files, read once. Addresses hold the digest of the content, so browsers may keep them for good."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, bytes, str]] = {}
        for path in sorted((_HERE / "static").iterdir()):
            if path.suffix in _TYPES:
                data = path.read_bytes()
                self._files[path.name] = (hashlib.sha256(data).hexdigest()[:16], data, _TYPES[path.suffix])

    def url(self, name: str) -> str:
        return f"/static/{self._files[name][0]}/{name}"

    async def serve(self, request: Request) -> Response:
        found = self._files.get(request.path_params["name"])
        if found is None or found[0] != request.path_params["digest"]:
            raise ClientError("not_found", "there is no such file", status=404)
        return Response(found[1], media_type=found[2], headers={"cache-control": "public, max-age=31536000, immutable"})


def environment(assets: Assets) -> Environment:
    """The templates with the filters that they use. An undefined name is an error, not an empty string."""
    env = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Any] = {
        "reveal": reveal,
        "span": durations.span,
        "fine_span": durations.fine_span,
        "moment": durations.moment,
        "iso": durations.iso,
        "sentence": lambda text: text[:1].upper() + text[1:],
        "thousands": lambda number: f"{number:,}",
    }
    env.filters.update(filters)
    env.globals["asset"] = assets.url
    return env
