# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs inside of a migration's pods: POSIX shell and psql, so that any image with PostgreSQL's client will do.

Each script works in the folder GROUNDWORK_FOLDER, which the containers of the pod share. psql reads how to reach the
database from libpq's own variables. No script prints a value that it was given in a variable.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

FOLDER = "/groundwork"
APPLICATION = "groundwork-migration-lock"
"""application_name of the session that holds the lock."""

LOCK = r"""
# Holds the advisory lock of the migration in one session, for as long as this container lives.
#   lock.sh   GROUNDWORK_LOCK: SQL that tries to take it, and says "held" or who has it, as JSON
#             GROUNDWORK_LOCK_TIMEOUT, GROUNDWORK_CONNECT_TIMEOUT: seconds
#             GROUNDWORK_REVISION: SQL that gives the query of the schema's revision, or nothing
# It tells what happens in its log, one "word=text" a line, and by files: held, refused (why), revision.
set -u
umask 022
cd "$GROUNDWORK_FOLDER" || exit 1
# A container that is started again has another session.
rm -f answered held refused ask answer
said=
started=$(date +%s)
trap '' PIPE
trap finish TERM INT

say() {
  [ "$said" = "$1" ] || printf '%s\n' "$1"
  said=$1
}

ask_once() {
  psql -XAtqw -v ON_ERROR_STOP=1 -c "$1" 2>>error
}

revision() {
  query=$(ask_once "$GROUNDWORK_REVISION") || return 1
  [ -z "$query" ] || ask_once "$query"
}

connect() {
  rm -f ask answer error
  mkfifo ask answer || return 1
  # Keepalives: a session whose server is gone must not seem to hold the lock, nor one whose client is gone hold it.
  PGOPTIONS="-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3" \
    PGAPPNAME=groundwork-migration-lock psql -XAtqw \
    "connect_timeout=10 keepalives_idle=10 keepalives_interval=5 keepalives_count=3 tcp_user_timeout=30000" \
    <ask >answer 2>error &
  session=$!
  exec 3>ask 4<answer
  ask "SELECT 'pid=' || pg_backend_pid()" && [ -n "$reply" ] && pid=${reply#pid=}
}

# One answer of one line. A statement that fails has none, so the end is marked.
ask() {
  reply=
  printf "%s;\nSELECT 'groundwork-end';\n" "$1" >&3 2>/dev/null || return 1
  while IFS= read -r line <&4; do
    [ "$line" = groundwork-end ] && return 0
    reply=$line
  done
  return 1
}

disconnect() {
  exec 3>&- 4<&-
}

rest() {
  sleep "$1" &
  wait $!
}

# Until the lock is held. Fails when time is up, or when asking again would be of no use; "why" says so.
take() {
  while :; do
    if connect; then
      while ask "$GROUNDWORK_LOCK" && [ -n "$reply" ]; do
        [ "$reply" = held ] && return 0
        why="locked=$reply"
        say "waiting=$reply"
        over "$GROUNDWORK_LOCK_TIMEOUT" && return 1
        rest 1
      done
    fi
    disconnect
    why="unreachable=$(tr '\n' ' ' <error | cut -c 1-1000)"
    case $why in
      *"authentication failed"* | *"does not exist"* | *"no pg_hba.conf entry"* | *"certificate verify failed"* | \
        *"not currently accepting"* | *"permission denied for database"* | *"server does not support SSL"*)
        [ -e held_once ] || return 1 ;;
    esac
    over "$GROUNDWORK_CONNECT_TIMEOUT" && return 1
    say "connecting=$why"
    rest 1
  done
}

# Never over once it was held: a migration may be running.
over() {
  [ ! -e held_once ] && [ $(($(date +%s) - started)) -ge "$1" ]
}

finish() {
  trap '' TERM INT
  if [ -e held_once ] && last=$(revision); then
    printf 'revision=%s\n' "$last" >"$GROUNDWORK_LAST_WORDS"
  fi
  disconnect
  # The lock is gone when the session is, not before.
  [ -z "${session-}" ] || wait "$session"
  exit 0
}

rm -f held_once
if ! take; then
  say "$why"
  printf '%s\n' "$why" >refused
  : >answered
  while :; do rest 3600; done
fi
if ! revision >revision.new; then
  why="unreadable=$(tr '\n' ' ' <error | cut -c 1-1000)"
  say "$why"
  printf '%s\n' "$why" >refused
  : >answered
  while :; do rest 3600; done
fi
mv revision.new revision
: >held_once
: >held
: >answered
say "held=$pid"
while :; do
  rest 2
  if ! ask "SELECT 'alive'" || [ "$reply" != alive ]; then
    rm -f held
    say "lost=$pid"
    disconnect
    take
    : >held
    say "held=$pid"
  fi
done
"""

