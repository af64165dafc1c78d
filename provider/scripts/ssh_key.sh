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

# ssh_key_apply PATH COMMENT: keeps a key that is there and usable. What a link leads to is somebody else's.
ssh_key_apply() {
  if [ -L "$1" ] || { [ -e "$1" ] && [ ! -f "$1" ]; }; then
    echo "$1 is no regular file; move it away" >&2
    return 1
  fi
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

# ssh_key_of_host: what the SSH server offers, by its own words: a line `algorithms LIST`, then a line `TYPE KEY` for each
# host key. A public half that lies beside them may be of a key that it doesn't use.
ssh_key_of_host() {
  ssh_key_server=$(command -v sshd || echo /usr/sbin/sshd)
  if ! ssh_key_settings=$("$ssh_key_server" -T -C user=root,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22 2>&1); then
    echo "sshd -T: $(printf '%s' "$ssh_key_settings" | tail -n 1)"
    return 1
  fi
  printf '%s\n' "$ssh_key_settings" | sed -n 's/^hostkeyalgorithms /algorithms /p'
  printf '%s\n' "$ssh_key_settings" | sed -n 's/^hostkey //p' | while read -r ssh_key_path; do
    if [ -f "$ssh_key_path" ]; then ssh-keygen -y -P '' -f "$ssh_key_path" 2>/dev/null </dev/null | cut -d' ' -f1,2; fi
  done
}
