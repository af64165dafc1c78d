#!/bin/sh
# Brings the data volume to its place: waits for it (it is attached to a machine that runs already), makes a file system
# where there is nothing at all, has /etc/fstab mount it from then on, and grows the file system with the volume.
# A volume that holds anything else is left as it is. Without its volume the directory takes no files, not even root's.
# Usage: cht-data-volume DIRECTORY SECONDS DEVICE... with all the names that the one volume may appear by.
set -eu
directory=$1
seconds=$2
shift 2

fail() {
	echo "$1" >&2
	exit 1
}

# Not the time of day, which is set during the boot.
uptime() {
	cut -d. -f1 /proc/uptime
}

# What is mounted on the directory; nothing when it is only a directory.
mounted() {
	findmnt --noheadings --output SOURCE --mountpoint "$directory" || true
}

# wait_for DEVICE...: the first that there is, by the kernel's name.
wait_for() {
	limit=$(($(uptime) + seconds))
	while :; do
		for candidate; do
			if [ -b "$candidate" ]; then
				readlink -f "$candidate"
				return
			fi
		done
		if [ "$(uptime)" -ge "$limit" ]; then
			echo "the data volume isn't attached: none of $* appeared within $seconds s" >&2
			return 1
		fi
		sleep 1
	done
}

# blank DEVICE: whether both ends hold nothing but zeros, as a new volume does. What can't be read isn't blank.
blank() {
	edge=$((16 * 1024 * 1024))
	cmp -s -n "$edge" "$1" /dev/zero &&
		cmp -s -n "$edge" -i "$(($(blockdev --getsize64 "$1") - edge)):0" "$1" /dev/zero
}

# probe DEVICE: what is on it as lines NAME=VALUE; nothing when that is nothing.
probe() {
	found=$(blkid -p -o export "$1" 2>&1) && code=0 || code=$?
	# 2 without words means that nothing was found that is known, or too much; with words, that it couldn't be looked for.
	case $code$found in
		0*) echo "$found" ;;
		2) blank "$1" || echo CONTENT=unknown ;;
		*) echo "CONTENT=$code, $found" ;;
	esac
}

if [ -z "$(mounted)" ]; then
	install -d -m 0755 "$directory"
	[ -z "$(ls -A "$directory")" ] || fail "$directory holds files, which the volume would hide; move them away"
	chattr +i "$directory"
fi

device=$(wait_for "$@")
if [ -z "$(mounted)" ]; then
	content=$(probe "$device")
	if [ -z "$content" ]; then
		echo "$device is blank: making a file system"
		mkfs.ext4 -q -m 1 -L cht-backup "$device"
		content=$(probe "$device")
	fi
	# One on a whole disk that has partitions too is what is left of something.
	if ! echo "$content" | grep -qx TYPE=ext4 || echo "$content" | grep -q ^PTTYPE=; then
		fail "$device is left as it is, because it holds something else than an ext4 file system: $(echo "$content" | grep -v ^DEVNAME= | tr '\n' ' ')"
	fi
	uuid=$(echo "$content" | sed -n 's/^UUID=//p')

	# A boot goes on without the volume after a minute. Before systemd-tmpfiles, which removes what a crash left of locks.
	entry="UUID=$uuid $directory ext4 nofail,nodev,nosuid,noexec,x-systemd.device-timeout=60s,x-systemd.before=systemd-tmpfiles-setup.service 0 2"
	if ! grep -qxF "$entry" /etc/fstab; then
		awk -v directory="$directory" '/^#/ || $2 != directory' /etc/fstab > /etc/fstab.new
		echo "$entry" >> /etc/fstab.new
		mv /etc/fstab.new /etc/fstab
		systemctl daemon-reload
	fi
	# As at a boot: 4 and more is what nobody should decide but a person.
	fsck.ext4 -p "$device" || [ "$?" -lt 4 ] || fail "the file system on $device is damaged: see fsck.ext4 $device"
	mount "$directory"
	# Nobody on this machine has worked with it yet, so locks in there are another machine's.
	systemd-tmpfiles --boot --remove --prefix="$directory"
fi
source=$(mounted)
[ "$source" = "$device" ] || fail "$source is mounted at $directory, not the data volume $device; unmount it"
resize2fs "$device"
