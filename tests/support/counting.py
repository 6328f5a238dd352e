"""A connection that notes what is asked of the API server."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth


class Counting(Cluster):
    """Counts the requests by what they are for.

    A list's further pages count as the list, and a watch that is opened again as another of the same.
    """

    def __init__(self, kubeconfig: str) -> None:
        super().__init__(ClusterAuth(kubeconfig=kubeconfig))
        self.watches: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        send = self.transport._send

        def noted(method: str, path: str, query: Any, *more: Any, **options: Any) -> Any:
            if "watch" in (query or {}):
                self.watches[path] += 1
            elif "continue" not in (query or {}):
                self.others[f"{method} {path}"] += 1
            return send(method, path, query, *more, **options)

        self.transport._send = noted  # type: ignore[method-assign]

    @property
    def again(self) -> int:
        """How often a watch was opened again: the API server ends those whose reader is slow."""
        return sum(self.watches.values()) - len(self.watches)
