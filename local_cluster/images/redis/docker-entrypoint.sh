#!/bin/sh
# As the published image does: options or a configuration file alone are for redis-server.
set -e
case "${1-}" in
-* | *.conf) set -- redis-server "$@" ;;
esac
exec "$@"
