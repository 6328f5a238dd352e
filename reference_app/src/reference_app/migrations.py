"""Alembic's command on the history of one domain.

Each domain has a folder of revisions of its own, one line with one head: a database holds one domain, and a revision of
another one is neither applied to it nor known to it, so that releases of different systems never depend on each other.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from alembic.config import CommandLine, Config

from reference_app import settings

DOMAIN = "domain"


class Command(CommandLine):
    """Alembic's command line, told by DOMAIN_MODULE where the revisions are."""

    def run_cmd(self, config: Config, options: Namespace) -> None:
        """Runs the subcommand."""
        domain = settings.read().domain
        settings.find_domain(domain)
        folder = Path(config.get_alembic_option("script_location") or "alembic") / domain
        config.set_main_option("version_locations", str(folder).replace("%", "%%"))
        config.attributes[DOMAIN] = domain
        super().run_cmd(config, options)


def main() -> None:
    """The command `alembic`."""
    try:
        Command(prog="alembic").main()
    except settings.SettingsError as error:
        raise SystemExit(str(error)) from None
