# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of running a system: migration and seed, backups, cost, and what it asks of its cluster."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.common import (
    A_NAME,
    DOMAIN,
    IMAGE,
    LABEL_KEY,
    NAME,
    TIME_ZONE,
    URL,
    VERSION,
    Schema,
    choice,
    command,
    cron,
    duration,
    keys,
    ref,
    size,
    storage_class,
    switch,
    text,
    whole,
)

# What an environment can count on its cluster for; `manifests.capabilities` says what becomes of each.
CAPABILITIES = {
    "apparmor": "nodes enforce AppArmor profiles",
    "cast_ai": "CAST AI looks after the cost of the nodes",
    "certificates": "cert-manager issues certificates",
    "encrypted_network": "the network encrypts traffic between nodes",
    "encrypted_secrets": "the API server encrypts Secrets at rest",
    "external_secrets": "External Secrets brings secrets from a store outside",
    "gateway": "a Gateway brings traffic in, so no NodePort is needed",
    "gpu": "nodes offer GPUs",
    "keda": "KEDA scales on any metric",
    "node_pools": "nodes carry pool labels",
    "pg_backup": "PostgreSQL archives to an object store",
    "prometheus_operator": "Prometheus scrapes and alerts",
    "redis_sentinel": "Redis fails over by Sentinel",
    "snapshots": "volumes can be snapshotted",
    "spot": "there are spot nodes",
    "tracing": "an OpenTelemetry collector takes traces",
    "vpa": "the vertical autoscaler recommends resources",
    "waf": "the Gateway has a web application firewall",
}

# What is looked after again and again; each is a playbook or an alert of the collection.
TASKS = {
    "review_scaling": "looks at the use of resources and at scaling events",
    "review_errors": "looks at error logs and alerts",
    "verify_backups": "restores the last backup and compares it",
    "patch_images": "rebuilds images on patched base images",
    "scan_images": "scans images for known weaknesses",
    "rotate_credentials": "replaces passwords and keys",
    "review_performance": "looks at measurements and trends",
    "recovery_drill": "recovers the system elsewhere",
    "plan_capacity": "compares what is asked for with what is used",
    "security_audit": "checks settings and access against the rules",
    "update_dependencies": "brings dependencies and libraries up to date",
    "tune_performance": "adjusts settings to how the system is used",
}


def migration() -> Schema:
    """What brings the schema to that of the release."""
    return keys(
        "What brings the database's schema to that of the release; runs once, before the components. Default: there "
        "is none.",
        {
            "component": text("Component whose image and environment it runs in.", A_NAME, NAME, examples=["api"]),
            "command": command("What it runs.", minItems=1, examples=[["alembic", "upgrade", "head"]]),
            "timeout": duration("When it counts as failed.", default="30m", examples=["30m"]),
            "lock_timeout": duration("How long one statement may wait for a lock.", default="10s", examples=["10s"]),
            "statement_timeout": duration("How long one statement may run.", default="20m", examples=["20m"]),
            "resources": ref("resources"),
            "tool": choice("What migrates. Default: known by the command.", "alembic", "django", "command"),
            "store": text(
                "PostgreSQL store that is migrated. Default: the component's only one.",
                A_NAME,
                NAME,
                examples=["postgres"],
            ),
            "lock_wait": duration(
                "How long to wait for another migration's database lock.", default="5m", examples=["5m"]
            ),
            "quiet_wait": duration(
                "How long to wait for long transactions, dumps and the like to end before that is a failure.",
                default="0s",
                examples=["2m"],
            ),
            "destructive": choice(
                "What becomes of a migration that loses data, breaks the older application or cannot be judged.",
                "refuse",
                "restore_point",
                "allow",
                default="refuse",
            ),
            "restore_point": keys(
                "What is made before a destructive migration.",
                {
                    "type": choice(
                        "pg_dump to a volume, verified, or one's own command.", "dump", "command", default="dump"
                    ),
                    "size": size(
                        "Size of the volume: dumps that are kept, and once the database.",
                        default="10Gi",
                        examples=["10Gi"],
                    ),
                    "storage_class": storage_class(),
                    "keep": whole("How many are kept.", "dumps", 1, 100, default=3, examples=[3]),
                    "image": text(
                        "Image of the command. Default: none, a command needs one.",
                        "an image reference",
                        IMAGE,
                        examples=["backup:1.0"],
                    ),
                    "command": command(
                        "What it runs. Default: pg_dump.", minItems=1, examples=[["backup", "--verify"]]
                    ),
                },
                default={},
            ),
            "expand_only": switch(
                "Declares that it only adds to the schema, so that the release before can go on with that.", False
            ),
        },
        required=["component", "command"],
    )


