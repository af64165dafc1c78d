# shellcheck shell=sh
# A directory with all that is in it.

# tree_read PATH VALIDATE: `directory`, `missing` or `other`; what isn't root's alone to change; an empty line; SHA-256 and
# path of each file, but for what an interpreter leaves there; where VALIDATE fails, an empty line and its words.
tree_read() {
  if [ -L "$1" ] || { [ -e "$1" ] && [ ! -d "$1" ]; }; then
    echo other
    return 0
  elif [ ! -e "$1" ]; then
    echo missing
    return 0
  fi
  echo directory
  (
    cd "$1" || exit
    find . -name __pycache__ -prune -o \( ! -user root -o ! -group root -o -perm /022 -o ! -type f ! -type d \) -print | sort | head -n 20
    echo
    find . -name __pycache__ -prune -o -type f -print0 | sort -z | xargs -0r sha256sum
  )
  if [ -n "$2" ] && ! tree_words=$(sh -c "$2" 2>&1); then printf '\n%s\n' "$tree_words"; fi
}

# tree_apply PATH ARCHIVE VALIDATE: ARCHIVE is a compressed one of tar, in base64. The new tree is made beside the old one and
# takes its place when it is whole. Where VALIDATE fails then, the old one comes back.
tree_apply() {
  if [ ! -d "$(dirname "$1")" ]; then
    echo "the directory $(dirname "$1") doesn't exist, so $1 can't be made" >&2
    return 1
  fi
  tree_beside=$(umask 077 && mktemp -d "$(dirname "$1")/.new-XXXXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$tree_beside'" EXIT HUP INT TERM
  mkdir "$tree_beside/new"
  printf '%s' "$2" | base64 -d | tar -xzf - -C "$tree_beside/new" --no-same-owner
  chown -R root:root "$tree_beside/new"
  chmod -R u=rwX,go=rX "$tree_beside/new"
  sync -f "$tree_beside/new"
  # A name can't be exchanged for another in one step here.
  if [ -e "$1" ] || [ -L "$1" ]; then mv -T "$1" "$tree_beside/old"; fi
  mv -T "$tree_beside/new" "$1"
  if [ -z "$3" ] || tree_words=$(sh -c "$3" 2>&1); then return 0; fi
  mv -T "$1" "$tree_beside/new"
  if [ -e "$tree_beside/old" ] || [ -L "$tree_beside/old" ]; then mv -T "$tree_beside/old" "$1"; fi
  printf '%s was not changed, because it was refused: %s\n' "$1" "$tree_words" >&2
  return 1
}

# tree_remove PATH
tree_remove() {
  if [ -d "$1" ] && [ ! -L "$1" ]; then rm -rf "$1"; else rm -f "$1"; fi
}