GATE = r"""
# Lets the migration begin when the lock is held and whoever reads the plan has said so.
cd "$GROUNDWORK_FOLDER" || exit 1
trap 'exit 143' TERM INT
while :; do
  if [ -e refused ]; then
    cat refused
    cat refused >"$GROUNDWORK_LAST_WORDS"
    exit 1
  fi
  [ -e go ] && [ -e held ] && exit 0
  sleep 0.2
done
"""

# Nothing but the shell's own commands: the image is the application's. Its exit status says nothing, the files do.
_PLAN = r"""
f=$GROUNDWORK_FOLDER
r=
IFS= read -r r <"$f/revision"
"""

# For whoever reads the log; what is returned names no more than the kind of an error.
_TELL = r"""
for file in "$f/heads.error" "$f/plan.error"; do
  [ -e "$file" ] || continue
  while IFS= read -r line; do printf '%s\n' "$line" >&2; done <"$file"
done
exit 0
"""

_ALEMBIC = r"""
@heads@ >"$f/heads" 2>"$f/heads.error"
echo $? >"$f/heads.code"
case $r in
  *,*) echo several >"$f/plan.code" ;;
  *) @sql@ >"$f/plan.sql" 2>"$f/plan.error"
     echo $? >"$f/plan.code" ;;
esac
"""

_DJANGO = r"""
@manage@ migrate --plan >"$f/heads" 2>"$f/heads.error"
echo $? >"$f/heads.code"
@manage@ showmigrations --plan >"$f/pending" 2>"$f/plan.error"
code=$?
: >"$f/plan.sql"
while IFS= read -r line; do
  case $line in
    "[ ]"*)
      for name in ${line#"[ ]"}; do break; done
      echo "-- Running upgrade $name" >>"$f/plan.sql"
      @manage@ sqlmigrate "${name%%.*}" "${name#*.}" >>"$f/plan.sql" 2>>"$f/plan.error" </dev/null || code=1 ;;
  esac
done <"$f/pending"
echo $code >"$f/plan.code"
"""

_COMMAND = r"""
@render@ >"$f/plan.sql" 2>"$f/plan.error"
echo $? >"$f/plan.code"
"""

_COPY = r"""
mkdir -p "$GROUNDWORK_FOLDER/sql" && cp @path@/*.sql "$GROUNDWORK_FOLDER/sql/" && exit 0
echo "groundwork: the image has no *.sql files in" @path@ >&2
exit 1
"""

