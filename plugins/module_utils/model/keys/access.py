# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of what comes in from outside, what goes out, and what is secret."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.common import (
    A_NAME,
    DOMAIN,
    FILE_NAME,
    HEADER,
    LABEL,
    NAME,
    NETWORK,
    URL_PATH,
    Schema,
    choice,
    duration,
    items,
    keys,
    mapping,
    size,
    switch,
    text,
    whole,
)

# Addresses that are in no private network: what is outside is not the company's own network.
ANYWHERE = "0.0.0.0/0"


def route() -> Schema:
    """Where requests below a path go."""
    return {
        "title": "the name of a component, or {to, strip_prefix}",
        "anyOf": [
            {"type": "string", "title": "the name of a component, or {to, strip_prefix}", "pattern": NAME},
            keys(
                "Where requests below the path go.",
                {
                    "to": text("The component.", A_NAME, NAME, examples=["api"]),
                    "strip_prefix": switch("Whether the component sees the path without the prefix.", False),
                },
                required=["to"],
            ),
        ],
    }


def public() -> Schema:
    """How a component is reached from outside."""
    return keys(
        "Makes it reachable from outside of the cluster. Default: it is not.",
        {
            "host": text(
                "Name in front of the environment's `domain`. Default: none, so only `node_port` leads to it.",
                "a DNS label",
                LABEL,
                examples=["inventory"],
            ),
            "node_port": whole(
                "Port on every node, for clusters without a gateway. Default: none.",
                "a port",
                30000,
                32767,
                examples=[30080],
            ),
            "routes": mapping(
                "Path to component, at the gateway; the longest path wins. Default: all paths to the component itself.",
                route(),
                URL_PATH,
                "a path such as /ws",
                default={},
                examples=[{"/": "web", "/api": "api"}],
            ),
            "tls": switch(
                "Whether the host is reached over HTTPS only; the environment must count on `certificates`.", True
            ),
            "rate_limit": keys(
                "How many requests a client, told apart by its address, may make; more are answered with 429. "
                "Default: no limit.",
                {
                    "requests": whole("How many within the time.", "requests", 1, examples=[100]),
                    "per": choice("The time.", "second", "minute", "hour", default="minute"),
                },
                required=["requests"],
                examples=[{"requests": 100, "per": "minute"}],
            ),
            "body_limit": size(
                "Largest request body at the gateway. Default: the proxy's, or 20Mi.", examples=["20Mi"]
            ),
            "timeout": duration(
                "How long an answer may take at the gateway. Default: the proxy's read_timeout, or 60s.",
                examples=["60s"],
            ),
            "headers": _headers(),
            "waf": switch(
                "Whether a web application firewall looks at requests; the environment must count on `waf`.", False
            ),
        },
        examples=[{"host": "inventory", "rate_limit": {"requests": 100}}],
    )


def _headers() -> Schema:
    def header(name: str, meaning: str, default: str) -> Schema:
        return text(
            f"{name}: {meaning} Empty: not sent.", "a header's value", HEADER, default=default, examples=[default]
        )

    return keys(
        "Security headers of every answer.",
        {
            "content_security_policy": header(
                "Content-Security-Policy",
                "what a page may load.",
                "default-src 'self'; frame-ancestors 'none'; object-src 'none'; base-uri 'self'",
            ),
            "strict_transport_security": header(
                "Strict-Transport-Security",
                "browsers use HTTPS only. Sent where `tls` is on.",
                "max-age=31536000; includeSubDomains",
            ),
            "frame_options": header("X-Frame-Options", "who may show it in a frame.", "DENY"),
            "content_type_options": header("X-Content-Type-Options", "browsers do not guess types.", "nosniff"),
            "referrer_policy": header("Referrer-Policy", "what other sites learn.", "strict-origin-when-cross-origin"),
        },
        default={},
    )


