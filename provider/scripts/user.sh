# shellcheck shell=sh
# A system user without a password.

# user_read NAME: home and shell; its groups but the one of its own name; owner, group and mode of its home; whether it
# has a password. Nothing where there is no such user.
user_read() {
  if ! getent passwd "$1" | cut -d: -f6,7; then return 0; fi
  id -nG "$1" 2>/dev/null | tr ' ' '\n' | grep -vxF "$1" | tr '\n' ' ' || true
  echo
  stat -c '%U %G %04a' "$(getent passwd "$1" | cut -d: -f6)" 2>/dev/null || echo missing
  getent shadow "$1" | cut -d: -f2 | grep -qxF '*' || echo 'has a password'
}

# user_apply NAME HOME SHELL MODE: MODE is the home's.
user_apply() {
  if getent passwd "$1" >/dev/null; then
    usermod --home "$2" --shell "$3" --groups '' "$1"
  else
    useradd --system --user-group --home-dir "$2" --no-create-home --shell "$3" "$1"
  fi
  # `*` matches no password but, unlike `!`, doesn't count as a locked account, to which sshd refuses keys.
  usermod --password '*' "$1"
  mkdir -p "$2"
  # Root's, so that the account can't add a key or put something else in the place of what is in there.
  chown root:root "$2"
  chmod "$4" "$2"
}

# user_remove NAME
user_remove() {
  if getent passwd "$1" >/dev/null; then userdel "$1"; fi
}