def seed() -> Schema:
    """What fills a new database."""
    return keys(
        "What fills a new database with its first data: runs once, after the first migration, is gated and recorded, "
        "and never runs in the environment prod unless that is asked for. Default: there is none.",
        {
            "component": text("Component whose image and environment it runs in.", A_NAME, NAME, examples=["api"]),
            "command": command("What it runs.", minItems=1, examples=[["python", "-m", "app.seed"]]),
            "prod": switch("Whether it runs in the environment prod as well.", False),
            "timeout": duration("When it counts as failed.", default="10m", examples=["10m"]),
            "resources": ref("resources"),
        },
        required=["component", "command"],
        examples=[{"component": "api", "command": ["python", "-m", "app.seed"]}],
    )


def tenants() -> Schema:
    """Whom the system keeps apart."""
    return keys(
        "Customers that one installation serves and keeps apart. It arrives as TENANT_NAME, TENANT_COUNT and "
        "TENANT_ISOLATION. Default: there are none.",
        {
            "name": text(
                "What one is called.", "a lower-case word", r"^[a-z]+$", default="tenant", examples=["clinic"]
            ),
            "count": whole("How many there may be, at least.", "tenants", 1, examples=[200]),
            "isolation": choice(
                "What keeps their data apart: policies on rows, a schema each, or a database each.",
                "row_level_security",
                "schema",
                "database",
                default="row_level_security",
            ),
        },
        required=["count"],
        examples=[{"name": "clinic", "count": 200}],
    )


def object_store() -> Schema:
    """Where the environment's backups go."""
    return keys(
        "Where backups go; needed where the environment counts on `pg_backup`. Default: there is none.",
        {
            "url": text(
                "Bucket and path.", "a URL such as s3://bucket/path", URL, examples=["s3://clinic-backups/prod"]
            ),
            "endpoint": text(
                "Address of a service that is not the cloud's own. Default: the cloud's.",
                "a URL",
                URL,
                examples=["https://s3.example"],
            ),
            "region": text("Its region. Default: the cloud's.", examples=["eu-central-1"]),
            "secret": text(
                "Secret in the namespace with the access key. Default: the pods' own identity.",
                "a name",
                DOMAIN,
                examples=["backup-credentials"],
            ),
            "replica_url": text(
                "Bucket in another region to which it is replicated. Default: none.",
                "a URL such as s3://bucket/path",
                URL,
                examples=["s3://clinic-backups-west/prod"],
            ),
        },
        required=["url"],
        examples=[{"url": "s3://clinic-backups/prod", "secret": "backup-credentials"}],
    )


def snapshots() -> Schema:
    """Snapshots of all volumes."""
    return keys(
        "Snapshots of all volumes; the environment must count on `snapshots`. Default: none are made.",
        {
            "schedule": cron("When they are made.", examples=["0 3 * * *"]),
            "keep": whole("How many are kept of each volume.", "snapshots", 1, 365, default=7, examples=[7]),
            "replicate": switch("Whether they are copied to another region.", False),
        },
        required=["schedule"],
        examples=[{"schedule": "0 3 * * *", "keep": 7}],
    )


def cost() -> Schema:
    """What is done about cost."""
    return keys(
        "What is done about the cost of the nodes; the environment must count on `cast_ai`. Default: nothing.",
        {
            "reduction": whole("What is to be saved.", "percent", 1, 99, default=65, examples=[65]),
            "level": choice("How far to go for it.", "conservative", "moderate", "aggressive", default="moderate"),
            "rightsizing": switch("Whether requests are recommended from what is used.", True),
            "rebalancing": switch("Whether pods are moved to fewer or cheaper nodes.", True),
            "cleanup": switch("Whether unused resources are reported and removed.", True),
        },
        examples=[{"reduction": 65, "level": "aggressive"}],
    )


def hibernation() -> Schema:
    """When an environment sleeps."""
    return keys(
        "When nobody needs the environment: all components are scaled to nothing. Refused in the environment prod. "
        "Default: it never sleeps.",
        {
            "sleep": cron("When it goes to sleep.", examples=["0 20 * * 1-5"]),
            "wake": cron("When it wakes.", examples=["0 6 * * 1-5"]),
            "time_zone": text(
                "Whose clock counts.", "a time zone such as Europe/Berlin", TIME_ZONE, default="UTC", examples=["UTC"]
            ),
        },
        required=["sleep", "wake"],
        examples=[{"sleep": "0 20 * * 1-5", "wake": "0 6 * * 1-5", "time_zone": "Europe/Berlin"}],
    )


