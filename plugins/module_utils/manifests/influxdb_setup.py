# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the setup Job of an InfluxDB store runs: a script that brings a server to what the system's file says.

Run again it changes nothing. It waits for the server as long as that takes, and ends with 3 where it refuses, which
alone fails the Job for good. Data goes in one case only, a shorter retention, and only where the file says so.
"""

from __future__ import annotations

import json

from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import duration_text
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import Downsampling, InfluxDB

ADMIN = "admin"
USER = "app"
FOLDER = "/etc/groundwork/influxdb-setup"
AUTH = "/etc/groundwork/influxdb-auth"
REFUSED = 3
"""Exit status of what no other try would change."""
_HOUR = 3600


def files(store: InfluxDB) -> dict[str, str]:
    """The script and what it reads: policies with hours and the hours of a shard, and what makes averages."""
    hours = {store.RAW: store.retention // _HOUR}
    hours |= {name: copy.keep // _HOUR for name, copy in store.downsampling.items()}
    policies = "".join(f"{name} {kept} {_shard_hours(kept)}\n" for name, kept in hours.items())
    if store.version == "1":
        queries = [_continuous_query(store, name, copy) for name, copy in store.downsampling.items()]
        return {"setup.sh": _COMMON + _VERSION_1, "policies": policies, "queries": "".join(queries)}
    tasks = {f"{name}.task.json": _task(store, name, copy) for name, copy in store.downsampling.items()}
    return {"setup.sh": _COMMON + _VERSION_2, "policies": policies, **tasks}


def _shard_hours(hours: int) -> int:
    """How many hours a shard spans, as InfluxDB itself chooses for a retention.

    It is always said: one that stayed as it was could be longer than a shorter retention, which InfluxDB refuses.
    """
    if hours < 48:
        return 1
    return 24 if hours < 180 * 24 else 7 * 24


def _continuous_query(store: InfluxDB, name: str, copy: Downsampling) -> str:
    """A line of its name and statement. It computes the window before again, for points that came late."""
    query = _QUERY.format(
        name=name,
        database=store.database,
        source=store.RAW,
        every=duration_text(copy.every),
        twice=duration_text(copy.every * 2),
    )
    return f"downsample_{name} {query}\n"


def _task(store: InfluxDB, name: str, copy: Downsampling) -> str:
    """The same as a task, to be sent as it is.

    Whole windows only, whenever it runs: an average of a part would replace the right one.
    """
    every = duration_text(copy.every)
    flux = _FLUX.format(
        task=f"downsample_{store.database}_{name}",
        every=every,
        twice=duration_text(copy.every * 2),
        source=f"{store.database}/{store.RAW}",
        target=f"{store.database}/{name}",
    )
    return json.dumps({"org": store.database, "status": "active", "flux": flux}, indent=2) + "\n"


_QUERY = (
    'CREATE CONTINUOUS QUERY "downsample_{name}" ON "{database}" RESAMPLE FOR {twice} BEGIN SELECT mean(*) '
    'INTO "{database}"."{name}".:MEASUREMENT FROM "{database}"."{source}"./.*/ GROUP BY time({every}), * END'
)

_FLUX = """\
import "date"
import "types"

option task = {{name: "{task}", every: {every}, offset: 1m}}

stop = date.truncate(t: now(), unit: {every})

from(bucket: "{source}")
    |> range(start: date.sub(from: stop, d: {twice}), stop: stop)
    |> filter(fn: (r) => types.isNumeric(v: r._value))
    |> aggregateWindow(every: {every}, fn: mean, createEmpty: false, timeSrc: "_start")
    |> to(bucket: "{target}")
"""

_COMMON = r"""#!/bin/sh
# Written by groundwork.platform. Brings users, retention and downsampling of $DATABASE on $SERVER to what the system's
# file says. Run again it changes nothing. $AUTH is the folder with the passwords.
set -eu
umask 077
FOLDER=$(dirname "$0")

say() { printf '%s\n' "$*"; }

# What no other try would change.
refuse() {
  say "$*"
  exit 3
}

# A reason is said once, not at each try.
wait_for() {
  [ "$1" = "${waits_for-}" ] || say "waiting: $1"
  waits_for=$1
  sleep 2
}

# judge <policy> <hours in force, 0 for ever> <hours wanted>: nothing is deleted without the file's word.
judge() {
  if [ "$2" -ne 0 ] && [ "$2" -le "$3" ]; then return; fi
  kept="$2 hours"
  if [ "$2" -eq 0 ]; then kept="for ever"; fi
  loss="$DATABASE/$1 is kept $kept and would be kept $3 hours, which deletes what is older"
  if [ "$SHORTER" != delete ]; then
    refuse "$loss: nothing was changed; say shorter_retention: delete of the store where that is meant"
  fi
  say "$loss, as shorter_retention: delete says"
}

