#!/bin/sh
# Makes this machine fit for a restore from the server, and prints the public half of an SSH key that is made here; or
# for one from a bucket. Borg is looked after elsewhere (provider/scripts/packages.sh), but in a dry run.
# Usage: prepare.sh DIRECTORY INSTALL_DOCKER (yes or no) FROM (server or bucket) DRY_RUN (yes or no) [OLDEST_BORG].
# What it does is said on standard error. A dry run installs nothing: what is missing is fetched into DIRECTORY, which
# goes again, and `DIRECTORY/python3` finds it.
set -eu
directory=$1
install_docker=$2
from=$3
dry_run=$4
umask 077

if ! command -v apt-get > /dev/null; then
	echo "this machine has no apt-get: a restore needs Debian 12, Ubuntu 22.04 or newer" >&2
	exit 2
fi
wanted=
/usr/bin/python3 -c 'import xxhash' 2> /dev/null || wanted="$wanted python3 python3-xxhash"
if [ "$from" = bucket ]; then
	/usr/bin/python3 -c 'import boto3' 2> /dev/null || wanted="$wanted python3-boto3 ca-certificates"
else
	command -v ssh-keygen > /dev/null || wanted="$wanted openssh-client"
fi
known() {
	apt-cache show "$1" > /dev/null 2>&1
}
update() {
	# A new machine may still be busy with its own first updates.
	tries=0
	until "$@" update -q > "$directory/apt.log" 2>&1; do
		tries=$((tries + 1))
		if [ "$tries" -ge 60 ] || ! grep -q 'Could not get lock' "$directory/apt.log"; then
			echo "this machine's package lists can't be fetched (apt-get update):" >&2
			grep '^[EW]:' "$directory/apt.log" | tail -n 3 >&2
			exit 2
		fi
		sleep 5
	done
}
install() {
	"$@" > "$directory/apt.log" 2>&1 || {
		echo "these packages can't be installed:" >&2
		{ grep '^E:' "$directory/apt.log" || tail -n 5 "$directory/apt.log"; } >&2
		exit 2
	}
}

# fetch PACKAGE...: packages and what they need, unpacked in the directory.
fetch() {
	if ! [ -x /usr/bin/python3 ]; then
		echo "this machine has no Python, which a restore would install; a dry run can't do without it. Nothing was changed" >&2
		exit 2
	fi
	mkdir -p "$directory/apt/lists/partial" "$directory/apt/archives/partial" "$directory/unpacked"
	own="-o Dir::State::Lists=$directory/apt/lists -o Dir::Cache=$directory/apt -o Debug::NoLocking=true"
	# shellcheck disable=SC2086
	update apt-get $own
	# shellcheck disable=SC2086
	offered=$(apt-cache $own madison borgbackup | cut -d'|' -f2 | tr -d ' ')
	for version in $offered; do
		if dpkg --compare-versions "$version" ge "$oldest"; then
			chosen=$version
			break
		fi
	done
	if [ "$borg" = missing ]; then
		if [ -z "${chosen:-}" ]; then
			echo "this machine's package sources have borg ${offered:-not at all}, so a restore would build one here, which takes some minutes; a dry run can't do without it. Nothing was changed" >&2
			exit 2
		fi
		set -- "borgbackup=$chosen" "$@"
	fi
	echo "fetching $* for the time of the dry run" >&2
	# shellcheck disable=SC2086
	install apt-get $own -y -q --no-install-recommends --download-only install "$@"
	for archive in "$directory"/apt/archives/*.deb; do
		if [ -e "$archive" ]; then dpkg-deb --extract "$archive" "$directory/unpacked"; fi
	done
	rm -r "$directory/apt"
}

# started NAME PROGRAM: a command NAME that finds what was fetched.
started() {
	libraries=$(find "$directory/unpacked" -type d -path '*/lib/*-linux-gnu*' -prune -print | tr '\n' ':')
	cat > "$directory/$1" << END
#!/bin/sh
export PATH='$directory/unpacked/bin:$directory/unpacked/usr/bin':"\$PATH"
export PYTHONPATH='$directory/unpacked/usr/lib/python3/dist-packages' PYTHONDONTWRITEBYTECODE=1
export LD_LIBRARY_PATH='$libraries'
exec '$2' "\$@"
END
	chmod 0700 "$directory/$1"
}

if [ "$dry_run" = yes ]; then
	oldest=$5
	borg=there
	version=$(dpkg-query -W -f '${Version}' borgbackup 2> /dev/null) || version=
	if [ -z "$version" ] || dpkg --compare-versions "$version" lt "$oldest"; then
		command -v borg > /dev/null && borg --version | sed 's/^borg //' | { read -r version; dpkg --compare-versions "$version" ge "$oldest"; } || borg=missing
	fi
	mkdir -p "$directory/unpacked"
	if [ "$borg" = missing ] || [ -n "$wanted" ]; then
		# shellcheck disable=SC2086
		fetch $wanted
	fi
	started python3 /usr/bin/python3
	if [ -x "$directory/unpacked/usr/bin/borg" ]; then
		mkdir -p "$directory/unpacked/bin"
		mv "$directory/unpacked/usr/bin/borg" "$directory/unpacked/borg"
		started unpacked/bin/borg "$directory/unpacked/borg"
	fi
	PATH="$directory/unpacked/usr/bin:$PATH"
else
	if [ "$install_docker" = yes ] && { ! command -v docker || ! { docker compose version || docker-compose version; }; } > /dev/null 2>&1; then
		docker=yes
	else
		docker=no
	fi
	if [ -n "$wanted" ] || [ "$docker" = yes ]; then
		export DEBIAN_FRONTEND=noninteractive
		update apt-get
		if [ "$docker" = yes ]; then
			wanted="$wanted docker.io"
			# Debian has the client and Compose under other names than Ubuntu.
			if known docker-cli; then wanted="$wanted docker-cli"; fi
			if known docker-compose-v2; then wanted="$wanted docker-compose-v2"; else wanted="$wanted docker-compose"; fi
		fi
		echo "installing$wanted" >&2
		# shellcheck disable=SC2086
		install apt-get install -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends $wanted
	fi
fi

[ "$from" = server ] || exit 0
# One key a run; its public half is let in on the server for the time of this run only.
rm -f "$directory/ssh_key" "$directory/ssh_key.pub"
ssh-keygen -q -t ed25519 -N '' -C cht-backup-restore -f "$directory/ssh_key"
cat "$directory/ssh_key.pub"
