#!/bin/bash
# Makes a deployment's first backup, or joins a backup that is running, and tells what it says.
# Usage: first_backup.sh SERVICE [SECONDS]. Ends when the backup has, or after so many seconds (default 1200): a first
# upload may take days, and goes on by itself. Ends with 1 and the last lines where the backup failed, with 2 where there
# is no such service.
set -eu
service=$1
limit=${2:-1200}
# How often a quiet backup is said to be at work.
quiet=60

if [ "$(systemctl show --property=LoadState --value "$service")" != loaded ]; then
	echo "there is no $service on this machine" >&2
	exit 2
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# From the journal's end on.
journalctl --quiet --lines=1 --output=cat --cursor-file="$scratch/cursor" > /dev/null

# Where the connection has gone, writing ends this script; the backup goes on.
told() {
	journalctl --quiet --output=cat --cursor-file="$scratch/cursor" _SYSTEMD_UNIT="$service" > "$scratch/new"
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
