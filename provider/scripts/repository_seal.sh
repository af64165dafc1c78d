# shellcheck shell=sh
# The seals of a repository, by the program on its machine that makes them.

# repository_seal_read PROGRAMS SETTINGS: what `seal look` prints; `missing` where it isn't there.
repository_seal_read() {
  if [ ! -e "$1" ] || [ ! -f "$2" ]; then
    echo missing
    return 0
  fi
  # A deployment from before the programs were one package has a file of its own for each.
  case $1 in
    *.py) timeout 45 /usr/bin/python3 -B "$1" look "$2" ;;
    *) timeout 45 /usr/bin/python3 -I -B "$1" seal look "$2" ;;
  esac
}

# repository_seal_survey PATH: the type of the file system that holds PATH, or would.
repository_seal_survey() {
  repository_seal_path=$1
  while [ ! -e "$repository_seal_path" ]; do repository_seal_path=$(dirname "$repository_seal_path"); done
  stat -f -c %T "$repository_seal_path"
}

# repository_seal_apply PROGRAMS SETTINGS
repository_seal_apply() {
  /usr/bin/python3 -I -B "$1" seal adopt "$2"
}
