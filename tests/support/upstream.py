"""Where tests find the custom resource definitions that our objects must satisfy; none of them is in the repository."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MISSING = "neither ../shared/upstream nor CloudNativePG in Go's module cache is there"


def cloudnative_pg_crds() -> list[Path]:
    """Files with CloudNativePG's definitions: from what is built, else from the stored copies; empty without either."""
    cache = os.environ.get("GOMODCACHE") or Path(os.environ.get("GOPATH") or Path.home() / "go") / "pkg" / "mod"
    module = Path(cache) / "github.com" / "cloudnative-pg" / "cloudnative-pg@v1.30.0" / "config" / "crd" / "bases"
    stored = ROOT.parent / "shared" / "upstream" / "cloudnative-pg" / "crds"
    for folder in (module, stored):
        found = sorted(folder.glob("*.yaml"))
        if found:
            return found
    return []
