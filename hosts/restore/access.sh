#!/bin/sh
# Lets another machine's key read a repository for the time of a restore, or shuts it out again.
# Usage: access.sh allow USER HOURS COMMAND KEY | access.sh revoke USER KEY
# KEY is "TYPE BASE64". The key may run COMMAND and nothing else, and not after HOURS, whatever happens to the
# computer that should revoke it (sshd(8), `expiry-time`; the time is the server's).
set -eu
action=$1
user=$2
home=$(getent passwd "$user" | cut -d: -f6)
if [ -z "$home" ] || [ ! -d "$home/.ssh" ]; then
	echo "there is no user $user with a key on the server: has \`pulumi up\` been run?" >&2
	exit 2
fi
file=$home/.ssh/authorized_keys
# Two restores may begin at once.
exec 9< "$home/.ssh"
flock 9
new=$(mktemp "$home/.ssh/.new-XXXXXXXX")
trap 'rm -f "$new"' EXIT
case $action in
	allow)
		until=$(date -d "+$3 hours" +%Y%m%d%H%M)
		{
			[ ! -f "$file" ] || cat "$file"
			printf 'restrict,expiry-time="%s",command="%s" %s cht-backup-restore\n' "$until" "$4" "$5"
		} > "$new"
		;;
	revoke)
		[ -f "$file" ] || exit 0
		grep -vF "$3 cht-backup-restore" "$file" > "$new" || [ $? -eq 1 ]
		;;
	*)
		echo "unknown action $action" >&2
		exit 2
		;;
esac
chown root:root "$new"
chmod 0644 "$new"
mv -fT "$new" "$file"
