#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One migration per release, run once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration
short_description: Run a database migration as one locked Job, once for each image and arguments
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Runs a Job whose name is derived from its images and arguments, so that a new image is a new migration and the
    same one never runs twice. What a tag points at is known only where it is pulled, so that an image that is named by
    a tag is run each time, and reported unchanged where there was nothing to do. Name images by digest.
  - A Lease in the namespace keeps several controllers apart. One migrates, the others wait and agree.
  - A Job that still runs, since an earlier play was interrupted, is attached to. One that failed is run again.
  - A Job that cannot start (an image that does not exist, a missing Secret) fails the module early and is
    suspended, so that it cannot start later by itself.
  - With O(database) a PostgreSQL advisory lock is held for exactly as long as the migration runs, what speaks against
    migrating is found before, destructive statements are named before they run, and the schema's revision is read
    afterwards. A Job that is Complete and has not made the revision that it was to make has failed.
  - The outcome is recorded in the ConfigMap C(groundwork-migrations) of the namespace.
requirements:
  - pglast on the machine that runs the module, to judge SQL; without it every migration counts as destructive
  - websocket-client on the machine that runs the module, with O(database)
  - Kubernetes 1.29 or later, with O(database)
  - the verb create on pods/exec in the namespace, with O(database)
extends_documentation_fragment:
  - groundwork.platform.auth
attributes:
  check_mode:
    support: full
    description: Says what would run, and not what it would destroy, since only its pod can tell.
  diff_mode:
    support: none
    description: What a migration changes is in the database.
  idempotent:
    support: full
    description: A migration that has succeeded is not run again, unless the schema is not what it had made of it.
