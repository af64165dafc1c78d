# shellcheck shell=sh
# Packages of Debian and Ubuntu.

# packages_read MINIMUM UNLESS BUILT CHECK NAME...: a line `NAME VERSION` for each that is installed and new enough, see
# packages_apply. With a command UNLESS: `yes` where it succeeds. With a place BUILT: first the line of packages_built.
packages_read() {
  packages_minimum=$1
  if [ -n "$2" ]; then
    if sh -c "$2" >/dev/null 2>&1; then echo yes; fi
    return 0
  fi
  packages_built "$3" "$4"
  shift 4
  packages_installed "$@" | while read -r packages_name packages_version; do
    if packages_suits "$packages_name" "$packages_version"; then echo "$packages_name $packages_version"; fi
  done
}

# packages_built BUILT CHECK: `built DIGEST REQUIREMENTS` (base64) of what packages_build has made there; `built broken` where
# it doesn't work, as after an upgrade of the system's Python; nothing where there is none.
packages_built() {
  if [ -z "$1" ] || [ ! -e "$1" ]; then return 0; fi
  if [ -f "$1/requirements.txt" ] && (cd / && "$1/bin/python3" -I -B -c "$2" >/dev/null 2>&1); then
    echo "built $(python_environment_digest "$1") $(base64 -w0 <"$1/requirements.txt")"
  else
    echo "built broken"
  fi
}

# packages_installed NAME...: a line `NAME VERSION` for each that is installed.
packages_installed() {
  dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' || true
}

# packages_apply MINIMUM UNLESS NAME...: MINIMUM holds `NAME=VERSION` for each that mustn't be older. Where the command
# UNLESS succeeds there is nothing to do, and where it is given, NAME may be `ONE|OTHER`: the first that there is. What the
# distribution has only in its backports is taken from there, where the machine's own sources name them.
packages_apply() {
  packages_minimum=$1 packages_unless=$2
  shift 2
  if [ -n "$packages_unless" ] && sh -c "$packages_unless" >/dev/null 2>&1; then return 0; fi
  packages_lock
  # The lists may be missing or old, but a machine without a network that has everything already needs none.
  if packages_there "$@"; then return 0; fi
  packages_update
  for packages_choice in "$@"; do
    shift
    if ! packages_name=$(packages_first "$packages_choice"); then
      echo "$(packages_system) has no package $packages_choice" >&2
      return 1
    fi
    packages_source=$(packages_source "$packages_name")
    if [ -z "$packages_source" ]; then
      echo "$(packages_system) offers $packages_name $(packages_offered "$packages_name"), but $(packages_wanted "$packages_name") or newer is needed" >&2
      return 1
    fi
    set -- "$@" "$packages_source"
  done
  packages_install "$@"
  if [ -n "$packages_unless" ] && ! sh -c "$packages_unless" >/dev/null 2>&1; then
    echo "with $* of $(packages_system) \`$packages_unless\` still fails" >&2
    return 1
  fi
}

# packages_apply_or_build MINIMUM NAME DIGEST BUILT REQUIREMENTS BUILD CHECK TOOL...: one package, as packages_apply; where
# the distribution has none that is new enough, it is built from PyPI's source in the Python environment BUILT, with the
# Debian packages TOOL. REQUIREMENTS and BUILD (what builds them) are requirements files in base64, CHECK is a Python
# program that fails where it doesn't work. One that was built with these requirements, and has this DIGEST still, stays.
packages_apply_or_build() {
  packages_minimum=$1 packages_name=$2 packages_known=$3 packages_place=$4 packages_check=$7
  packages_lock
  if [ -n "$packages_known" ] && [ "$(packages_built "$packages_place" "$packages_check")" = "built $packages_known $5" ]; then
    return 0
  fi
  if ! packages_there "$packages_name"; then
    packages_update
    packages_source=$(packages_source "$packages_name")
    if [ -z "$packages_source" ]; then
      shift 3
      packages_build "$@"
      return 0
    fi
    packages_install "$packages_source"
  fi
  # Programs take what was built first; now the distribution's is better.
  packages_remove_built "$packages_place"
}

