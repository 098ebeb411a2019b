"""What Argo CD and Flux say of an object: their own languages, run on what ships."""

from __future__ import annotations

from typing import Any

import cel
from gitops.build import FLUX, HEALTH_LUA, RUNS
from lupa.lua51 import LuaRuntime

__all__ = ["argocd", "flux"]


def argocd(document: dict[str, Any], script: str | None = None) -> tuple[str, str]:
    """What the Lua of `health.lua` says: status and message. Lua 5.1, as Argo CD has it."""
    lua = LuaRuntime(register_eval=False)
    lua.globals().obj = lua.table_from(document, recursive=True)
    health = lua.execute(script or HEALTH_LUA.read_text(encoding="utf-8"))
    return str(health.status), str(health.message)


def flux(document: dict[str, Any]) -> str:
    """What the expressions say, asked in Flux's order; one that cannot be evaluated means that Flux waits."""
    context = {name: value for name, value in document.items() if name in ("metadata", "spec", "status")}
    try:
        for name, expression in FLUX[document["kind"] in RUNS].items():
            if cel.evaluate(expression, context):
                return {"inProgress": "InProgress", "failed": "Failed", "current": "Current"}[name]
    except RuntimeError:
        return "InProgress"
    return "InProgress"