SQL = r"""
# Applies versioned SQL files, each once and in order.
#   sql.sh plan   print what is pending
#   sql.sh run    apply it
# V<version>__<description>.sql in GROUNDWORK_SQL; the table GROUNDWORK_TABLE remembers version and SHA-256.
set -u
cd "$GROUNDWORK_SQL" || exit 1
table=$GROUNDWORK_TABLE
options="-XAtqw -v ON_ERROR_STOP=1 -v VERBOSITY=terse -v SHOW_CONTEXT=never"

fail() {
  printf 'groundwork: %s\n' "$1" >&2
  exit 1
}

version_of() {
  version=${1#V}
  version=$(printf '%s' "${version%%__*}" | tr _ .)
}

for file in *.sql; do
  [ -e "$file" ] || fail "there are no SQL files"
  printf '%s\n' "$file" | grep -Eq '^V[0-9]+([._][0-9]+)*__[A-Za-z0-9_.-]+\.sql$' ||
    fail "$file is not named V<version>__<description>.sql"
done
# By version alone: the names would put V1.1__b before V1__a.
listed=$(for file in *.sql; do
  version_of "$file"
  printf '%s\t%s\n' "$version" "$file"
done | sort -V -k 1,1)
twice=$(printf '%s\n' "$listed" | cut -f 1 | uniq -d)
[ -z "$twice" ] || fail "there are two files of version $twice"
files=$(printf '%s\n' "$listed" | cut -f 2)

there=$(psql $options -c "SELECT to_regclass('$table') IS NOT NULL") || exit 1
history=
if [ "$there" = t ]; then
  history=$(psql $options -c "SELECT version || '|' || checksum FROM $table WHERE success") || exit 1
fi

pending=
for file in $files; do
  version_of "$file"
  sum=$(sha256sum "$file")
  sum=${sum%% *}
  row=
  for one in $history; do
    case $one in "$version|"*) row=$one ;; esac
  done
  if [ -z "$row" ]; then
    pending="$pending $file"
  elif [ "$row" != "$version|$sum" ]; then
    fail "$file has changed since it was applied: write a new version instead"
  elif [ -n "$pending" ]; then
    fail "$file is applied, but an earlier one is not:$pending"
  fi
  seen="${seen-} $version "
done
for row in $history; do
  case ${seen-} in
    *" ${row%%|*} "*) ;;
    *) fail "version ${row%%|*} is applied, and there is no file for it: this image is older than the schema" ;;
  esac
done

own_transaction() {
  ! grep -Eqi '^--[[:space:]]*groundwork:[[:space:]]*no transaction' "$1"
}

for file in $pending; do
  if own_transaction "$file" &&
    grep -Eqi '^[[:space:]]*(begin|commit|rollback|start transaction)( work| transaction)?[[:space:]]*;' "$file"
  then
    fail "$file begins or ends a transaction, and runs in one: say -- groundwork: no transaction, or leave that out"
  fi
done

if [ "$1" = plan ]; then
  for file in $pending; do
    version_of "$file"
    printf -- '-- Running upgrade %s\n' "$version"
    cat "$file"
    printf '\n;\n'
  done
  exit 0
fi

if [ "$there" != t ]; then
  psql $options -c "CREATE TABLE $table (version text PRIMARY KEY, description text NOT NULL, checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(), seconds numeric(12,3), success boolean NOT NULL)" || exit 1
fi
for file in $pending; do
  version_of "$file"
  description=${file#*__}
  description=${description%.sql}
  sum=$(sha256sum "$file")
  sum=${sum%% *}
  insert="INSERT INTO $table (version, description, checksum, success) VALUES ('$version', '$description', '$sum', "
  again="ON CONFLICT (version) DO UPDATE SET checksum = excluded.checksum, success = excluded.success"
  took="UPDATE $table SET success = true, applied_at = now(),
    seconds = extract(epoch FROM clock_timestamp() - applied_at) WHERE version = '$version'"
  printf 'groundwork: applying %s\n' "$file"
  if own_transaction "$file"; then
    psql $options -1 -c "$insert false) $again, applied_at = now()" -f "$file" -c "$took" ||
      fail "$file failed and has changed nothing"
  else
    psql $options -c "$insert false) $again, applied_at = now()" &&
      psql $options -f "$file" &&
      psql $options -c "$took" ||
      fail "$file failed, and runs in no transaction: see what it has changed; it runs again next time"
  fi
done
[ -n "$pending" ] || echo "groundwork: nothing to apply"
"""

# Both sides must write every value the same way.
_PLAIN = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=1 -c bytea_output=hex"

