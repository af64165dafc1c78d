#!/bin/bash
# What the official image does before CouchDB begins, as far as others can see it: as root it makes all files CouchDB's,
# gives them their usual modes, adds the node's name where one is set, and starts as couchdb; without an administrator it
# doesn't start.
set -e

if [ "$1" = /opt/couchdb/bin/couchdb ]; then
	touch /opt/couchdb/etc/local.d/docker.ini
	if [ "$(id -u)" = 0 ]; then
		chown -R couchdb:couchdb /opt/couchdb
		find /opt/couchdb/data /opt/couchdb/etc -type d -exec chmod 0755 '{}' +
		find /opt/couchdb/data /opt/couchdb/etc -type f -exec chmod 0644 '{}' +
	fi
	if [ -n "$NODENAME" ] && ! grep -q couchdb@ /opt/couchdb/etc/vm.args; then
		echo "-name couchdb@$NODENAME" >> /opt/couchdb/etc/vm.args
	fi
	if ! grep -q '^\[admins\]' /opt/couchdb/etc/local.d/*.ini; then
		echo "no administrator is set: CouchDB doesn't start" >&2
		exit 1
	fi
	if [ "$(id -u)" = 0 ]; then
		HOME=/opt/couchdb exec setpriv --reuid=couchdb --regid=couchdb --clear-groups "$@"
	fi
fi
exec "$@"