def maintenance() -> Schema:
    """What is looked after again and again."""

    def task(meaning: str) -> Schema:
        return choice(
            f"How often somebody, or the collection, {meaning}. Default: not planned.", "daily", "weekly", "monthly"
        )

    return keys(
        "What is looked after again and again, and how often.",
        {name: task(meaning) for name, meaning in TASKS.items()},
        default={},
        examples=[{"verify_backups": "daily", "recovery_drill": "weekly"}],
    )


def compliance() -> Schema:
    """What rules the system is held to."""
    return keys(
        "Rules that the system is held to; what they ask of its settings is checked.",
        {
            "soc2": switch(
                "SOC 2 Type II: actions of administrators are audited, and security_audit is planned.", False
            ),
            "gdpr": switch(
                "GDPR: databases have backups that end after a stated time, and actions are audited.", False
            ),
            "hipaa": switch("HIPAA: logs are audited and kept free of health information.", False),
            "encrypted_traffic": switch(
                "Traffic between components is encrypted; the environment must count on `encrypted_network`.", False
            ),
            "encrypted_secrets": switch(
                "Secrets are encrypted at rest; the environment must count on `encrypted_secrets`.", False
            ),
        },
        default={},
    )


def requires() -> Schema:
    """What the system asks of its cluster."""

    def figures(description: str) -> Schema:
        return keys(
            description,
            {
                "nodes": whole("How many.", "nodes", 1, examples=[3]),
                "cpu": whole("CPU of all nodes.", "cores", 1, examples=[32]),
                "memory": size("Memory of all nodes.", examples=["128Gi"]),
                "storage": size("Storage that volumes can be made of.", examples=["2Ti"]),
            },
            required=["nodes", "cpu", "memory", "storage"],
        )

    return keys(
        "What the system asks of its cluster, compared before anything is changed.",
        {
            "kubernetes": text(
                "The oldest version that it runs on. Default: the oldest that the collection supports.",
                "a version such as 1.34",
                VERSION,
                examples=["1.34"],
            ),
            "minimum": figures("Less than this is refused. Default: nothing is asked."),
            "recommended": figures("Less than this is said. Default: nothing is recommended."),
        },
        default={},
        examples=[{"minimum": {"nodes": 3, "cpu": 32, "memory": "128Gi", "storage": "2Ti"}}],
    )


def nodes() -> Schema:
    """How the environment's nodes are told apart."""
    return keys(
        "How the environment's nodes are told apart.",
        {
            "pool_label": text(
                "Label, and key of the taint, with the name of a node's pool.",
                "the key of a label",
                LABEL_KEY,
                default="groundwork.platform/pool",
                examples=["cloud.google.com/gke-nodepool"],
            ),
            "spot_label": text(
                "Label, and key of the taint, of spot nodes; its value is true.",
                "the key of a label",
                LABEL_KEY,
                default="groundwork.platform/spot",
                examples=["scheduling.cast.ai/spot"],
            ),
        },
        default={},
    )


def quota() -> Schema:
    """The namespace's quota."""
    return keys(
        "The namespace's quota, computed from what all parts may use at their largest. Where a figure is given here, "
        "it holds instead, and what does not fit is refused.",
        {
            "headroom": whole(
                "How much on top of what is computed, for helpers and rollouts.",
                "percent",
                0,
                1000,
                default=25,
                examples=[25],
            ),
            "cpu": whole("CPU that all pods may request. Default: computed.", "cores", 1, examples=[100]),
            "memory": size("Memory that all pods may request. Default: computed.", examples=["500Gi"]),
            "storage": size("Storage of all claims. Default: computed.", examples=["5Ti"]),
            "pods": whole("How many there may be. Default: computed.", "pods", 1, examples=[200]),
        },
        default={},
    )


def capabilities() -> Schema:
    """What the environment counts on."""
    each = {
        name: {"description": f"Whether {meaning}. Default: as `all`.", "type": "boolean", "title": "true or false"}
        for name, meaning in CAPABILITIES.items()
    }
    return keys(
        "What the environment counts on its cluster for. What is counted on and not served is refused; what is not "
        "counted on is left out, and said.",
        {"all": switch("Whether it counts on all of them, but for those that say otherwise.", False), **each},
        default={},
        examples=[{"all": True, "waf": False}],
    )