DUMP = r"""
# Dumps the database, restores the dump into a server of its own in this pod, and compares the two.
#   GROUNDWORK_FILE: name of the dump in GROUNDWORK_FOLDER; GROUNDWORK_KEEP: how many dumps are kept
# Live and restored are compared in one snapshot of the live database: the application goes on writing meanwhile.
# A server in the pod rather than a database beside the live one: no right to create databases is needed, an extension
# that only a superuser may create can be restored, and the live server and its replicas are spared the work.
set -u
umask 077
cd "$GROUNDWORK_FOLDER" || exit 1
export PGOPTIONS="-c statement_timeout=0 -c lock_timeout=60s -c idle_in_transaction_session_timeout=0 @plain@"
work=$GROUNDWORK_FOLDER/.verify
rm -rf "$work" ./*.partial
mkdir "$work" || exit 1
partial=$GROUNDWORK_FILE.partial

fail() {
  printf 'groundwork: %s\n' "$1"
  exit 1
}

scratch() {
  program=$1
  shift
  env -u PGPASSWORD -u PGSSLMODE -u PGSSLROOTCERT -u PGPORT PGHOST="$work" PGUSER=postgres PGDATABASE=scratch \
    "$program" "$@"
}

clean() {
  [ -d "$work/data" ] && pg_ctl -D "$work/data" -m immediate -w stop >/dev/null 2>&1
  rm -rf "$work" "$partial"
}
trap clean EXIT
trap 'exit 143' TERM INT

# One line for each relation; for a table with the number of its rows and a sum that does not depend on their order.
inventory="
SELECT CASE WHEN c.relkind = 'r'
  THEN format('SELECT %L, count(*), coalesce(sum(hashtextextended(t::text COLLATE \"C\", 0)::numeric), 0)
              FROM ONLY %I.%I t', 'table ' || n.nspname || '.' || c.relname, n.nspname, c.relname)
  ELSE format('SELECT %L', c.relkind::text || ' ' || n.nspname || '.' || c.relname) END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND n.nspname !~ '^(pg_|information_schema\$)'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1
\\gexec"

# A session that keeps the snapshot until its standard input ends.
mkfifo "$work/ask" "$work/answer"
psql -XAtqw -v ON_ERROR_STOP=1 <"$work/ask" >"$work/answer" 2>"$work/error" &
exec 3>"$work/ask" 4<"$work/answer"
printf 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSELECT pg_export_snapshot();\n' >&3
IFS= read -r snapshot <&4 || fail "cannot read the database: $(cat "$work/error")"

pg_dump -Fc -w --snapshot="$snapshot" -f "$partial" 2>"$work/error" ||
  fail "pg_dump failed: $(head -n 3 "$work/error" | tr '\n' ' ')"
printf 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSET TRANSACTION SNAPSHOT %s;\n%s\n' "'$snapshot'" \
  "$inventory" | psql -XAtqw -v ON_ERROR_STOP=1 >"$work/live" 2>"$work/error" ||
  fail "cannot count the rows: $(head -n 3 "$work/error" | tr '\n' ' ')"
encoding=$(psql -XAtqw -c 'SHOW server_encoding') &&
  psql -XAtqw >"$work/roles" \
    -c "SELECT format('CREATE ROLE %I', rolname) FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'" ||
  fail "cannot read the database"
exec 3>&- 4<&-

initdb -D "$work/data" -U postgres -A trust -N -E "$encoding" --locale=C.UTF-8 >"$work/log" 2>&1 ||
  initdb -D "$work/data" -U postgres -A trust -N -E "$encoding" --locale=C >"$work/log" 2>&1 ||
  fail "cannot make a scratch server: $(tail -n 2 "$work/log" | tr '\n' ' ')"
settings="-c port=5432 -c listen_addresses= -c fsync=off -c full_page_writes=off -c autovacuum=off \
  -c wal_level=minimal -c max_wal_senders=0 -c max_connections=10"
pg_ctl -D "$work/data" -w -t 60 -l "$work/log" -o "-k '$work' $settings" start >/dev/null ||
  fail "cannot start a scratch server: $(tail -n 2 "$work/log" | tr '\n' ' ')"
scratch psql -XAtqw -d postgres -c 'CREATE DATABASE scratch' >/dev/null 2>"$work/error" ||
  fail "cannot make a scratch database: $(head -n 2 "$work/error" | tr '\n' ' ')"
sed 's/$/;/' "$work/roles" | scratch psql -XAtqw -v ON_ERROR_STOP=1 >"$work/log.roles" 2>&1 ||
  fail "cannot make the roles in the scratch database"
scratch pg_restore -w --exit-on-error --no-publications --no-subscriptions --no-acl -d scratch "$partial" \
  2>"$work/error" || fail "the dump cannot be restored: $(head -n 2 "$work/error" | tr '\n' ' ')"
printf '%s\n' "$inventory" | scratch psql -XAtqw -v ON_ERROR_STOP=1 >"$work/restored" 2>"$work/error" ||
  fail "cannot count the restored rows: $(head -n 3 "$work/error" | tr '\n' ' ')"

LC_ALL=C sort "$work/live" >"$work/live.sorted"
LC_ALL=C sort "$work/restored" >"$work/restored.sorted"
if ! cmp -s "$work/live.sorted" "$work/restored.sorted"; then
  different=$(LC_ALL=C comm -3 "$work/live.sorted" "$work/restored.sorted" | tr -d '\t' | cut -d '|' -f 1 | uniq)
  fail "the restored dump differs from the database: $(printf '%s\n' "$different" | head -n 3 | tr '\n' ',')"
fi
tables=0
rows=0
while IFS='|' read -r relation count content; do
  case $relation in
    "table "*)
      tables=$((tables + 1))
      rows=$((rows + count)) ;;
  esac
done <"$work/live"
content=$(sha256sum "$work/live.sorted")
bytes=$(wc -c <"$partial")
sum=$(sha256sum "$partial")
sync "$partial" 2>/dev/null
mv "$partial" "$GROUNDWORK_FILE" || fail "cannot keep the dump"
ls -t ./*.dump | tail -n "+$((GROUNDWORK_KEEP + 1))" | while IFS= read -r old; do rm -f "$old"; done
printf '{"file": "%s", "bytes": %d, "sha256": "%s", "tables": %d, "rows": %d, "content": "%s", "verified": true}\n' \
  "$GROUNDWORK_FILE" "$bytes" "${sum%% *}" "$tables" "$rows" "${content%% *}"
""".replace("@plain@", _PLAIN)


