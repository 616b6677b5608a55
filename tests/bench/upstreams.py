"""The two upstreams behind every contender: nginx with a fixed completion, and the model that streams."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import wire
from tests.bench.ground import PYTHON, BenchError, Cores, await_port, free_port, running

NGINX_HEAD = """\
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s; client_max_body_size 10m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
"""


@dataclass(frozen=True, slots=True)
class Upstreams:
    json_port: int
    stream_port: int


def nginx() -> str:
    """The binary. Raises BenchError where there is none."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise BenchError("nginx is not installed")
    return found


@contextmanager
def upstreams(folder: Path, cores: Cores, *, events: int, gap_ms: float) -> Iterator[Upstreams]:
    """Both, on the core of the load, until the block ends."""
    home = folder / "upstream"
    home.mkdir(parents=True, exist_ok=True)
    json_port, stream_port = free_port(), free_port()
    config = home / "nginx.conf"
    config.write_text(
        NGINX_HEAD.format(folder=home)
        + f"  server {{ listen 127.0.0.1:{json_port} backlog=1024; default_type application/json;\n"
        + f"    location / {{ return 200 '{wire.COMPLETION.decode()}'; }} }}\n}}\n"
    )
    with (
        running([nginx(), "-p", str(home), "-c", str(config)], log=home / "log", core=cores.load) as server,
        running(
            [str(PYTHON), "-m", "tests.bench.sse_upstream", str(stream_port), str(events), str(gap_ms)],
            log=home / "stream.log",
            core=cores.load,
        ) as model,
    ):
        await_port(json_port, server, 10)
        await_port(stream_port, model, 20)
        yield Upstreams(json_port, stream_port)
