# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nginx of a proxy component: its configuration, and the loop that keeps its list of pods up to date.

Debian's nginx can't follow DNS by itself, so a shell loop looks names up and reloads nginx when an answer changed.
Plain components are reached through their Service; sticky ones pod by pod, chosen by consistent hash of the cookie, so
that all proxies send one client to the same pod without telling each other.
"""

from __future__ import annotations

import math

from ansible_collections.groundwork.platform.plugins.module_utils.model.build import PROXY_PORT
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import Component, Proxy, Route, System

FOLDER = "/etc/groundwork/proxy"
"""Where the ConfigMap is mounted."""
RUNTIME = "/tmp/groundwork"  # noqa: S108 - a path in a container whose /tmp is its own
"""Where the proxy keeps what it writes."""
COMMAND = ["/bin/sh", f"{FOLDER}/proxy.sh"]
COOKIE = "gw_session"
TEMPORARY = "384Mi"
"""Room for request bodies on their way."""


def files(system: System, component: Component) -> dict[str, str]:
    """The files of a proxy's ConfigMap, by name."""
    proxy = component.proxy
    if proxy is None:
        raise ValueError(f"{component.name} is no proxy")
    return {
        "nginx.conf": configuration(system, proxy, workers=max(1, math.ceil(component.resources.cpu.limit / 1000))),
        "upstreams": upstream_table(system, proxy),
        "proxy.sh": script(drain=component.drain),
    }


def upstream_table(system: System, proxy: Proxy) -> str:
    """One line for each routed component: name of the upstream, name to look up, port, and `sticky` or `plain`."""
    lines = []
    for name in sorted({route.component for route in proxy.routes}):
        component = system.components[name]
        port = 80 if component.proxy is not None else component.port
        if component.sticky:
            lines.append(f"{_upstream(name)} {name}-pods {component.port} sticky")
        else:
            lines.append(f"{_upstream(name)} {name} {port} plain")
    return "".join(f"{line}\n" for line in lines)


def configuration(
    system: System, proxy: Proxy, workers: int = 1, port: int = PROXY_PORT, runtime: str = RUNTIME
) -> str:
    """nginx.conf, for nginx 1.22 and later.

    :param workers: number of worker processes.
    :param port: on which it listens.
    :param runtime: folder for everything that it writes.
    """
    values = {
        "workers": workers,
        "port": port,
        "runtime": runtime,
        "cookie": COOKIE,
        "body_limit": proxy.body_limit,
        "session_timeout": proxy.session_timeout,
        "too_large": _answer("too_large", f"The request is larger than {_megabytes(proxy.body_limit)}."),
        "failed": _answer("internal_error", "The proxy itself failed."),
        "bad_gateway": _answer("bad_gateway", "The service behind the proxy gave no valid answer."),
        "unavailable": _answer("unavailable", "The service is not available at the moment."),
        "timeout": _answer("timeout", "The service did not answer in time."),
        "not_found": _answer("not_found", "Nothing is served at this path."),
        "locations": "".join(_locations(system, proxy, route) for route in _with_default(proxy)),
    }
    text = _NGINX
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def script(drain: int, folder: str = FOLDER, runtime: str = RUNTIME) -> str:
    """The program of the container: starts nginx, and reloads it when the answer to a look-up has changed.

    :param drain: seconds that requests under way get once the container is told to end.
    """
    return _SCRIPT.replace("@folder@", folder).replace("@runtime@", runtime).replace("@drain@", str(drain))


def _with_default(proxy: Proxy) -> list[Route | None]:
    routes: list[Route | None] = list(proxy.routes)
    return routes if any(route.path == "/" for route in proxy.routes) else [*routes, None]


def _locations(system: System, proxy: Proxy, route: Route | None) -> str:
    """A path and what is below it, but not what merely begins with the same letters."""
    if route is None:
        return "\n    location / {\n      return 404;\n    }\n"
    sticky = system.components[route.component].sticky
    bare = route.path.rstrip("/")
    upstream = f"http://{_upstream(route.component)}"
    below = _location(f"^~ {bare}/", upstream + ("/" if route.strip_prefix else ""), proxy, sticky)
    if not bare:
        return _location("/", upstream, proxy, sticky)
    return _location(f"= {bare}", upstream + ("/" if route.strip_prefix else ""), proxy, sticky) + below


def _location(match: str, upstream: str, proxy: Proxy, sticky: bool) -> str:
    timeout = proxy.session_timeout if sticky else proxy.read_timeout
    lines = [f"proxy_pass {upstream};", f"proxy_read_timeout {timeout}s;", f"proxy_send_timeout {timeout}s;"]
    if sticky:
        # A header of its own keeps a location from inheriting those above; there are none.
        lines.append("add_header Set-Cookie $gw_set_cookie always;")
    return f"\n    location {match} {{\n" + "".join(f"      {line}\n" for line in lines) + "    }\n"


