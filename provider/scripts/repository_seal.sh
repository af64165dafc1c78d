# shellcheck shell=sh
# The seals of a repository, by the program on its machine that makes them.

# repository_seal_read PROGRAM SETTINGS: what `seal.py look` prints; `missing` where it isn't there.
repository_seal_read() {
  if [ ! -f "$1" ] || [ ! -f "$2" ]; then
    echo missing
    return 0
  fi
  timeout 45 /usr/bin/python3 -B "$1" look "$2"
}

# repository_seal_survey PATH: the type of the file system that holds PATH, or would.
repository_seal_survey() {
  repository_seal_path=$1
  while [ ! -e "$repository_seal_path" ]; do repository_seal_path=$(dirname "$repository_seal_path"); done
  stat -f -c %T "$repository_seal_path"
}

# repository_seal_apply PROGRAM SETTINGS
repository_seal_apply() {
  /usr/bin/python3 -B "$1" adopt "$2"
}