"""

_VERSION_1 = r"""
INFLUX_USERNAME=admin
INFLUX_PASSWORD=$(cat "$AUTH/admin-password")
HOME=/tmp
export INFLUX_USERNAME INFLUX_PASSWORD HOME

# Statements go in over stdin: command lines can be read by others.
ask() { printf '%s\n' "$1" | influx -host "$SERVER" -port "$PORT" -format csv 2>/dev/null; }

must() {
  if ! answer=$(ask "$1"); then
    say "$answer"
    exit 1
  fi
}

until answer=$(ask 'SHOW DATABASES'); do
  case $answer in
  *'create admin user first'*)
    ask "CREATE USER \"admin\" WITH PASSWORD '$INFLUX_PASSWORD' WITH ALL PRIVILEGES" >/dev/null ||
      wait_for "user admin could not be made"
    ;;
  *'authorization failed'*) wait_for "user admin has another password than the Secret" ;;
  *) wait_for "$SERVER does not answer" ;;
  esac
done

if ! present=$(ask "SHOW RETENTION POLICIES ON \"$DATABASE\""); then
  case $present in
  *'database not found'*) present= ;;
  *)
    say "$present"
    exit 1
    ;;
  esac
fi
# "720h0m0s" is 720 hours, "0s" for ever.
hours_of() { printf '%s\n' "$present" | sed -n "s/^$1,\([0-9]*\)[hs].*/\1/p"; }

while read -r policy hours _; do
  kept=$(hours_of "$policy")
  if [ -n "$kept" ]; then judge "$policy" "$kept" "$hours"; fi
done <"$FOLDER/policies"

read -r policy hours shard <"$FOLDER/policies"
if [ -z "$present" ]; then
  must "CREATE DATABASE \"$DATABASE\" WITH DURATION ${hours}h REPLICATION 1 SHARD DURATION ${shard}h NAME \"$policy\""
fi
default=DEFAULT
while read -r policy hours shard; do
  verb=ALTER
  if [ -z "$(hours_of "$policy")" ]; then verb=CREATE; fi
  must "$verb RETENTION POLICY \"$policy\" ON \"$DATABASE\" DURATION ${hours}h REPLICATION 1 \
SHARD DURATION ${shard}h $default"
  default=
done <"$FOLDER/policies"

must 'SHOW CONTINUOUS QUERIES'
for query in $(printf '%s\n' "$answer" | sed -n "s/^$DATABASE,\(downsample_[a-z0-9_]*\),.*/\1/p"); do
  if ! grep -q "^$query " "$FOLDER/queries"; then
    must "DROP CONTINUOUS QUERY \"$query\" ON \"$DATABASE\""
    say "$query is made no more; what it made is kept"
  fi
done
while read -r query statement; do
  # The same once more is nothing; another one of the name takes its place.
  if ! ask "$statement" >/dev/null; then
    must "DROP CONTINUOUS QUERY \"$query\" ON \"$DATABASE\""
    must "$statement"
  fi
done <"$FOLDER/queries"

password=$(cat "$AUTH/password")
must 'SHOW USERS'
if printf '%s\n' "$answer" | grep -q '^app,'; then
  must "SET PASSWORD FOR \"app\" = '$password'"
else
  must "CREATE USER \"app\" WITH PASSWORD '$password'"
fi
must "GRANT ALL ON \"$DATABASE\" TO \"app\""
say "$DATABASE is as the system's file says"
"""

_VERSION_2 = r"""
WORK=/tmp/influxdb-setup
mkdir -p "$WORK"
# Neither a token nor a password is on a command line: those can be read by others.
printf 'Authorization: Token %s\n' "$(cat "$AUTH/admin-token")" >"$WORK/header"

# api <method> <path> [body]: the answer is in $answer, on one line, its status in $status.
api() {
  printf '%s' "${3-}" >"$WORK/body"
  status=$(curl --silent --max-time 30 --output "$WORK/answer" --write-out '%{http_code}' --request "$1" \
    --header "@$WORK/header" --header 'Content-Type: application/json' --data-binary "@$WORK/body" \
    "http://$SERVER:$PORT$2") || status=000
  answer=$(tr -d '\n\t' <"$WORK/answer" 2>/dev/null) || answer=
}

# must <statuses> <method> <path> [body]
must() {
  wanted=$1
  shift
  api "$@"
  case " $wanted " in
  *" $status "*) ;;
  *)
    say "$1 $2: HTTP $status: $answer"
    exit 1
    ;;
  esac
}

# The first id in $answer, and the first number of a name.
first_id() { printf '%s\n' "$answer" | grep -o '"id": *"[0-9a-f]*"' | head -n 1 | grep -o '[0-9a-f]\{16\}'; }
number() { printf '%s\n' "$answer" | grep -o "\"$1\": *[0-9]*" | head -n 1 | grep -o '[0-9]*$'; }