def _upstream(component: str) -> str:
    return component.replace("-", "_")


def _answer(code: str, message: str) -> str:
    """The body of an answer of the proxy's own, in the form that the applications use."""
    return f'{{"error":{{"code":"{code}","message":"{message}","request_id":"$gw_request_id"}}}}'


def _megabytes(amount: int) -> str:
    return f"{amount / 1024**2:g} MiB"


_NGINX = """\
# Written by groundwork.platform; the list of upstreams beside it is kept by proxy.sh.
worker_processes @workers@;
pid @runtime@/nginx.pid;
# Lesser messages quote whole requests, query strings and all; the access log says what became of each.
error_log stderr crit;
# After a reload, connections of long sessions stay with the old workers for as long.
worker_shutdown_timeout @session_timeout@s;

events {
  worker_connections 4096;
}

http {
  client_body_temp_path @runtime@/body;
  proxy_temp_path @runtime@/proxy;
  fastcgi_temp_path @runtime@/fastcgi;
  uwsgi_temp_path @runtime@/uwsgi;
  scgi_temp_path @runtime@/scgi;

  default_type application/octet-stream;
  server_tokens off;
  tcp_nodelay on;
  reset_timedout_connection on;
  client_header_timeout 15s;
  client_body_timeout 60s;
  client_body_buffer_size 1m;
  client_max_body_size @body_limit@;
  send_timeout 60s;
  keepalive_timeout 65s;

  gzip on;
  gzip_min_length 1024;
  gzip_proxied any;
  gzip_vary on;
  gzip_types application/json application/javascript image/svg+xml text/css text/plain;

  # No query strings, cookies or bodies: they may name patients.
  log_format gw_json escape=json
    '{"time":"$time_iso8601","method":"$request_method","path":"$uri","status":$status,"bytes":$body_bytes_sent,'
    '"seconds":$request_time,"upstream":"$upstream_addr","upstream_status":"$upstream_status",'
    '"upstream_seconds":"$upstream_response_time","remote":"$remote_addr","agent":"$http_user_agent",'
    '"request_id":"$gw_request_id"}';
  access_log /dev/stdout gw_json;

  map $http_x_request_id $gw_request_id {
    "~^[A-Za-z0-9-]{8,64}$" $http_x_request_id;
    default $request_id;
  }
  map $http_x_forwarded_proto $gw_scheme {
    https https;
    default $scheme;
  }
  # Only WebSockets are upgraded: any other protocol could slip past the routes.
  map $http_upgrade $gw_upgrade {
    "~*^websocket$" websocket;
    default "";
  }
  map $gw_upgrade $gw_connection {
    websocket upgrade;
    default "";
  }
  # A client that brings no session of ours gets one, and is sent where the new one will lead it again.
  map $cookie_@cookie@ $gw_session {
    "~^[0-9a-f]{32}$" $cookie_@cookie@;
    default $request_id;
  }
  map $gw_scheme $gw_secure {
    https "; Secure";
    default "";
  }
  map $cookie_@cookie@ $gw_set_cookie {
    "~^[0-9a-f]{32}$" "";
    default "@cookie@=$request_id; Path=/; HttpOnly; SameSite=Lax$gw_secure";
  }

  include upstreams.conf;

  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  proxy_set_header Upgrade $gw_upgrade;
  proxy_set_header Connection $gw_connection;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $gw_scheme;
  proxy_set_header X-Request-ID $gw_request_id;
  proxy_connect_timeout 2s;
  # A request that has reached a pod is tried again only if trying twice does no harm (GET, PUT, DELETE ...).
  proxy_next_upstream error timeout http_502 http_503;
  proxy_next_upstream_tries 3;
  proxy_next_upstream_timeout 10s;

  server {
    listen @port@;
    server_name _;

    error_page 404 @not_found;
    error_page 413 @too_large;
    error_page 500 @failed;
    error_page 502 @bad_gateway;
    error_page 503 @unavailable;
    error_page 504 @timeout;
    location @not_found {
      default_type application/json;
      return 404 '@not_found@';
    }
    location @too_large {
      default_type application/json;
      return 413 '@too_large@';
    }
    location @failed {
      default_type application/json;
      return 500 '@failed@';
    }
    location @bad_gateway {
      default_type application/json;
      return 502 '@bad_gateway@';
    }
    location @unavailable {
      default_type application/json;
      add_header Retry-After 2 always;
      return 503 '@unavailable@';
    }
    location @timeout {
      default_type application/json;
      return 504 '@timeout@';
    }

    location = /healthz {
      access_log off;
      default_type application/json;
      return 200 '{"status":"ok"}';
    }
    location = /readyz {
      access_log off;
      default_type application/json;
      if (-f @runtime@/draining) {
        return 503 '{"status":"draining"}';
      }
      return 200 '{"status":"ready"}';
    }
@locations@  }
}
"""

