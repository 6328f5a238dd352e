"""The part of InfluxDB 2's HTTP interface that the setup and the application use, as its documentation has it.

No package of version 2 can be had for the tests. Paths, statuses, names of fields and what is refused are those of the
2.9 sources; points are kept as lines, and Flux is looked at no further than a task's options.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.support.http_script import Asked, Said, Script, serve

HOUR = 3600
_OPTION = re.compile(r'^option task = \{name: "([^"]+)", every: ([0-9]+[smhd]), offset: ([0-9]+[smh])\}$', re.MULTILINE)
_STATUS = {"unauthorized": 401, "forbidden": 403, "not found": 404, "invalid": 400, "unprocessable entity": 422}


class Refusal(Exception):
    """An error as the server words it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    def said(self) -> Said:
        return Said(_STATUS[self.code], {"code": self.code, "message": self.message})


class Server:
    """Its state, and the handlers by method and path."""

    def __init__(self) -> None:
        self.starting = 0
        """Requests that are answered as before the server is up."""
        self.org: dict[str, Any] = {}
        self.token = ""
        self.buckets: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.users: dict[str, dict[str, Any]] = {}
        self.passwords: dict[str, str] = {}
        self.lines: dict[str, list[str]] = {}
        self.changes: list[str] = []
        """Method and path of each request that changed something."""
        self._ids = itertools.count(0x0A1B2C3D4E5F6000)
        self._routes: list[tuple[str, str, Callable[..., Said]]] = [
            ("GET", r"/health", self._health),
            ("GET", r"/api/v2/setup", self._allowed),
            ("POST", r"/api/v2/setup", self._setup),
            ("GET", r"/api/v2/orgs", self._orgs),
            ("GET", r"/api/v2/buckets", self._find_buckets),
            ("POST", r"/api/v2/buckets", self._create_bucket),
            ("PATCH", r"/api/v2/buckets/(\w+)", self._update_bucket),
            ("GET", r"/api/v2/tasks", self._find_tasks),
            ("POST", r"/api/v2/tasks", self._create_task),
            ("PATCH", r"/api/v2/tasks/(\w+)", self._update_task),
            ("GET", r"/private/legacy/authorizations", self._find_users),
            ("POST", r"/private/legacy/authorizations", self._create_user),
            ("DELETE", r"/private/legacy/authorizations/(\w+)", self._delete_user),
            ("POST", r"/private/legacy/authorizations/(\w+)/password", self._set_password),
            ("POST", r"/api/v2/write", self._write_bucket),
            ("POST", r"/write", self._write_database),
        ]

    def answer(self, asked: Asked) -> Said:
        """What the server says."""
        if self.starting:
            self.starting -= 1
            return Said(hang_up=True) if self.starting % 2 else Said(503, b"starting")
        for method, pattern, handler in self._routes:
            match = re.fullmatch(pattern, asked.path)
            if match and method == asked.method:
                try:
                    said = handler(asked, *match.groups())
                except Refusal as refusal:
                    return refusal.said()
                if method != "GET" and "write" not in asked.path:
                    self.changes.append(f"{method} {asked.path}")
                return said
        return Refusal("not found", "path not found").said()

    # Who asks

    def _administrator(self, asked: Asked) -> None:
        if not self.token or asked.headers.get("authorization") != f"Token {self.token}":
            raise Refusal("unauthorized", "unauthorized access")

    def _user(self, asked: Asked) -> dict[str, Any]:
        kind, _, encoded = asked.headers.get("authorization", "").partition(" ")
        if kind != "Basic":
            raise Refusal("unauthorized", "unauthorized access")
        name, _, password = base64.b64decode(encoded).decode().partition(":")
        for user in self.users.values():
            if user["token"] == name and self.passwords.get(user["id"]) == password:
                return user
        raise Refusal("unauthorized", "unauthorized access")

    # Setup and organisation

    def _health(self, _asked: Asked) -> Said:
        return Said(200, {"name": "influxdb", "message": "ready for queries and writes", "status": "pass"})

    def _allowed(self, _asked: Asked) -> Said:
        return pretty(200, {"allowed": not self.org})

    def _setup(self, asked: Asked) -> Said:
        if self.org:
            raise Refusal("unprocessable entity", "onboarding has already been completed")
        wanted = asked.json
        missing = [name for name in ("username", "org", "bucket") if not wanted.get(name)]
        if missing:
            raise Refusal("unprocessable entity", f"onboarding failed: missing required fields [{','.join(missing)}]")
        _strong(wanted["password"])
        self.org = {"id": self._id(), "name": wanted["org"]}
        self.token = wanted["token"]
        bucket = self._bucket(wanted["bucket"], wanted.get("retentionPeriodSeconds", 0), 0)
        return pretty(201, {"user": {"id": self._id(), "name": wanted["username"]}, "bucket": bucket, "org": self.org})

    def _orgs(self, asked: Asked) -> Said:
        self._administrator(asked)
        if asked.query["org"] != self.org["name"]:
            raise Refusal("not found", "organization name not found")
        links = {"buckets": f"/api/v2/buckets?org={self.org['name']}", "self": f"/api/v2/orgs/{self.org['id']}"}
        return pretty(200, {"links": {"self": "/api/v2/orgs"}, "orgs": [{"links": links, **self.org}]})

    # Buckets

    def _find_buckets(self, asked: Asked) -> Said:
        self._administrator(asked)
        self._own(asked.query["orgID"])
        found = [one for one in self.buckets.values() if one["name"] == asked.query["name"]]
        if not found:
            raise Refusal("not found", f'bucket "{asked.query["name"]}" not found')
        return pretty(200, {"links": {"self": "/api/v2/buckets"}, "buckets": found})

    def _create_bucket(self, asked: Asked) -> Said:
        self._administrator(asked)
        wanted = asked.json
        self._own(wanted["orgID"])
        if any(one["name"] == wanted["name"] for one in self.buckets.values()):
            raise Refusal("unprocessable entity", f"bucket with name {wanted['name']} already exists")
        (rule,) = wanted["retentionRules"]
        return pretty(201, self._bucket(wanted["name"], rule["everySeconds"], rule["shardGroupDurationSeconds"]))

    def _update_bucket(self, asked: Asked, identity: str) -> Said:
        self._administrator(asked)
        bucket = self.buckets.get(identity)
        if bucket is None:
            raise Refusal("not found", "bucket not found")
        (change,) = asked.json["retentionRules"]
        rule = {**bucket["retentionRules"][0], **change}
        if 0 < rule["everySeconds"] < rule["shardGroupDurationSeconds"]:
            message = "shard-group duration must also be updated to be smaller than new retention duration"
            raise Refusal("unprocessable entity", message)
        bucket["retentionRules"] = [rule]
        return pretty(200, bucket)

    def _bucket(self, name: str, every: int, shard: int) -> dict[str, Any]:
        if 0 < every < HOUR:
            raise Refusal("unprocessable entity", "retention policy duration must be at least 1h0m0s")
        if not shard:
            shard = HOUR if 0 < every < 48 * HOUR else 24 * HOUR if 0 < every < 4320 * HOUR else 168 * HOUR
        identity = self._id()
        self.buckets[identity] = {
            "id": identity,
            "orgID": self.org["id"],
            "type": "user",
            "name": name,
            "retentionRules": [{"type": "expire", "everySeconds": every, "shardGroupDurationSeconds": shard}],
            "links": {
                "org": f"/api/v2/orgs/{self.org['id']}",
                "self": f"/api/v2/buckets/{identity}",
                "write": f"/api/v2/write?org={self.org['id']}&bucket={identity}",
            },
            "labels": [],
        }
        return self.buckets[identity]

    # Tasks

    def _find_tasks(self, asked: Asked) -> Said:
        self._administrator(asked)
        self._own(asked.query["orgID"])
        if not 1 <= int(asked.query.get("limit", 100)) <= 500:
            raise Refusal("unprocessable entity", "limit must be between 1 and 500")
        found = [
            task
            for task in self.tasks.values()
            if asked.query.get("name", task["name"]) == task["name"]
            and asked.query.get("status", task["status"]) == task["status"]
        ]
        return Said(200, {"links": {"self": "/api/v2/tasks?limit=100"}, "tasks": found})

    def _create_task(self, asked: Asked) -> Said:
        self._administrator(asked)
        wanted = asked.json
        if wanted.get("org") != self.org["name"]:
            raise Refusal("not found", "organization not found")
        identity = self._id()
        task = {
            "links": {"self": f"/api/v2/tasks/{identity}"},
            "labels": [],
            "id": identity,
            "orgID": self.org["id"],
            "org": self.org["name"],
            "status": wanted["status"],
            **_flux(wanted["flux"]),
        }
        self.tasks[identity] = task
        return Said(201, task)

    def _update_task(self, asked: Asked, identity: str) -> Said:
        self._administrator(asked)
        task = self.tasks.get(identity)
        if task is None:
            raise Refusal("not found", "failed to update task")
        change = asked.json
        if change.get("status", "active") not in ("active", "inactive"):
            raise Refusal("invalid", "failed to decode request: invalid task status")
        task["status"] = change.get("status", task["status"])
        if "flux" in change:
            task.update(_flux(change["flux"]))
        return Said(200, task)

    # 1.x-compatible users

    def _find_users(self, asked: Asked) -> Said:
        self._administrator(asked)
        found = [one for one in self.users.values() if one["token"] == asked.query["token"]]
        if not found:
            raise Refusal("not found", "authorization not found")
        return pretty(200, {"links": {"self": "/private/legacy/authorizations"}, "authorizations": found})

    def _create_user(self, asked: Asked) -> Said:
        self._administrator(asked)
        wanted = asked.json
        self._own(wanted["orgID"])
        if not wanted["permissions"]:
            raise Refusal("invalid", "authorization must include permissions")
        for permission in wanted["permissions"]:
            resource = permission["resource"]
            if permission["action"] not in ("read", "write") or resource["type"] != "buckets":
                raise Refusal("invalid", "unknown action or resource type")
            if resource["id"] not in self.buckets:
                raise Refusal("not found", "bucket not found")
        if any(one["token"] == wanted["token"] for one in self.users.values()):
            raise Refusal("unprocessable entity", "token already exists")
        identity = self._id()
        user = {
            "id": identity,
            "token": wanted["token"],
            "status": "active",
            "description": wanted["description"],
            "orgID": self.org["id"],
            "permissions": wanted["permissions"],
        }
        self.users[identity] = user
        return pretty(201, user)

    def _delete_user(self, asked: Asked, identity: str) -> Said:
        self._administrator(asked)
        if self.users.pop(identity, None) is None:
            raise Refusal("not found", "authorization not found")
        return Said(204)

    def _set_password(self, asked: Asked, identity: str) -> Said:
        self._administrator(asked)
        if identity not in self.users:
            raise Refusal("not found", "authorization not found")
        _strong(asked.json["password"])
        self.passwords[identity] = asked.json["password"]
        return Said(204)

    # Points

    def _write_bucket(self, asked: Asked) -> Said:
        self._administrator(asked)
        if asked.query["org"] != self.org["name"]:
            raise Refusal("not found", f'organization name "{asked.query["org"]}" not found')
        return self._store(asked, asked.query["bucket"])

    def _write_database(self, asked: Asked) -> Said:
        user = self._user(asked)
        name = f"{asked.query['db']}/{asked.query['rp']}"
        bucket = next((one for one in self.buckets.values() if one["name"] == name), None)
        if bucket is None:
            raise Refusal("not found", "no dbrp mapping found")
        may = [one for one in user["permissions"] if one["action"] == "write" and one["resource"]["id"] == bucket["id"]]
        if not may:
            raise Refusal("forbidden", "insufficient permissions for write")
        return self._store(asked, name)

    def _store(self, asked: Asked, name: str) -> Said:
        if not any(one["name"] == name for one in self.buckets.values()):
            raise Refusal("not found", f'bucket "{name}" not found')
        self.lines.setdefault(name, []).extend(asked.lines)
        return Said(204)

    def _own(self, org: str) -> None:
        if org != self.org["id"]:
            raise Refusal("not found", "organization not found")

    def _id(self) -> str:
        return f"{next(self._ids):016x}"


def pretty(status: int, body: Any) -> Said:
    """Most answers of version 2 are indented, those about tasks are not."""
    return Said(status, json.dumps(body, indent="\t").encode())


def _strong(password: str) -> None:
    if not 8 <= len(password) <= 72:
        raise Refusal("invalid", "passwords must be between 8 and 72 characters long")


def _flux(text: str) -> dict[str, str]:
    options = _OPTION.search(text)
    if options is None:
        raise Refusal("invalid", "failed to create task: no task options defined")
    return {"flux": text, "name": options[1], "every": options[2], "offset": options[3]}


@contextmanager
def running() -> Iterator[tuple[Server, Script, int]]:
    """A server on a free port, what it was asked, and its port."""
    server = Server()
    with serve(server.answer) as script:
        yield server, script, int(urlsplit(script.url).port or 0)