def plan_alembic(command: Sequence[str]) -> str:
    """Script that writes down Alembic's heads, and the SQL from the present revision to where the command goes."""
    place = list(command).index("upgrade")
    before, after = command[:place], command[place + 1 :]
    options = [word for word in after if word.startswith("-")]
    targets = [word for word in after if not word.startswith("-")] or ["head"]
    heads = shlex.join([*before, "heads"])
    target = shlex.quote(targets[0])
    sql = f'{shlex.join([*before, "upgrade", *options, "--sql"])} "${{r:+$r:}}"{target}'
    return _PLAN + _ALEMBIC.replace("@heads@", heads).replace("@sql@", sql) + _TELL


def plan_django(command: Sequence[str]) -> str:
    """Script that writes down the SQL of every migration that Django has not applied yet."""
    place = list(command).index("migrate")
    return _PLAN + _DJANGO.replace("@manage@", shlex.join(command[:place])) + _TELL


def plan_command(render: Sequence[str]) -> str:
    """Script that writes down what a command prints as the SQL to come."""
    return _PLAN + _COMMAND.replace("@render@", shlex.join(render)) + _TELL


def copy_files(path: str) -> str:
    """Script that copies an image's SQL files to where psql finds them."""
    return _COPY.replace("@path@", shlex.quote(path))
