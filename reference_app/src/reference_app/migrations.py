"""One history of revisions serves all domains: each makes its own tables, and passes over the others' revisions."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable


def only_for(domain: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Makes an upgrade() or downgrade() do nothing unless DOMAIN_MODULE (default medical_inventory) is `domain`."""

    def decorate(step: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(step)
        def run() -> None:
            if (os.environ.get("DOMAIN_MODULE") or "medical_inventory") == domain:
                step()

        return run

    return decorate