options:
  definition:
    description:
      - A Job. Its name becomes the prefix of the real one. C(backoffLimit) is 0 and C(activeDeadlineSeconds) is
        O(timeout) unless they are given; C(restartPolicy) is always V(Never), and a time to live is left out.
      - Its first container migrates.
    type: dict
    required: true
  namespace:
    description:
      - Namespace of the Job if it names none.
    type: str
  timeout:
    description:
      - Seconds for all of it, waiting for another controller and for locks included.
    type: float
    default: 600
  database:
    description:
      - The PostgreSQL database that is migrated, reached directly and not through a connection pooler in transaction
        mode. Without it there is a Job and nothing around it.
    type: dict
    suboptions:
      cluster:
        description:
          - CloudNativePG Cluster in the namespace. Host, database, Secret, certificate authority and image are known
            then.
        type: str
      host:
        description:
          - Host of another server.
        type: str
      port:
        description:
          - Its port.
        type: int
        default: 5432
      name:
        description:
          - Name of the database. Default is that of the Cluster's own application.
        type: str
      secret:
        description:
          - Secret in the namespace with user and password.
        type: str
      username_key:
        description:
          - Key of the user in O(database.secret).
        type: str
        default: username
      password_key:
        description:
          - Key of the password in O(database.secret).
        type: str
        default: password
      ca_secret:
        description:
          - Secret in the namespace with the server's certificate authority as C(ca.crt).
        type: str
      sslmode:
        description:
          - As libpq has it. Default is V(verify-full) where there is a certificate authority, else V(prefer).
        type: str
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      image:
        description:
          - Image with C(psql) of the server's version or a later one, and a shell. A Cluster's own by default.
        type: str
  tool:
    description:
      - What migrates. It decides how statements are rendered and where the schema's revision is.
      - V(auto) knows Alembic and Django by the command, and takes everything else for V(command).
      - >-
        V(sql) applies versioned files C(V001__name.sql) with C(psql), each in a transaction of its own unless it has a
        line C(-- groundwork: no transaction), and keeps their versions and checksums in the table
        C(groundwork_schema_history).
    type: str
    choices: [auto, alembic, django, sql, command]
    default: auto
  sql:
    description:
      - Where the files of V(tool=sql) are.
    type: dict
    suboptions:
      path:
        description:
          - Folder in the image of the definition's first container.
        type: str
      config_map:
        description:
          - ConfigMap in the namespace, one key a file.
        type: str
  version_table:
    description:
      - Table in which the tool keeps its revision, with its schema if need be. Default is the tool's own.
    type: str
  revision_query:
    description:
      - Query that gives the schema's revision as one text, for V(tool=command).
    type: str
  render:
    description:
      - Command in the definition's image that prints the SQL to come, where the tool's own way does not do.
    type: list
    elements: str
    default: []
  lock_timeout:
    description:
      - Seconds that a statement may wait for a lock, handed to whatever migrates through C(PGOPTIONS). Default is what
        the definition says.
    type: float
  statement_timeout:
    description:
      - Seconds that a statement may run, handed over in the same way.
    type: float
  lock:
    description:
      - The advisory lock.
    type: dict
    suboptions:
      key:
        description:
          - Key of the lock, a bigint. Default is the same for all migrations of this module.
        type: int
      timeout:
        description:
          - Seconds to wait for another session that holds it. Default is 300.
        type: int
      connect_timeout:
        description:
          - Seconds to wait for a server that does not answer. Default is 60.
        type: int
  preflight:
    description:
      - What must not be going on in the database when it is migrated.
    type: dict
    suboptions:
      long_transaction:
        description:
          - Seconds that a transaction may be old. Default is 60.
        type: float
      idle_in_transaction:
        description:
          - Seconds that a session may leave its transaction open without doing anything. Default is 15.
        type: float
      replication_lag:
        description:
          - Bytes that a replica may be behind. Default is 64 MiB.
        type: int
      disk:
        description:
          - How many times the size of what is written anew must be free on the disk. Default is 1.5.
        type: float
      wait:
        description:
          - Seconds to wait until nothing speaks against migrating any more. Default is 0.
        type: float
      warn:
        description:
          - Checks that only warn. Default is V(replication_lag), V(hidden_sessions) and V(wraparound).
        type: list
        elements: str
        choices: &checks
          - read_only
          - dump
          - long_transaction
          - idle_in_transaction
          - prepared_transaction
          - replication_lag
          - disk
          - hidden_sessions
          - wraparound
      ignore:
        description:
          - Checks that are not made.
        type: list
        elements: str
        choices: *checks
  destructive:
    description:
      - What becomes of a migration with statements that lose data, that the older application cannot bear, or that
        nobody can judge.
      - V(refuse) fails, naming them. V(restore_point) makes a verified restore point first. V(allow) only names them.
      - An empty database has nothing to lose, so nothing counts as destructive there.
    type: str
    choices: [refuse, restore_point, allow]
    default: refuse
  restore_point:
    description:
      - What is made before a destructive migration.
    type: dict
    suboptions:
      type:
        description:
          - V(dump) is C(pg_dump) to a claim, restored into a scratch server in its pod and compared with the database
            relation by relation, in number of rows and contents, as of one snapshot.
          - V(command) is any command; it succeeds with exit code 0 and a JSON object on its last line that identifies
            what it has made and verified.
        type: str
        required: true
      claim:
        description:
          - Claim for dumps. It is made if it does not exist and O(restore_point.size) is given. Default is
            C(groundwork-restore-points).
        type: str
      size:
        description:
          - Size of a claim that is made. It must have room for the dumps that are kept and once for the database.
        type: str
      storage_class:
        description:
          - Storage class of a claim that is made. Default is the cluster's.
        type: str
      keep:
        description:
          - How many dumps are kept. Default is 3.
        type: int
      user:
        description:
          - Numeric user of the dump's pod, which the image must know. Default is 26, as in CloudNativePG's images.
        type: int
      image:
        description:
          - Image of V(restore_point.type=command).
        type: str
      command:
        description:
          - What it runs. It finds the database in libpq's variables.
        type: list
        elements: str
      env:
        description:
          - Its own variables, none of them secret.
        type: dict
  expand_only:
    description:
      - Declare that the migration only adds to the schema, so that the release before can go on with it. It is
        recorded for a later rollback and not taken as leave to run anything destructive.
    type: bool
    default: false
