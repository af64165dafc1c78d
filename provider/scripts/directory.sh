# shellcheck shell=sh
# A directory.

# directory_read PATH: kind, mode, owner and group.
directory_read() {
  if [ -L "$1" ]; then
    echo 'link - - -'
  elif [ -d "$1" ]; then
    stat -c 'directory %04a %U %G' "$1"
  elif [ -e "$1" ]; then
    echo 'other - - -'
  else
    echo 'missing - - -'
  fi
}

# directory_read_contents PATH: the same, and whether all that is in it has the directory's owner and group. They are
# compared as numbers: a disk from another machine has those of accounts that may be called otherwise here.
directory_read_contents() {
  directory_found=$(directory_read "$1")
  directory_contents=same
  case $directory_found in
    directory*)
      # What comes and goes meanwhile is its owner's.
      directory_other=$(find "$1" -xdev \( ! -uid "$(stat -c %u "$1")" -o ! -gid "$(stat -c %g "$1")" \) -print -quit 2>/dev/null) || true
      if [ -n "$directory_other" ]; then directory_contents=other; fi
      ;;
  esac
  echo "$directory_found $directory_contents"
}

# directory_apply PATH MODE OWNER GROUP
directory_apply() {
  if [ -L "$1" ]; then
    echo "$1 is a link to $(readlink "$1"); give the place it leads to instead, or mount the disk there" >&2
    return 1
  fi
  if [ -e "$1" ] && [ ! -d "$1" ]; then
    echo "$1 is there already and is not a directory; move it away" >&2
    return 1
  fi
  if [ ! -d "$1" ]; then
    mkdir -p "$(dirname "$1")"
    (umask 077 && mkdir "$1")
  fi
  chown "$3:$4" "$1"
  chmod "$2" "$1"
}

# directory_apply_contents PATH MODE OWNER GROUP: and gives what is in it to the same.
directory_apply_contents() {
  directory_apply "$@"
  find "$1" -xdev \( ! -user "$3" -o ! -group "$4" \) -execdir chown -h "$3:$4" {} +
}

# directory_remove PATH: only when nothing is in it, since what is in it may be anybody's.
directory_remove() {
  rmdir "$1" 2>/dev/null || true
}
