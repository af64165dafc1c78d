# shellcheck shell=sh
# A regular file.

# file_read PATH VALIDATE: a line with kind, mode, owner and group; the content in base64; where VALIDATE fails, a line
# `invalid` and its words in base64.
file_read() {
  if [ -L "$1" ]; then
    printf 'link - - -\n%s' "$(readlink "$1" | base64 -w0)"
  elif [ -f "$1" ]; then
    stat -c 'file %04a %U %G' "$1"
    base64 -w0 <"$1"
    if [ -n "$2" ] && ! file_words=$(sh -c "$2" 2>&1); then printf '\ninvalid %s' "$(printf '%s' "$file_words" | base64 -w0)"; fi
  elif [ -e "$1" ]; then
    printf 'other - - -\n'
  else
    printf 'missing - - -\n'
  fi
}

# file_write PATH MODE OWNER GROUP CONTENT: puts the file there in one step. CONTENT is base64.
file_write() {
  if [ -d "$1" ] && [ ! -L "$1" ]; then
    echo "$1 is a directory, so no file can be put there" >&2
    return 1
  fi
  if [ ! -d "$(dirname "$1")" ]; then
    echo "the directory $(dirname "$1") doesn't exist, so $1 can't be made" >&2
    return 1
  fi
  file_new=$(umask 077 && mktemp "$(dirname "$1")/.new-XXXXXXXX")
  # shellcheck disable=SC2064
  trap "rm -f '$file_new'" EXIT HUP INT TERM
  printf '%s' "$5" | base64 -d >"$file_new"
  chown "$3:$4" "$file_new"
  chmod "$2" "$file_new"
  mv -fT "$file_new" "$1"
}

# file_apply PATH MODE OWNER GROUP CONTENT VALIDATE RELOAD: as file_write; where VALIDATE or the reload fails, what was
# there comes back, so that the next run finds it still to be done.
file_apply() {
  if [ -z "$6$7" ]; then
    file_write "$1" "$2" "$3" "$4" "$5"
    return
  fi
  file_old=
  if [ -e "$1" ]; then
    file_old=$(umask 077 && mktemp "$(dirname "$1")/.old-XXXXXXXX")
    cp -pT "$1" "$file_old"
  fi
  file_write "$1" "$2" "$3" "$4" "$5"
  if file_words=$({ [ -z "$6" ] || sh -c "$6"; } 2>&1) && file_words=$(file_reload "$7" 2>&1); then
    if [ -n "$file_old" ]; then rm -f "$file_old"; fi
    return
  fi
  if [ -n "$file_old" ]; then mv -fT "$file_old" "$1"; else rm -f "$1"; fi
  file_reload "$7" 2>/dev/null || true
  printf '%s was not changed, because it was refused: %s\n' "$1" "$file_words" >&2
  return 1
}

# file_remove PATH RELOAD
file_remove() {
  rm -f "$1"
  file_reload "$2"
}

# file_reload UNIT: a unit that doesn't run reads its files when it starts.
file_reload() {
  if [ -z "$1" ] || ! systemctl is-active --quiet "$1"; then return 0; fi
  # A service that executes itself anew on a reload loses the socket that systemd gave it: sshd of Debian 13 then ends
  # with "Cannot bind any address". Restarted, it gets the socket again, and sessions live on.
  for file_trigger in $(systemctl show -p TriggeredBy --value "$1"); do
    case $file_trigger in
      *.socket)
        if systemctl is-active --quiet "$file_trigger"; then
          systemctl restart "$1"
          return 0
        fi
        ;;
    esac
  done
  systemctl reload-or-restart "$1"
}
