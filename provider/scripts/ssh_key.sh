# shellcheck shell=sh
# SSH keys: pairs made on the machine, and the host's own.

# ssh_key_read PATH: mode, owner, comment; then the public key, derived from the private half. Nothing where there is none.
ssh_key_read() {
  if [ ! -f "$1" ]; then return 0; fi
  stat -c '%04a %U' "$1"
  # Through a pipe: ssh-keygen refuses a file that others may read, and that is for the preview to show.
  # shellcheck disable=SC2002
  cat "$1" | ssh-keygen -y -P '' -f /dev/stdin 2>/dev/null || echo unusable
}

# ssh_key_apply PATH COMMENT: keeps a key that is there and usable.
ssh_key_apply() {
  if [ -f "$1" ]; then chmod 0600 "$1"; fi
  if ! ssh-keygen -y -P '' -f "$1" >/dev/null 2>&1; then
    if [ -e "$1" ]; then mv -f "$1" "$1.unusable"; fi
    rm -f "$1.pub"
    (umask 077 && ssh-keygen -q -t ed25519 -N '' -C "$2" -f "$1")
  fi
  chown root:root "$1"
  chmod 0600 "$1"
  ssh-keygen -q -c -P '' -C "$2" -f "$1" >/dev/null
  ssh-keygen -y -P '' -f "$1"
}

# ssh_key_remove PATH
ssh_key_remove() {
  rm -f "$1" "$1.pub"
}

# ssh_key_of_host
ssh_key_of_host() {
  cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub
}
