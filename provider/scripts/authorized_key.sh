# shellcheck shell=sh
# The only key with which a user may log in. The file belongs to root, so that the user can't add another.

authorized_key_file() {
  authorized_key_home=$(getent passwd "$1" | cut -d: -f6)
  if [ -z "$authorized_key_home" ]; then
    echo "there is no user $1" >&2
    return 1
  fi
  echo "$authorized_key_home/.ssh/authorized_keys"
}

# authorized_key_read USER: a line with mode and owner of the file, another of its directory; then the file.
# Nothing where user or file are missing.
authorized_key_read() {
  if ! authorized_key_path=$(authorized_key_file "$1" 2>/dev/null) || [ ! -f "$authorized_key_path" ]; then return 0; fi
  stat -c '%04a %U' "$authorized_key_path"
  stat -c '%04a %U' "$(dirname "$authorized_key_path")"
  cat "$authorized_key_path"
}

# authorized_key_apply USER LINE FIRST: LINE is base64. FIRST is true when a stack that hasn't made the file takes it over:
# then one that holds another key is somebody else's.
authorized_key_apply() {
  authorized_key_path=$(authorized_key_file "$1")
  authorized_key_own=$(printf '%s' "$2" | base64 -d | sed 's/.*" //' | cut -d' ' -f2)
  if [ "$3" = true ] && [ -s "$authorized_key_path" ] && grep -v '^#' "$authorized_key_path" | grep -qvF "$authorized_key_own"; then
    echo "$authorized_key_path lets another key in: another stack or machine has a deployment of this name. Choose another name, or remove that file to take the deployment over" >&2
    return 1
  fi
  authorized_key_directory=$(dirname "$authorized_key_path")
  mkdir -p "$authorized_key_directory"
  chown root:root "$authorized_key_directory"
  chmod 0755 "$authorized_key_directory"
  authorized_key_new=$(mktemp "$authorized_key_directory/.new-XXXXXXXX")
  printf '%s' "$2" | base64 -d >"$authorized_key_new"
  chown root:root "$authorized_key_new"
  chmod 0644 "$authorized_key_new"
  mv -fT "$authorized_key_new" "$authorized_key_path"
}

# authorized_key_remove USER
authorized_key_remove() {
  if authorized_key_path=$(authorized_key_file "$1" 2>/dev/null); then rm -f "$authorized_key_path"; fi
}
