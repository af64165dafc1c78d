# shellcheck shell=sh
# A systemd unit of ours in /etc/systemd/system.

# unit_read UNIT: a line of facts as systemd knows them; then the file in base64, or `masked`, or nothing.
unit_read() {
  unit_file="/etc/systemd/system/$1"
  systemctl show -p UnitFileState -p ActiveState -p NeedDaemonReload -p DropInPaths "$1" | tr '\n' ';'
  echo
  if [ -L "$unit_file" ]; then
    printf '(masked: a link to %s)' "$(readlink "$unit_file")" | base64 -w0
  elif [ -f "$unit_file" ]; then
    base64 -w0 <"$unit_file"
  fi
}

# unit_leavings FILE: what a unit's program writes and nobody needs without the unit, a path a line. systemd passes over
# settings that begin with `X-`.
unit_leavings() {
  if [ -f "$1" ] && [ ! -L "$1" ]; then sed -n 's|^X-RemovedWith=\(/..*\)|\1|p' "$1"; fi
}

# unit_apply UNIT CONTENT ENABLED ACTIVE RESTART OVERRIDE...: CONTENT is base64; ENABLED and ACTIVE are true, false
# or nothing; RESTART is true when an active unit must start anew; OVERRIDEs are drop-ins to remove.
unit_apply() {
  unit_name=$1 unit_content=$2 unit_enabled=$3 unit_active=$4 unit_restart=$5
  shift 5
  for unit_override in "$@"; do
    case $unit_override in
      /etc/systemd/system/* | /run/systemd/system/* | /etc/systemd/system.control/* | /run/systemd/system.control/*)
        rm -f "$unit_override"
        rmdir "$(dirname "$unit_override")" 2>/dev/null || true
        ;;
    esac
  done
  unit_file="/etc/systemd/system/$unit_name"
  unit_before=$(unit_leavings "$unit_file")
  if [ -L "$unit_file" ]; then rm -f "$unit_file"; fi
  file_write "$unit_file" 0644 root root "$unit_content"
  unit_now=$(unit_leavings "$unit_file")
  printf '%s\n' "$unit_before" | while read -r unit_left; do
    if [ -n "$unit_left" ] && ! printf '%s\n' "$unit_now" | grep -qxF -- "$unit_left"; then rm -f -- "$unit_left"; fi
  done
  # Each of these would have systemd read all units anew, as the command after them does, and that takes a third of a second.
  systemctl --no-reload unmask --runtime "$unit_name" >/dev/null 2>&1 || true
  case $unit_enabled in
    true) systemctl --quiet --no-reload reenable "$unit_name" ;;
    false) systemctl --quiet --no-reload disable "$unit_name" ;;
  esac
  systemctl daemon-reload
  case $unit_active in
    true)
      systemctl reset-failed "$unit_name" 2>/dev/null || true
      if [ "$unit_restart" = true ]; then systemctl restart "$unit_name"; else systemctl start "$unit_name"; fi
      ;;
    false) systemctl stop "$unit_name" ;;
  esac
}

# unit_remove UNIT
unit_remove() {
  if [ -e "/etc/systemd/system/$1" ]; then
    case $1 in
      # A run that has begun, a backup say, may end; what would start the next one goes.
      *.service) systemctl --quiet --no-reload disable "$1" 2>/dev/null || true ;;
      *) systemctl --quiet --no-reload disable --now "$1" ;;
    esac
    unit_leavings "/etc/systemd/system/$1" | while read -r unit_left; do rm -f -- "$unit_left"; done
    rm -f "/etc/systemd/system/$1"
    systemctl daemon-reload
  fi
  systemctl reset-failed "$1" 2>/dev/null || true
}
