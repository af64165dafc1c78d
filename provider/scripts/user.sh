# shellcheck shell=sh
# A system user without a password.

# user_read NAME: home and shell, or nothing.
user_read() {
  getent passwd "$1" | cut -d: -f6,7 || true
}

# user_apply NAME HOME SHELL
user_apply() {
  if getent passwd "$1" >/dev/null; then
    usermod --home "$2" --shell "$3" "$1"
  else
    useradd --system --user-group --home-dir "$2" --no-create-home --shell "$3" "$1"
  fi
  # `*` matches no password but, unlike `!`, doesn't count as a locked account, to which sshd refuses keys.
  usermod --password '*' "$1"
  if [ ! -d "$2" ]; then
    mkdir -p "$2"
    chown root:root "$2"
    chmod 0755 "$2"
  fi
}

# user_remove NAME
user_remove() {
  if getent passwd "$1" >/dev/null; then userdel "$1"; fi
}
