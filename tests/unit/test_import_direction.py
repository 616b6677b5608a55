"""The rooms of DESIGN.md section 3: imports run one way, and the pure rooms stay pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "gateway"
LEVEL = {
    "core": 0,
    "wire": 1, "policy": 1, "filters": 1,
    "approvals": 2, "traces": 2, "releases": 2, "evals": 2,
    "proxy": 3, "console": 3,
}  # fmt: skip
TOP = 4
PURE_MAY_IMPORT = {
    "core": {"jiter", "rfc8785"},
    "wire": {"orjson", "jiter"},
}
IMPURE_STDLIB = {
    "asyncio",
    "socket",
    "ssl",
    "time",
    "random",
    "secrets",
    "os",
    "logging",
    "subprocess",
    "threading",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else "app"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "gateway":
                yield from (f"gateway.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0] if len(path.relative_to(PACKAGE).parts) > 1 else "app"
    level = LEVEL.get(here, TOP)
    for name in imports(path):
        if not name.startswith("gateway"):
            continue
        there = room(name)
        if there == here or name == "gateway.__version__":
            continue
        below = LEVEL.get(there, TOP)
        assert below < level or below == level == TOP, f"{path}: `{here}` must not import {name}"


@pytest.mark.parametrize("name", sorted(PURE_MAY_IMPORT))
def test_pure_rooms_import_no_framework_no_clock_and_no_network(name: str) -> None:
    import sys

    for path in (PACKAGE / name).rglob("*.py"):
        for imported in imports(path):
            root = imported.split(".")[0]
            assert root != "datetime" or ".now(" not in path.read_text(encoding="utf-8"), f"{path}: reads the clock"
            assert root not in IMPURE_STDLIB, f"{path}: imports {imported}"
            assert root == "gateway" or root in sys.stdlib_module_names or root in PURE_MAY_IMPORT[name], (
                f"{path}: imports {imported}"
            )


def test_no_module_uses_the_slow_middleware() -> None:
    for path in modules():
        assert "starlette.middleware.base" not in set(imports(path)), (
            f"{path}: BaseHTTPMiddleware costs 280 µs a request"
        )
