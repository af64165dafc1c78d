#!/bin/sh
# Writes the deployment's credentials where they are absent, as CHT's image does, then starts CouchDB.
# CouchDB itself replaces the password by its hash.
set -eu
file=/opt/couchdb/etc/local.d/cluster-credentials.ini
if [ ! -e "$file" ]; then
	# In a shell of its own: CouchDB makes its files for others to read.
	(
		umask 027
		cat > "$file.new" <<-END
			[admins]
			$COUCHDB_USER = $COUCHDB_PASSWORD

			[couch_httpd_auth]
			secret = $COUCHDB_SECRET

			[couchdb]
			uuid = $COUCHDB_UUID
		END
	)
	mv "$file.new" "$file"
fi
exec /docker-entrypoint.sh "$@"
