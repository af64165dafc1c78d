#!/bin/sh
# Makes this machine fit for a restore from the server, and prints the public half of an SSH key that is made here; or
# for one from a bucket.
# Usage: prepare.sh DIRECTORY INSTALL_DOCKER (yes or no) FROM (server or bucket). What it does is said on standard error.
set -eu
directory=$1
install_docker=$2
from=$3
umask 077

if ! command -v apt-get > /dev/null; then
	echo "this machine has no apt-get: a restore needs Debian 13, Ubuntu 24.04 or newer" >&2
	exit 2
fi
wanted=
command -v borg > /dev/null || wanted="$wanted borgbackup"
python3 -c 'import xxhash' 2> /dev/null || wanted="$wanted python3 python3-xxhash"
if [ "$from" = bucket ]; then
	python3 -c 'import boto3' 2> /dev/null || wanted="$wanted python3-boto3 ca-certificates"
else
	command -v ssh-keygen > /dev/null || wanted="$wanted openssh-client"
fi
known() {
	apt-cache show "$1" > /dev/null 2>&1
}
if [ "$install_docker" = yes ] && { ! command -v docker > /dev/null || ! docker compose version > /dev/null 2>&1; }; then
	docker=yes
else
	docker=no
fi
if [ -n "$wanted" ] || [ "$docker" = yes ]; then
	export DEBIAN_FRONTEND=noninteractive
	# A new machine may still be busy with its own first updates.
	tries=0
	until apt-get update -q > "$directory/apt.log" 2>&1; do
		tries=$((tries + 1))
		if [ "$tries" -ge 60 ] || ! grep -q 'Could not get lock' "$directory/apt.log"; then
			echo "this machine's package lists can't be fetched (apt-get update):" >&2
			grep '^[EW]:' "$directory/apt.log" | tail -n 3 >&2
			exit 2
		fi
		sleep 5
	done
	if [ "$docker" = yes ]; then
		wanted="$wanted docker.io"
		# Debian has the client and Compose under other names than Ubuntu.
		if known docker-cli; then wanted="$wanted docker-cli"; fi
		if known docker-compose-v2; then wanted="$wanted docker-compose-v2"; else wanted="$wanted docker-compose"; fi
	fi
	echo "installing$wanted" >&2
	# shellcheck disable=SC2086
	apt-get install -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends $wanted > "$directory/apt.log" 2>&1 || {
		echo "these packages can't be installed:" >&2
		{ grep '^E:' "$directory/apt.log" || tail -n 5 "$directory/apt.log"; } >&2
		exit 2
	}
fi

[ "$from" = server ] || exit 0
# One key a run; its public half is let in on the server for the time of this run only.
rm -f "$directory/ssh_key" "$directory/ssh_key.pub"
ssh-keygen -q -t ed25519 -N '' -C cht-backup-restore -f "$directory/ssh_key"
cat "$directory/ssh_key.pub"