# packages_build BUILT REQUIREMENTS BUILD CHECK TOOL...: builds beside, and replaces what was there when all is well.
# Compilers that weren't there before go again.
packages_build() {
  packages_place=$1 packages_check=$4
  mkdir -p "$(dirname "$packages_place")"
  packages_work=$(mktemp -d "$(dirname "$packages_place")/.built-XXXXXXXX")
  packages_added=
  trap 'packages_tidy || true' EXIT
  trap 'exit 1' HUP INT TERM
  chmod 0755 "$packages_work"
  printf '%s' "$2" | base64 -d >"$packages_work/requirements.txt"
  printf '%s' "$3" | base64 -d >"$packages_work/build.txt"
  shift 4
  # It stays: without it there is no Python environment.
  if ! packages_there python3-venv; then packages_install python3-venv; fi
  packages_added=$(packages_new "$@")
  packages_install "$@"
  packages_quietly /usr/bin/python3 -m venv "$packages_work/tools"
  packages_pip tools download --require-hashes --only-binary :all: --no-cache-dir \
    --requirement "$packages_work/build.txt" --dest "$packages_work/fetched"
  packages_quietly python_environment_install "$packages_work/tools" --no-deps "$packages_work"/fetched/*.whl
  # Without isolation, what builds is what is locked, not what is newest today.
  packages_pip tools wheel --require-hashes --no-deps --no-build-isolation --no-cache-dir \
    --requirement "$packages_work/requirements.txt" --wheel-dir "$packages_work/wheels"
  packages_quietly /usr/bin/python3 -m venv "$packages_work/new"
  packages_quietly python_environment_install "$packages_work/new" --no-deps "$packages_work"/wheels/*.whl
  # It is moved, and its commands name their interpreter.
  find "$packages_work/new/bin" -type f -exec sed -i "1s|^#!$packages_work/new/|#!$packages_place/|" {} +
  packages_quietly "$packages_work/new/bin/python3" -I -B -c "$packages_check"
  mv "$packages_work/requirements.txt" "$packages_work/new/requirements.txt"
  if [ -e "$packages_place" ]; then mv "$packages_place" "$packages_work/old"; fi
  mv "$packages_work/new" "$packages_place"
  packages_tidy
}

# packages_tidy: after a build, whatever became of it.
packages_tidy() {
  trap - EXIT HUP INT TERM
  rm -rf "$packages_work"
  packages_needed=$(packages_linked "$packages_place")
  packages_gone=
  for packages_name in $packages_added; do
    case " $packages_needed " in *" $packages_name "*) ;; *) packages_gone="$packages_gone $packages_name" ;; esac
  done
  if [ -z "$packages_gone" ]; then return 0; fi
  # shellcheck disable=SC2086
  packages_gone=$(packages_installed $packages_gone | cut -d' ' -f1 | tr '\n' ' ')
  if [ -z "$packages_gone" ]; then return 0; fi
  # Not where something else has come to need one of them meanwhile.
  # shellcheck disable=SC2086
  for packages_name in $(apt-get -s remove $packages_gone | sed -n 's/^Remv \([^ :]*\).*/\1/p'); do
    case " $packages_gone " in *" $packages_name "*) ;; *) return 0 ;; esac
  done
  # shellcheck disable=SC2086
  packages_apt remove -y $packages_gone
}

# packages_new NAME...: what an installation of these would bring to the machine.
packages_new() {
  apt-get -s --no-install-recommends install "$@" | sed -n '/^Inst [^ ]* \[/d; s/^Inst \([^ :]*\).*/\1/p' | tr '\n' ' '
}

# packages_linked DIRECTORY: the packages whose libraries the programs there are linked with.
packages_linked() {
  find "$1" -name '*.so' -exec ldd {} + 2>/dev/null | sed -n 's/^\t\([^ ]*\) => .*/\1/p' | sort -u | while read -r packages_library; do
    dpkg-query -S "*/$packages_library" 2>/dev/null | sed 's/: .*//; s/:[^,]*//g; s/,//g'
  done | tr '\n' ' '
}

# packages_remove_built BUILT: with the directory that it is in, where nothing else is. That one is removed elsewhere, and too
# early.
packages_remove_built() {
  if [ -f "$1/pyvenv.cfg" ]; then
    rm -rf "$1"
    rmdir "$(dirname "$1")" 2>/dev/null || true
  fi
}

# packages_pip ENVIRONMENT ARGUMENT...
packages_pip() {
  packages_environment=$packages_work/$1
  shift
  packages_quietly "$packages_environment/bin/python3" -I -m pip --quiet --disable-pip-version-check --no-input "$@"
}

# packages_lock: resources of one stack ask at the same time, and apt doesn't wait for the lock of its lists.
packages_lock() {
  if ! command -v apt-get >/dev/null; then
    echo "this machine has no apt-get; only Debian and Ubuntu are supported" >&2
    return 1
  fi
  exec 9>/run/host-packages.lock
  flock -w 900 9
}

# packages_there NAME...: whether all are installed and new enough.
packages_there() {
  for packages_name in "$@"; do
    packages_suits "$packages_name" "$(packages_installed "$packages_name" | cut -d' ' -f2)" || return 1
  done
}

packages_update() {
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
}

# packages_install NAME...
packages_install() {
  packages_apt --no-install-recommends install -y "$@"
}

packages_apt() {
  DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l packages_quietly \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o DPkg::Options::=--force-confold "$@"
}

# packages_source NAME: how apt-get is told to install a version that is new enough: `NAME`, or `NAME=VERSION` from the
# backports; nothing where there is none.
packages_source() {
  if packages_suits "$1" "$(packages_offered "$1")"; then
    echo "$1"
    return 0
  fi
  apt-cache madison "$1" | while IFS=' |' read -r _ packages_version _ packages_suite _; do
    case $packages_suite in *-backports/*) ;; *) continue ;; esac
    if packages_suits "$1" "$packages_version"; then
      echo "$1=$packages_version"
      break
    fi
  done
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