_SCRIPT = """\
#!/bin/sh
# Written by groundwork.platform. Keeps nginx's upstreams equal to what DNS says, and ends nginx gently.
set -u
export LC_ALL=C
folder=${GROUNDWORK_PROXY_FOLDER:-@folder@}
runtime=${GROUNDWORK_PROXY_RUNTIME:-@runtime@}
drain=${GROUNDWORK_PROXY_DRAIN:-@drain@}
interval=${GROUNDWORK_PROXY_INTERVAL:-2}
live=$runtime/live
candidate=$runtime/candidate
answers=$runtime/answers

say() {
  printf '{"level":"%s","message":"%s"}\\n' "$1" "$2" >&2
}

# Addresses of a name, sorted, one a line, so that all proxies see the same list.
addresses() {
  getent ahosts "$1" 2>/dev/null | while read -r address kind _; do
    [ "$kind" = STREAM ] || continue
    case $address in
      *:*) echo "[$address]" ;;
      *) echo "$address" ;;
    esac
  done | sort -u
}

# An empty answer (DNS down, no pod ready) leaves the last good one in place.
look_up() {
  while read -r upstream name port kind; do
    addresses "$name" >"$answers/$upstream.new"
    if [ -s "$answers/$upstream.new" ]; then
      mv "$answers/$upstream.new" "$answers/$upstream"
    else
      rm -f "$answers/$upstream.new"
    fi
  done <"$folder_copy/upstreams"
}

render() {
  while read -r upstream name port kind; do
    echo "upstream $upstream {"
    [ "$kind" = sticky ] && echo "  hash \\$gw_session consistent;"
    if [ -s "$answers/$upstream" ]; then
      while read -r address; do
        echo "  server $address:$port max_fails=0;"
        # A Service has one address but many pods: named twice, a failed request can be tried on another pod.
        [ "$kind" = plain ] && echo "  server $address:$port max_fails=0;"
      done <"$answers/$upstream"
    else
      echo "  server 127.0.0.1:1 down;"
    fi
    # Shorter than what applications keep idle connections (5 s), and over before a leaving pod stops serving (10 s).
    echo "  keepalive 32;"
    echo "  keepalive_time 5s;"
    echo "  keepalive_timeout 4s;"
    echo "}"
  done <"$folder_copy/upstreams"
}

check() {
  nginx -t -q -e stderr -c "$candidate/nginx.conf"
}

nginx_process=
ending=
end() {
  [ -n "$ending" ] && return
  ending=yes
  : >"$runtime/draining"
  [ -n "$nginx_process" ] || exit 0
  kill -QUIT "$nginx_process" 2>/dev/null
  left=$((drain * 5))
  while kill -0 "$nginx_process" 2>/dev/null && [ "$left" -gt 0 ]; do
    sleep 0.2
    left=$((left - 1))
  done
  kill -TERM "$nginx_process" 2>/dev/null
  wait "$nginx_process"
  exit 0
}
trap end TERM INT QUIT

# A copy, so that a changed ConfigMap reaches new pods only: old ones may yet be needed as they are.
folder_copy=$runtime/config
rm -rf "$runtime"
mkdir -p "$live" "$candidate" "$answers" "$folder_copy"
cp "$folder/nginx.conf" "$folder/upstreams" "$folder_copy/"
cp "$folder_copy/nginx.conf" "$live/nginx.conf"
cp "$folder_copy/nginx.conf" "$candidate/nginx.conf"

look_up
render >"$candidate/upstreams.conf"
if ! check; then
  say error "nginx refuses its configuration"
  exit 1
fi
cp "$candidate/upstreams.conf" "$live/upstreams.conf"
nginx -e stderr -c "$live/nginx.conf" -g 'daemon off;' &
nginx_process=$!
say info "nginx started"

while :; do
  # In the background, so that a signal is not kept waiting.
  sleep "$interval" &
  wait $!
  if ! kill -0 "$nginx_process" 2>/dev/null; then
    wait "$nginx_process"
    say error "nginx ended by itself with code $?"
    exit 1
  fi
  look_up
  render >"$candidate/upstreams.conf"
  [ "$(cat "$candidate/upstreams.conf")" = "$(cat "$live/upstreams.conf")" ] && continue
  if check; then
    mv "$candidate/upstreams.conf" "$live/upstreams.conf"
    kill -HUP "$nginx_process"
    say info "upstreams changed, nginx reloaded"
  else
    say error "nginx refuses the new upstreams and keeps the old ones"
  fi
done
"""
