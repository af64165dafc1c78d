#!/bin/bash
# Starts a drill, or joins one that is running, and tells what it says until it has ended.
# Usage: follow.sh UNIT REPORT. What the drill says goes to standard error; in the end the file REPORT, where this drill
# wrote it, to standard output. Ends with the drill's exit code (2: it could not begin), or when standard input is
# closed: then the drill goes on.
set -eu
unit=$1
report=$2

if [ "$(systemctl show --property=LoadState --value "$unit")" != loaded ]; then
	echo "there is no $unit on this machine: has \`pulumi up\` been run?" >&2
	exit 2
fi
cursor=$(mktemp)
began=$(mktemp)
trap 'rm -f "$cursor" "$began"' EXIT
# From what the unit said last. After the journal's very end systemd before 253 would pass over the unit's next line, as it
# always takes the first one for that of the cursor; and where there is nothing to tell, it ends with 1.
journalctl --quiet --lines=1 --output=cat --cursor-file="$cursor" _SYSTEMD_UNIT="$unit" > /dev/null || true

told() {
	journalctl --quiet --output=cat --cursor-file="$cursor" _SYSTEMD_UNIT="$unit" >&2 || true
}

if [ "$(systemctl show --property=ActiveState --value "$unit")" = activating ]; then
	echo "a drill is running already; following it" >&2
fi
# Waits until the drill has ended, and for one that is running already.
systemctl start "$unit" > /dev/null 2>&1 < /dev/null &
starting=$!
while kill -0 "$starting" 2> /dev/null; do
	told
	# A second passes, or the other side goes.
	ended=0
	read -r -t 1 || ended=$?
	if [ "$ended" -le 128 ]; then
		kill "$starting"
		exit 130
	fi
done
# Of one that was killed, the report is made by the unit that tidies up after it.
while systemctl list-jobs --no-legend | grep -q " ${unit%.service}-cleanup.service "; do sleep 0.1; done
journalctl --sync
told

result=$(systemctl show --property=Result --value "$unit")
status=$(systemctl show --property=ExecMainStatus --value "$unit")
if [ "$report" -nt "$began" ]; then cat "$report"; fi
case $result in
	success) exit 0 ;;
	exit-code)
		if [ "$status" = 1 ] || [ "$status" = 2 ]; then exit "$status"; fi
		;;
esac
echo "the drill ended with $result (exit status $status); see: journalctl -u $unit" >&2
# A fault of the program itself says nothing of the copy.
if [ "$status" = 70 ]; then exit 2; fi
exit 1