seealso:
  - module: groundwork.platform.apply
  - module: groundwork.platform.health_gate
"""

EXAMPLES = r"""
- name: Migrate the database of a CloudNativePG Cluster
  groundwork.platform.migration:
    namespace: shop
    timeout: 900
    database:
      cluster: postgres
    lock_timeout: 10
    statement_timeout: 1200
    destructive: restore_point
    restore_point:
      type: dump
      size: 20Gi
    definition:
      apiVersion: batch/v1
      kind: Job
      metadata:
        name: migrate
      spec:
        template:
          spec:
            containers:
              - name: migrate
                image: registry.example/shop/api@sha256:3b3a...
                command: [alembic, upgrade, head]

- name: Apply SQL files to a database anywhere
  groundwork.platform.migration:
    namespace: shop
    tool: sql
    sql:
      config_map: shop-schema
    database:
      host: db.example
      name: shop
      secret: shop-database
      ca_secret: shop-database-ca
      image: docker.io/library/postgres@sha256:8f2c...
    definition: "{{ lookup('ansible.builtin.file', 'migrate.yml') | from_yaml }}"
"""

RETURN = r"""
job:
  description: Name of the Job.
  type: str
  returned: success
action:
  description: V(run), V(attached) to a Job that was running, or V(unchanged) since it had succeeded before.
  type: str
  returned: success
image:
  description: Image that migrates.
  type: str
  returned: success
command:
  description: What it runs.
  type: list
  elements: str
  returned: success
seconds:
  description: How long it took.
  type: float
  returned: success
revision:
  description: The schema's revision afterwards, as read from the database. Null where it is not known.
  type: str
  returned: success
revision_before:
  description: The schema's revision before.
  type: str
  returned: success
destructive:
  description: Statements that lose data, break the older application or cannot be judged. Null where nobody looked.
  type: list
  elements: dict
  returned: success
  contains:
    statement:
      description: The statement, its literals masked.
      type: str
    why:
      description: What it does.
      type: str
    line:
      description: Its line in the rendered SQL.
      type: int
    kind:
      description: V(loses_data), V(breaks_older) or V(unknown).
      type: str
expand_only:
  description: Whether it was declared to only add to the schema.
  type: bool
  returned: success
locks:
  description: Statements that hold others up, as in RV(destructive).
  type: list
  elements: dict
  returned: success
preflight:
  description: What spoke against migrating and did not forbid it.
  type: list
  elements: dict
  returned: success
restore_point:
  description: What was made before it - its C(type), when it was C(taken), and what identifies it.
  type: dict
  returned: success
database:
  description: >-
    Where the schema's revision is, so that M(groundwork.platform.rollback) can ask for it later. Holds C(cluster) or
    C(host), C(name), C(tool), and C(version_table) and C(revision_query) where they were given. Null without
    O(database).
  type: dict
  returned: success
failure:
  description: >-
    Why it failed, as data. Holds C(code), C(object), C(cause), C(evidence) and C(hint), and C(logs) and C(events)
    where there are any.
  type: dict
  returned: failure
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule, connect
from ansible_collections.groundwork.platform.plugins.module_utils.migration.engine import Migration
from ansible_collections.groundwork.platform.plugins.module_utils.migration.options import ARGUMENTS, settings_of
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress


def main() -> None:
    """Migrate, or say what would run."""
    module = ClusterModule(argument_spec=ARGUMENTS, concealed=("definition", "restore_point"))

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        migration = Migration(
            connect(params),
            params["definition"],
            params["namespace"],
            params["timeout"],
            Progress(params["namespace"] or "migration"),
            settings_of(params),
            params["expand_only"],
            (params["lock_timeout"], params["statement_timeout"]),
        )
        outcome = dataclasses.asdict(migration.look() if module.check_mode else migration.run())
        for note in outcome.pop("notes"):
            module.warn(note)
        return {"changed": outcome["action"] != "unchanged", **outcome}

    module.work(work)


if __name__ == "__main__":
    main()