def outside() -> Schema:
    """What components talk to outside of the cluster."""
    return mapping(
        "What components talk to outside of the cluster, by name; all else outside is refused.",
        keys(
            "One service outside.",
            {
                "host": text("Its name, for the reader and for logs.", "a domain name", DOMAIN, examples=["sentry.io"]),
                "port": whole("Where it listens.", "a port", 1, 65535, default=443, examples=[443]),
                "cidrs": items(
                    "Its networks. The default is every public address, since a policy knows no names.",
                    text("A network.", "a network such as 203.0.113.0/24", NETWORK),
                    "a list of networks",
                    minItems=1,
                    default=[ANYWHERE],
                    examples=[["203.0.113.0/24"]],
                ),
            },
            required=["host"],
        ),
        NAME,
        A_NAME,
        default={},
        examples=[{"sentry": {"host": "sentry.io"}}],
    )


def secrets() -> Schema:
    """Secrets besides those of stores."""
    return mapping(
        "Secrets besides those of stores, by name; components mount them. No value ever stands in a file: a key is "
        "generated once in the cluster, or given there by other means, or fetched from the `secret_store`.",
        keys(
            "One Secret.",
            {
                "keys": mapping(
                    "What it holds: a file for each key.",
                    keys(
                        "One key.",
                        {
                            "generate": whole(
                                "Length of a value that is generated once. Default: none is, it must be given.",
                                "characters",
                                16,
                                512,
                                examples=[64],
                            )
                        },
                    ),
                    FILE_NAME,
                    "a file name of letters, digits, dots, hyphens and underscores",
                    minProperties=1,
                    examples=[{"project-id": {}, "service-account.json": {}}],
                ),
                "external": text(
                    "Its name in the environment's `secret_store`, used where the environment counts on "
                    "`external_secrets`. Default: it is not there.",
                    "a path in the store",
                    r"^[^\s]+$",
                    examples=["ai-imutis/firebase"],
                ),
                "rotate": duration(
                    "How often generated values are replaced, where the environment counts on `external_secrets`. "
                    "Default: never.",
                    examples=["90d"],
                ),
            },
            required=["keys"],
        ),
        NAME,
        A_NAME,
        default={},
        examples=[{"application": {"keys": {"secret-key": {"generate": 64}}}}],
    )


def secret_store() -> Schema:
    """Where the environment's secrets are kept outside of the cluster."""
    return keys(
        "Store outside of the cluster that External Secrets reads; needed where the environment counts on "
        "`external_secrets`. Default: there is none.",
        {
            "name": text("Its name in the cluster.", "a name", DOMAIN, examples=["vault"]),
            "kind": choice(
                "Whether it serves the whole cluster.",
                "ClusterSecretStore",
                "SecretStore",
                default="ClusterSecretStore",
            ),
            "refresh": duration("How often it is asked for new values.", default="1h", examples=["15m"]),
        },
        required=["name"],
        examples=[{"name": "vault"}],
    )


def network() -> Schema:
    """What the system is connected to outside of its namespace."""
    return keys(
        "Where the few things outside of the namespace are that routes and network policies must name.",
        {
            "api_server_cidrs": items(
                "Addresses of the API server, to which PostgreSQL's instances report.",
                text("A network.", "a network such as 10.0.0.0/24", NETWORK),
                minItems=1,
                default=["0.0.0.0/0"],
                examples=[["10.0.0.1/32"]],
            ),
            "api_server_ports": items(
                "Its ports.",
                whole("One of them.", "a port", 1, 65535),
                "a list of ports",
                minItems=1,
                default=[443, 6443],
                examples=[[6443]],
            ),
            "gateway": text("Name of the Gateway.", "a name", DOMAIN, default="public", examples=["public"]),
            "gateway_namespace": text(
                "Namespace of the Gateway and its pods.",
                "a DNS label",
                LABEL,
                default="envoy-gateway-system",
                examples=["envoy-gateway-system"],
            ),
            "issuer": text(
                "ClusterIssuer of the public hosts' certificates.",
                "a name",
                DOMAIN,
                default="public",
                examples=["letsencrypt"],
            ),
            "monitoring_namespace": text(
                "Namespace of Prometheus.", "a DNS label", LABEL, default="monitoring", examples=["monitoring"]
            ),
            "tracing_namespace": text(
                "Namespace of the OpenTelemetry collector.",
                "a DNS label",
                LABEL,
                default="tracing",
                examples=["tracing"],
            ),
            "database_operator_namespace": text(
                "Namespace of CloudNativePG.", "a DNS label", LABEL, default="cnpg-system", examples=["cnpg-system"]
            ),
        },
        default={},
    )
