# shellcheck shell=sh
# Packages of Debian and Ubuntu.

# packages_read MINIMUM UNLESS NAME...: a line `NAME VERSION` for each that is installed and new enough, see
# packages_apply. With a command UNLESS: `yes` where it succeeds.
packages_read() {
  packages_minimum=$1
  if [ -n "$2" ]; then
    if sh -c "$2" >/dev/null 2>&1; then echo yes; fi
    return 0
  fi
  shift 2
  packages_installed "$@" | while read -r packages_name packages_version; do
    if packages_suits "$packages_name" "$packages_version"; then echo "$packages_name $packages_version"; fi
  done
}

# packages_installed NAME...: a line `NAME VERSION` for each that is installed.
packages_installed() {
  dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' || true
}

# packages_apply MINIMUM UNLESS NAME...: MINIMUM holds `NAME=VERSION` for each that mustn't be older. Where the command
# UNLESS succeeds there is nothing to do, and where it is given, NAME may be `ONE|OTHER`: the first that there is.
packages_apply() {
  packages_minimum=$1 packages_unless=$2
  shift 2
  if [ -n "$packages_unless" ] && sh -c "$packages_unless" >/dev/null 2>&1; then return 0; fi
  if ! command -v apt-get >/dev/null; then
    echo "this machine has no apt-get; only Debian and Ubuntu are supported" >&2
    return 1
  fi
  # Resources of one stack ask at the same time, and apt doesn't wait for the lock of its lists.
  exec 9>/run/host-packages.lock
  flock -w 900 9
  # The lists may be missing or old, but a machine without a network that has everything already needs none.
  for packages_name in "$@"; do
    if ! packages_suits "$packages_name" "$(packages_installed "$packages_name" | cut -d' ' -f2)"; then
      packages_update=yes
    fi
  done
  if [ -z "${packages_update:-}" ]; then return 0; fi
  packages_tries=60
  until packages_quietly apt-get -qq update 2>/dev/null; do
    packages_tries=$((packages_tries - 1))
    case $packages_words in *"Could not get lock"*) ;; *) packages_tries=0 ;; esac
    if [ "$packages_tries" = 0 ]; then
      packages_failed "apt-get update"
      return 1
    fi
    sleep 5
  done
  for packages_choice in "$@"; do
    shift
    if ! packages_name=$(packages_first "$packages_choice"); then
      echo "$(packages_system) has no package $packages_choice" >&2
      return 1
    fi
    set -- "$@" "$packages_name"
    packages_offer=$(packages_offered "$packages_name")
    if ! packages_suits "$packages_name" "$packages_offer"; then
      echo "$(packages_system) offers $packages_name $packages_offer, but $(packages_wanted "$packages_name") or newer is needed" >&2
      return 1
    fi
  done
  DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l packages_quietly \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o DPkg::Options::=--force-confold --no-install-recommends install -y "$@"
}

# packages_first ONE|OTHER: the first that the distribution has.
packages_first() {
  for packages_one in $(printf '%s' "$1" | tr '|' ' '); do
    if [ -n "$(packages_offered "$packages_one")" ]; then
      echo "$packages_one"
      return 0
    fi
  done
  return 1
}

# packages_offered NAME: the version that would be installed; nothing where there is none.
packages_offered() {
  apt-cache policy "$1" | sed -n 's/^  Candidate: \([^(].*\)/\1/p'
}

packages_wanted() {
  printf '%s\n' "$packages_minimum" | tr ' ' '\n' | sed -n "s/^$1=//p"
}

# packages_suits NAME VERSION
packages_suits() {
  if [ -z "$2" ]; then return 1; fi
  packages_least=$(packages_wanted "$1")
  [ -z "$packages_least" ] || dpkg --compare-versions "$2" ge "$packages_least"
}

packages_system() {
  # shellcheck source=/dev/null
  (. /etc/os-release && echo "$PRETTY_NAME")
}

# packages_quietly COMMAND...: its words only when it fails. The lock isn't passed on: a daemon that a package starts would keep it.
packages_quietly() {
  if ! packages_words=$("$@" 2>&1 </dev/null 9>&-); then
    packages_failed "$1"
    return 1
  fi
}

packages_failed() {
  printf '%s failed: %s\n' "$1" "$(printf '%s' "$packages_words" | tail -n 5 | tr '\n' ' ')" >&2
}
