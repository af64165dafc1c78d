# shellcheck shell=sh
# Disk space held back by a file.

# space_reserve_read PATH: its size in MiB on the disk, or nothing.
space_reserve_read() {
  if [ -f "$1" ]; then echo $(($(stat -c '%b * %B' "$1") / 1048576)); fi
}

# space_reserve_apply PATH MEBIBYTES
space_reserve_apply() {
  space_reserve_free=$(df --output=avail -m "$(dirname "$1")" | tail -n 1 | tr -d ' ')
  if [ ! -f "$1" ] && [ "$space_reserve_free" -lt $(($2 * 2)) ]; then
    echo "$(dirname "$1") has only $space_reserve_free MiB free, too few to hold back $2 MiB of them" >&2
    return 1
  fi
  space_reserve_new=$(umask 077 && mktemp "$(dirname "$1")/.new-XXXXXXXX")
  # shellcheck disable=SC2064
  trap "rm -f '$space_reserve_new'" EXIT HUP INT TERM
  # Where space can't be reserved as such, only bytes that don't compress hold it.
  fallocate -l "$2MiB" "$space_reserve_new" 2>/dev/null ||
    dd if=/dev/urandom of="$space_reserve_new" bs=1M count="$2" status=none
  mv -fT "$space_reserve_new" "$1"
}

# space_reserve_remove PATH
space_reserve_remove() {
  rm -f "$1"
}
