# shellcheck shell=sh
# A borg repository, seen from the machine that writes to it and from the one that stores it.

# borg_repository_stored PATH: the repository's own configuration in base64, after the word `config`: its id, its flags, its
# key. Nothing where there is no repository; nothing after the word where the configuration is lost. Then, after the word
# `counter`, how far its clients have counted in their encryption. What a hostile account put there isn't followed, nor read
# without end.
borg_repository_stored() {
  # Where nothing was ever stored, its beginning broke off; the next `init` begins anew (guard.py makes room).
  borg_repository_held=$(find "$1/data" "$1" -maxdepth 2 \( -path '*/data/*' -o -name 'index.*' -o -name config -uid 0 \) -type f -print -quit 2>/dev/null) || true
  if [ -z "$borg_repository_held" ]; then return 0; fi
  if [ -f "$1/config" ] && [ ! -L "$1/config" ]; then
    printf 'config %s\n' "$(head -c 65536 "$1/config" | base64 -w0)"
  elif [ -d "$1/data" ]; then
    echo 'config '
  fi
  if [ -f "$1/nonce" ] && [ ! -L "$1/nonce" ]; then
    printf 'counter %s\n' "$(head -c 16 "$1/nonce" | tr -dc 0-9a-f)"
  fi
}

# borg_repository_mount PATH: where the disk is mounted that holds PATH, or would.
borg_repository_mount() {
  borg_repository_path=$1
  while [ ! -e "$borg_repository_path" ]; do borg_repository_path=$(dirname "$borg_repository_path"); done
  stat -c %m "$borg_repository_path"
}

# borg_repository_known BASE: lines `ID TYPE COUNTER` of each repository that this machine has opened: the kind of its key,
# and how far this machine has counted in its encryption (`-`: not at all).
borg_repository_known() {
  for borg_repository_type in "$1"/.config/borg/security/*/key-type; do
    if [ -f "$borg_repository_type" ]; then
      borg_repository_security=$(dirname "$borg_repository_type")
      borg_repository_counter=$(cat "$borg_repository_security/nonce" 2>/dev/null || echo -)
      echo "$(basename "$borg_repository_security") $(cat "$borg_repository_type") $borg_repository_counter"
    fi
  done
}

borg_repository_environment() {
  export BORG_BASE_DIR="$1" BORG_RSH="$2" BORG_EXIT_CODES=modern
  export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=no BORG_DISPLAY_PASSPHRASE=no
  # The repository's address is an alias of ours, so another address is a changed setting, which the operator has made.
  export BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
}

# borg_repository_program BUILT: borg as it was built for this machine, where it was; else the distribution's.
borg_repository_program() {
  borg_repository_executable=/usr/bin/borg
  if [ -n "$1" ] && [ -x "$1" ]; then borg_repository_executable=$1; fi
}

# borg_repository_borg PASSPHRASE ARGUMENT...: borg reads the passphrase from a pipe; no environment or argument holds it. A
# copy to a bucket has the repository's lock for a moment.
borg_repository_borg() {
  borg_repository_secret=$1
  shift
  printf '%s\n' "$borg_repository_secret" | (exec 3<&0 </dev/null; BORG_PASSPHRASE_FD=3 exec "$borg_repository_executable" --lock-wait 60 "$@")
}

# borg_repository_apply BASE RSH LOCATION ENCRYPTION PASSPHRASE ID BUILT: the passphrase in base64; ID is that of the repository
# that there is, empty where there is none and one has to be initialised. Prints id and exported key (base64), which the
# operator's side believes only where it can prove them.
borg_repository_apply() {
  borg_repository_environment "$1" "$2"
  borg_repository_program "$7"
  borg_repository_location=$3
  borg_repository_passphrase=$(printf '%s' "$5" | base64 -d)
  borg_repository_scratch=$(umask 077 && mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$borg_repository_scratch'" EXIT HUP INT TERM
  (umask 077 && mkdir -p "$1")
  if [ -n "$6" ]; then
    borg_repository_count "$1" "$6"
  elif ! borg_repository_words=$(borg_repository_borg "$borg_repository_passphrase" init --encryption "$4" "$3" 2>&1); then
    borg_repository_fail "could not be initialised"
    return 1
  fi
  if ! borg_repository_words=$(borg_repository_borg "$borg_repository_passphrase" info --json "$3" 2>&1); then
    borg_repository_fail "could not be opened"
    return 1
  fi
  printf '%s' "$borg_repository_words" | sed -n '/"repository"/,/}/s/.*"id": "\([0-9a-f]*\)".*/\1/p' | head -n 1
  borg_repository_borg "$borg_repository_passphrase" key export "$3" "$borg_repository_scratch/key"
  base64 -w0 <"$borg_repository_scratch/key"
}

# borg_repository_count BASE ID: where this machine has never written to the repository, it begins to count from the time.
# No two blocks may be encrypted with one number (AES-CTR), and the server, where borg asks for the last one, may be lying:
# it could have hidden archives that a machine before this one made. In 2^31 numbers a second, 32 GiB a second could have
# been stored, so all that were ever used are below. The form is borg 1.x's (`crypto/nonces.py`).
borg_repository_count() {
  borg_repository_security=$1/.config/borg/security/$2
  if [ -e "$borg_repository_security/nonce" ]; then return 0; fi
  (
    umask 077
    mkdir -p "$borg_repository_security"
    printf '%016x' "$(($(date +%s) * 2147483648))" >"$borg_repository_security/nonce.new"
    sync "$borg_repository_security/nonce.new"
    # Never over a counter that has appeared meanwhile.
    ln "$borg_repository_security/nonce.new" "$borg_repository_security/nonce" || [ -e "$borg_repository_security/nonce" ]
    rm "$borg_repository_security/nonce.new"
  )
}

borg_repository_fail() {
  # borg 1.4 often ends before it has read ssh's words.
  case $borg_repository_location,$borg_repository_words in
    ssh://*,*"Connection closed by remote host"*)
      borg_repository_host=${borg_repository_location#ssh://}
      borg_repository_status=0
      # shellcheck disable=SC2086
      borg_repository_ssh=$($BORG_RSH -T "${borg_repository_host%%/*}" 2>&1 >/dev/null </dev/null) || borg_repository_status=$?
      if [ "$borg_repository_status" = 255 ]; then borg_repository_words=$borg_repository_ssh; fi
      ;;
  esac
  printf 'the repository %s %s: %s\n' "$borg_repository_location" "$1" "$(printf '%s' "$borg_repository_words" | tail -n 3 | tr '\n' ' ')" >&2
}

# borg_repository_configure PATH ID SPACE KEY PROGRAM: key and program in base64. The program, borg_repository_config.py,
# gives the repository that key and its flags; prints its configuration and where its disk is mounted.
borg_repository_configure() {
  printf '%s' "$4" | base64 -d | python3 -I -c "$(printf '%s' "$5" | base64 -d)" "$1" "$2" "$3"
  borg_repository_stored "$1"
  borg_repository_mount "$1"
}
