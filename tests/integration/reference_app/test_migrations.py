"""Each domain's migration: one head, equal to what the code sees, there and back; and no other domain's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .conftest import APP, SOURCE, Stores

DOMAINS = sorted(path.parent.name for path in (SOURCE / "reference_app" / "domains").glob("*/domain.py"))
COUNT = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'f')"


def test_every_domain_has_a_history_of_its_own() -> None:
    assert sorted(path.parent.name for path in (APP / "alembic").glob("*/0001_*.py")) == DOMAINS


@pytest.mark.parametrize("domain", DOMAINS)
def test_it_has_one_head_matches_the_code_and_goes_both_ways(stores: Stores, domain: str) -> None:
    environment = {"DOMAIN_MODULE": domain, "PGDATABASE": f"migrated_{domain}"}
    assert stores.alembic("heads", **environment).stdout.count("(head)") == 1
    stores.sql(f"CREATE DATABASE migrated_{domain}", database="postgres")
    try:
        for arguments in (("upgrade", "head"), ("downgrade", "base"), ("upgrade", "head"), ("upgrade", "head")):
            done = stores.alembic(*arguments, **environment)
            assert done.returncode == 0, done.stderr
            tables = int(stores.sql(COUNT, database=f"migrated_{domain}"))
            assert tables == 1 if "downgrade" in arguments else tables > 1
        assert "No new upgrade operations" in stores.alembic("check", **environment).stdout
        rendered = stores.alembic("upgrade", "head", "--sql", **environment)
        assert rendered.returncode == 0, rendered.stderr
        assert "CREATE TABLE" in rendered.stdout
    finally:
        stores.sql(f"DROP DATABASE migrated_{domain}", database="postgres")


def test_a_domain_that_does_not_exist_and_alembics_own_program_are_refused() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "DOMAIN_MODULE": "nothing"}
    for command, words in (
        ([str(APP / "bin" / "alembic"), "heads"], "there is no such domain"),
        (["-m", "alembic", "upgrade", "head", "--sql"], "reads DOMAIN_MODULE"),
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=APP, env=environment, check=False, capture_output=True, text=True
        )
        assert done.returncode
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
