"""Hears what a gate says while it waits, and lets a test act on it: what happens when is then no matter of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Watcher, WatchEvent
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress
from tests.support.kubelet import wait_until

Action = Callable[[], object]


class Listener(Progress):
    """Keeps the lines of a gate, and acts on some of them in the gate's own thread, which goes on afterwards."""

    def __init__(self) -> None:
        super().__init__("test")
        self.lines: list[str] = []
        self._actions: list[tuple[str, Action]] = []

    def on(self, words: str, action: Action) -> Listener:
        """Do something once a line contains these words; one thing after the other, in the order of the calls."""
        self._actions.append((words, action))
        return self

    def update(self, text: str) -> None:
        """Take a line."""
        if self.lines and self.lines[-1] == text:
            return
        self.lines.append(text)
        if self._actions and self._actions[0][0] in text:
            self._actions.pop(0)[1]()

    def wait(self, words: str, timeout: float = 120.0) -> None:
        """Wait in another thread until a line contains these words."""
        wait_until(lambda: any(words in line for line in self.lines), timeout)


class Overheard(Watcher):
    """A watch of a gate, all of whose events are kept; a test puts it in place of the gate's own."""

    events: list[WatchEvent]

    def __init__(
        self, cluster: Any, resource: Any, sink: Callable[[WatchEvent], None], *args: Any, **more: Any
    ) -> None:
        def both(event: WatchEvent) -> None:
            sink(event)
            self.events.append(event)

        super().__init__(cluster, resource, both, *args, **more)
