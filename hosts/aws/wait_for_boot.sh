#!/bin/bash
# Waits until the first boot of a machine in a cloud has ended, and tells how it ended.
# Usage: wait_for_boot.sh [SECONDS]. Ends with 0 where everything was set up, or all that matters; with 1 and the reason
# where something failed, or it isn't done after so many seconds (default 900).
set -eu
limit=${1:-900}

# Whatever is put there comes after a first boot that ended well. Later boots say nothing of the first.
if [ -d /opt/cht-backup-server ]; then
	echo "the first boot ended earlier"
	exit 0
fi
if ! command -v cloud-init > /dev/null; then
	echo "there is no cloud-init on this machine: it wasn't started from an image for a cloud" >&2
	exit 1
fi
# The reasons, each on a line. Their names and places are the same in all versions since 22.4.
reasons() {
	cloud-init status --format=json 2> /dev/null < /dev/null | python3 -c '
import json, sys
status = json.load(sys.stdin)
for reason in status.get("errors", []):
    print("  " + str(reason))
for level, reasons in status.get("recoverable_errors", {}).items():
    for reason in reasons:
        print("  " + level.lower() + ": " + str(reason))
' || true
	# Of a unit that it started, cloud-init knows only that it failed.
	systemctl list-units --failed --plain --no-legend 2> /dev/null < /dev/null | while read -r unit _; do
		journalctl --quiet --output=cat --lines=3 "_SYSTEMD_UNIT=$unit" 2> /dev/null < /dev/null | sed "s/^/  $unit: /"
	done
	echo "  more: cloud-init status --long; /var/log/cloud-init-output.log"
}

# It prints a dot for each look; its exit code means other things in other versions, and its words don't.
cloud-init status --wait > /dev/null 2>&1 < /dev/null &
waiting=$!
told=0
while kill -0 "$waiting" 2> /dev/null; do
	if [ "$SECONDS" -ge "$limit" ]; then
		kill "$waiting"
		echo "the first boot isn't done after $limit s:" >&2
		reasons >&2
		exit 1
	fi
	if [ $((SECONDS - told)) -ge 15 ]; then
		told=$SECONDS
		echo "the first boot is at work, $SECONDS s so far"
	fi
	sleep 1
done

long=$(cloud-init status --long 2> /dev/null < /dev/null || true)
case $(printf '%s\n' "$long" | sed -n 's/^status: *//p') in
	done)
		if printf '%s\n' "$long" | grep -q '^extended_status: *degraded'; then
			echo "the first boot has ended, with warnings:"
			reasons
		else
			echo "the first boot has ended"
		fi
		exit 0
		;;
	error)
		echo "the first boot failed:" >&2
		reasons >&2
		# After a restart cloud-init would say that all is done, though nothing of this would have been made up for.
		cat >&2 <<'END'
A restart would not make up for it. Mend the cause, and have another instance made; the data volume stays:
  npm run pulumi -- up --stack STACK --replace '**:Instance::server-instance-*'
or, with today's settings for the first boot and not those of the one before (operatorKeys, dataDirectory), end the
instance at AWS (`aws ec2 terminate-instances`) and run `up` again.
END
		exit 1
		;;
	disabled) echo "the first boot set nothing up, for cloud-init is disabled:" >&2 ;;
	*) echo "cloud-init doesn't tell how the first boot went:" >&2 ;;
esac
reasons >&2
exit 1
