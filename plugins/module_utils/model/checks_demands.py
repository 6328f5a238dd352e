# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of what a system demands: what it measures and promises, its secrets, backups, rules and rest."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.groundwork.platform.plugins.module_utils.model.build import PROD
from ansible_collections.groundwork.platform.plugins.module_utils.model.checks_frame import Frame, Path, Plain
from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.sight import MEASURES
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import Problem
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import number_of_bytes


class DemandChecks(Frame):
    """Of the system as a whole."""

    def _demands(self) -> Iterator[Problem]:
        yield from self._metrics()
        yield from self._alerts()
        yield from self._dashboards()
        yield from self._objectives()
        yield from self._secrets()
        yield from self._outside()
        yield from self._seed()
        yield from self._backups()
        yield from self._rules()
        yield from self._rest()

    def _metrics(self) -> Iterator[Problem]:
        for name, metric in self.data["metrics"].items():
            path: Path = ("metrics", name)
            if name in (*MEASURES, "cpu", "memory"):
                yield self._problem(path, f'the name "{name}"', "one that no measure of every system has")
            if "query" not in metric and "queue" not in metric:
                yield self._problem(path, "nothing that is counted", "query or queue")
            if "alert_above" in metric and "query" not in metric:
                yield self._problem((*path, "query"), "nothing", "a query, which the alert needs")
            store = metric.get("queue", {}).get("store")
            if store is not None and self.stores.get(store, {}).get("type") != "stand-in":
                yield from self._named((*path, "queue", "store"), store, self._stores_of("redis"), "a redis store")

    def _measured(self) -> set[str]:
        return {*self.data["metrics"], *MEASURES}

    def _alerts(self) -> Iterator[Problem]:
        for name, alert in self.data["alerts"].items():
            path: Path = ("alerts", name)
            yield from self._named((*path, "measure"), alert["measure"], self._measured(), "a metric or measure")
            if ("above" in alert) == ("below" in alert):
                found = "both above and below" if "above" in alert else "neither above nor below"
                yield self._problem(path, found, "one of the two")
            if "component" in alert:
                parts = {*self.components, *self.stores}
                yield from self._named((*path, "component"), alert["component"], parts, "a component or store")

    def _dashboards(self) -> Iterator[Problem]:
        for name, dashboard in self.data["dashboards"].items():
            for index, shown in enumerate(dashboard["shows"]):
                yield from self._named(
                    ("dashboards", name, "shows", index), shown, self._measured(), "a metric or measure"
                )

    def _objectives(self) -> Iterator[Problem]:
        promised = self.data["objectives"]
        known = {*self.components, *self.data["metrics"]}
        for name in promised["latency"]:
            yield from self._named(("objectives", "latency", name), name, known, "a component or metric")
        for name in promised["startup"]:
            parts = {*self.components, *self.stores}
            yield from self._named(("objectives", "startup", name), name, parts, "a component or store")
        if "recovery_point" not in promised:
            return
        for name, store in self._stores_of("postgresql").items():
            if not store.get("backup", {}).get("point_in_time"):
                expected = f"point_in_time, or no recovery_point of {promised['recovery_point']} can be held"
                yield self._problem(("stores", name, "backup"), "no backup to any time", expected)

    def _secrets(self) -> Iterator[Problem]:
        inside = {"tmp", "config", *self.data["volumes"], *(f"{name}-ca" for name in self.stores)}
        for name in self.data["secrets"]:
            path: Path = ("secrets", name)
            stores = [store for store in self.stores if name.startswith(f"{store}-")]
            if stores:
                yield self._problem(path, f'the name "{name}"', f"one that does not begin as those of {stores[0]}")
            elif name in inside:
                yield self._problem(path, f'the name "{name}"', "one that no volume of a pod has")
        if "external_secrets" in self.counted_on and "secret_store" not in self.data:
            outside = [name for name, one in self.data["secrets"].items() if "external" in one or "rotate" in one]
            if outside:
                expected = f"the store that brings {outside[0]}, or capabilities.external_secrets: false"
                yield self._problem(("secret_store",), "nothing", expected)

    def _outside(self) -> Iterator[Problem]:
        for name in self.data["outside"]:
            if name in self.components or name in self.stores:
                yield self._problem(("outside", name), f'the name "{name}"', "one that no component or store has")

    def _seed(self) -> Iterator[Problem]:
        seed = self.data.get("seed")
        if seed is None:
            return
        name = seed["component"]
        if name not in self.components:
            yield self._unknown(("seed", "component"), name, self.components, "a component")
        elif not self.components[name]["enabled"] or "proxy" in self.components[name]:
            found = f'"{name}", which does not run here'
            yield self._problem(("seed", "component"), found, "a component that runs in every environment")

    def _backups(self) -> Iterator[Problem]:
        for name, store in self._stores_of("postgresql").items():
            backup, path = store.get("backup"), ("stores", name, "backup")
            if backup is None:
                continue
            if "pg_backup" in self.counted_on and "object_store" not in self.data:
                expected = f"where backups of {name} go, or capabilities.pg_backup: false"
                yield self._problem(("object_store",), "nothing", expected)
            if backup["point_in_time"] and "schedule" not in backup:
                expected = "a schedule: changes are replayed onto a base backup"
                yield self._problem(path, "point_in_time alone", expected)
            elif "schedule" not in backup and "dump" not in backup:
                yield self._problem(path, "nothing that is ever made", "schedule, dump or both")
        if self.data.get("snapshots", {}).get("replicate") and "replica_url" not in self.data.get("object_store", {}):
            expected = "object_store.replica_url, which names the other region"
            yield self._problem(("snapshots", "replicate"), "true", expected)

    def _rules(self) -> Iterator[Problem]:
        rules = self.data["compliance"]
        logging: Plain = self.data.get("logging", {})
        audited = [rule for rule in ("soc2", "gdpr", "hipaa") if rules[rule]]
        if audited and not logging.get("audit"):
            yield self._problem(("logging", "audit"), "no audit", f"true, which compliance.{audited[0]} asks for")
        if rules["hipaa"] and not logging.get("hipaa"):
            yield self._problem(
                ("logging", "hipaa"), "health information in logs", "true, which compliance.hipaa asks for"
            )
        if rules["soc2"] and "security_audit" not in self.data["maintenance"]:
            expected = "how often, which compliance.soc2 asks for"
            yield self._problem(("maintenance", "security_audit"), "nothing", expected)
        if rules["gdpr"]:
            for name, store in self._stores_of("postgresql").items():
                if "backup" not in store:
                    expected = "a backup with its retention, which compliance.gdpr asks for"
                    yield self._problem(("stores", name, "backup"), "nothing", expected)
        for rule, capability in (
            ("encrypted_traffic", "encrypted_network"),
            ("encrypted_secrets", "encrypted_secrets"),
        ):
            if rules[rule] and capability not in self.counted_on:
                expected = f"an environment that counts on {capability}"
                yield self._problem(("compliance", rule), "true", expected)

    def _rest(self) -> Iterator[Problem]:
        if "hibernation" in self.data and self.environment == PROD:
            yield self._problem(("hibernation",), "an environment prod that sleeps", "none: null takes it away")
        tenants = self.data.get("tenants")
        if tenants is not None and not self._stores_of("postgresql") and "stand-in" not in self._kinds():
            yield self._problem(("tenants", "isolation"), "no database", "a postgresql store that keeps them apart")
        requires = self.data["requires"]
        if "minimum" in requires and "recommended" in requires:
            for key in ("nodes", "cpu", "memory", "storage"):
                least, better = (number_of_bytes(str(requires[which][key])) for which in ("minimum", "recommended"))
                if least > better:
                    found = f"{requires['recommended'][key]}, below the minimum of {requires['minimum'][key]}"
                    yield self._problem(("requires", "recommended", key), found, "at least the minimum")
        grafana = self.data["monitoring"].get("grafana_host")
        for name, component in self.components.items():
            host = component.get("public", {}).get("host")
            if host is not None and host in (grafana, self.data["monitoring"].get("prometheus_host")):
                expected = "one that neither Grafana nor Prometheus has"
                yield self._problem(("components", name, "public", "host"), host, expected)

    def _kinds(self) -> set[str]:
        return {store["type"] for store in self.stores.values()}