until api GET /health && [ "$status" = 200 ]; do wait_for "$SERVER does not answer"; done

read -r policy hours _ <"$FOLDER/policies"
must 200 GET /api/v2/setup
case $answer in
*'"allowed": true'* | *'"allowed":true'*)
  must 201 POST /api/v2/setup "{\"username\": \"admin\", \"password\": \"$(cat "$AUTH/admin-password")\", \
\"token\": \"$(cat "$AUTH/admin-token")\", \"org\": \"$DATABASE\", \"bucket\": \"$DATABASE/$policy\", \
\"retentionPeriodSeconds\": $((hours * 3600))}"
  ;;
esac
until api GET "/api/v2/orgs?org=$DATABASE" && [ "$status" = 200 ]; do
  wait_for "$SERVER does not know the token of the Secret, or no organisation $DATABASE (HTTP $status)"
done
org=$(first_id)

# bucket <name>: its id is in $bucket, empty where there is none, its hours in $kept.
bucket() {
  must '200 404' GET "/api/v2/buckets?orgID=$org&name=$DATABASE/$1"
  bucket=
  if [ "$status" = 200 ]; then bucket=$(first_id) || bucket=; fi
  kept=$(number everySeconds) || kept=0
  kept=$((kept / 3600))
}

while read -r policy hours _; do
  bucket "$policy"
  if [ -n "$bucket" ]; then judge "$policy" "$kept" "$hours"; fi
done <"$FOLDER/policies"

permissions=
buckets=
may='read write'
while read -r policy hours shard; do
  bucket "$policy"
  rules="\"retentionRules\": [{\"type\": \"expire\", \"everySeconds\": $((hours * 3600)), \
\"shardGroupDurationSeconds\": $((shard * 3600))}]"
  if [ -n "$bucket" ]; then
    must 200 PATCH "/api/v2/buckets/$bucket" "{$rules}"
  else
    must 201 POST /api/v2/buckets "{\"orgID\": \"$org\", \"name\": \"$DATABASE/$policy\", $rules}"
    bucket=$(first_id)
  fi
  buckets="$buckets $bucket"
  # Points are written and read, averages read only.
  for action in $may; do
    permissions="$permissions${permissions:+, }{\"action\": \"$action\", \
\"resource\": {\"type\": \"buckets\", \"id\": \"$bucket\", \"orgID\": \"$org\"}}"
  done
  may=read
done <"$FOLDER/policies"

# task <name>: its id is in $task, empty where there is none.
task() {
  must 200 GET "/api/v2/tasks?orgID=$org&name=$1"
  task=$(first_id) || task=
}

for file in "$FOLDER"/*.task.json; do
  if [ ! -e "$file" ]; then continue; fi
  name=$(basename "$file" .task.json)
  task "downsample_${DATABASE}_$name"
  if [ -n "$task" ]; then
    must 200 PATCH "/api/v2/tasks/$task" "$(cat "$file")"
  else
    must 201 POST /api/v2/tasks "$(cat "$file")"
  fi
done
must 200 GET "/api/v2/tasks?orgID=$org&status=active&limit=500"
for name in $(printf '%s\n' "$answer" | grep -o "\"name\": *\"downsample_${DATABASE}_[a-z0-9_]*\"" |
  sed "s/.*\"downsample_${DATABASE}_\([a-z0-9_]*\)\"/\1/"); do
  if [ ! -e "$FOLDER/$name.task.json" ]; then
    task "downsample_${DATABASE}_$name"
    must 200 PATCH "/api/v2/tasks/$task" '{"status": "inactive"}'
    say "$name is made no more; what was made is kept"
  fi
done

# The application's user can write and query these buckets, and nothing else of the server.
must '200 404' GET "/private/legacy/authorizations?token=app"
user=
if [ "$status" = 200 ]; then user=$(first_id) || user=; fi
# What it may do cannot be changed, so it is made anew where that differs.
actions() { printf '%s\n' "$1" | grep -o '"action"' | wc -l; }
if [ -n "$user" ] && [ "$(actions "$answer")" -ne "$(actions "$permissions")" ]; then remake=yes; fi
for bucket in $buckets; do
  case $answer in *"$bucket"*) ;; *) remake=yes ;; esac
done
if [ -n "$user" ] && [ "${remake-}" = yes ]; then
  must 204 DELETE "/private/legacy/authorizations/$user"
  user=
fi
if [ -z "$user" ]; then
  must 201 POST /private/legacy/authorizations "{\"token\": \"app\", \"orgID\": \"$org\", \
\"description\": \"the application\", \"permissions\": [$permissions]}"
  user=$(first_id)
fi
must 204 POST "/private/legacy/authorizations/$user/password" "{\"password\": \"$(cat "$AUTH/password")\"}"
say "$DATABASE is as the system's file says"
"""
