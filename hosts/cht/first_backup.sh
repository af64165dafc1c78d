#!/bin/bash
# Makes a deployment's first backup, or joins a backup that is running, and tells what it says.
# Usage: first_backup.sh SERVICE [SECONDS [REPORT LIST]]. Ends when the backup has, or after so many seconds (default
# 1200): a first upload may take days, and goes on by itself. Ends with 1 and the last lines where the backup failed, with 2
# where there is no such service. Nothing is done where the first backup was made earlier, whoever has forgotten that: where
# the file REPORT tells of a backup of this machine's that was complete, and the command LIST, which prints borg's
# JSON, has an archive in the repository.
set -eu
service=$1
limit=${2:-1200}
report=${3:-}
list=${4:-}
# How often a quiet backup is said to be at work.
quiet=60

if [ "$(systemctl show --property=LoadState --value "$service")" != loaded ]; then
	echo "there is no $service on this machine" >&2
	exit 2
fi

# made_before: succeeds, with the newest archive's name, where a backup of this machine's is in the repository.
made_before() {
	[ -n "$report" ] && [ -e "$report" ] || return 1
	python3 -Ic 'import json, sys
sys.exit(json.load(open(sys.argv[1], encoding="utf-8")).get("lastSuccessAt") is None)' "$report" < /dev/null || return 1
	timeout --kill-after=10 120 sh -c "$list" < /dev/null | python3 -Ic 'import json, sys
print(json.load(sys.stdin)["archives"][-1]["name"])'
}
if newest=$(made_before 2> /dev/null); then
	echo "the first backup was made earlier; the newest archive is $newest"
	exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# From what the unit said last. After the journal's very end systemd before 253 would pass over the unit's next line, as it
# always takes the first one for that of the cursor; and where there is nothing to tell, it ends with 1.
journalctl --quiet --lines=1 --output=cat --cursor-file="$scratch/cursor" _SYSTEMD_UNIT="$service" > /dev/null || true

# Where the connection has gone, writing ends this script; the backup goes on.
told() {
	journalctl --quiet --output=cat --cursor-file="$scratch/cursor" _SYSTEMD_UNIT="$service" > "$scratch/new" || true
	tail -n 20 "$scratch/new" >> "$scratch/all"
	cat "$scratch/new"
	if [ -s "$scratch/new" ]; then said=$SECONDS; fi
}

if [ "$(systemctl show --property=ActiveState --value "$service")" = activating ]; then
	echo "a backup is running already; following it"
fi
# Waits until the backup has ended, and for one that is running already.
systemctl start "$service" > /dev/null 2>&1 < /dev/null &
starting=$!
said=$SECONDS
while kill -0 "$starting" 2> /dev/null; do
	told
	if [ "$SECONDS" -ge "$limit" ]; then
		kill "$starting"
		echo "the first backup is still at work after $((limit / 60)) min, and goes on by itself. To see how far it is:"
		echo "  on this machine: journalctl --follow --unit=$service"
		echo "Should it fail, the alert addresses hear of it."
		exit 0
	fi
	if [ $((SECONDS - said)) -ge "$quiet" ]; then
		echo "still at work after $((SECONDS / 60)) min"
		said=$SECONDS
	fi
	sleep 1
done
journalctl --sync
told

result=$(systemctl show --property=Result --value "$service")
if wait "$starting" && [ "$result" = success ]; then exit 0; fi
{
	echo "the first backup failed ($result). Its last lines:"
	tail -n 12 "$scratch/all" | sed 's/^/  /'
	echo "all of them: journalctl --unit=$service; and try again: systemctl start $service"
} >&2
exit 1
