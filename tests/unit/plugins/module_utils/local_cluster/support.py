"""Stand-ins that the tests of the local cluster share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Completed

RECORDED = Path(__file__).parent / "recorded"


@dataclasses.dataclass
class Recorder:
    """A runner that answers from what was recorded, by the longest prefix of the command, and remembers commands."""

    answers: Mapping[str, Completed] = dataclasses.field(default_factory=dict)
    commands: list[str] = dataclasses.field(default_factory=list)
    environments: list[Mapping[str, str]] = dataclasses.field(default_factory=list)

    def __call__(
        self,
        command: Sequence[str],
        *,
        timeout: float = 60.0,
        stdin: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        text = " ".join(command)
        self.commands.append(text)
        self.environments.append(environment or {})
        if environment and environment.get("KUBECONFIG"):
            Path(environment["KUBECONFIG"]).write_text((RECORDED / "minikube" / "kubeconfig.txt").read_text())
        matching = [prefix for prefix in self.answers if text.startswith(prefix)]
        return self.answers[max(matching, key=len)] if matching else Completed(127, "", f"{command[0]}: not found")

    def ran(self, prefix: str) -> list[str]:
        """The commands that began with this."""
        return [command for command in self.commands if command.startswith(prefix)]


def recorded(name: str) -> Completed:
    """A recorded answer of a command that succeeded."""
    return Completed(0, (RECORDED / name).read_text())


class Silent:
    """A progress that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, text: str) -> None:
        """Remember."""
        self.said.append(text)
