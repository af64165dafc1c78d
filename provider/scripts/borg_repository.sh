# shellcheck shell=sh
# A borg repository, seen from the machine that writes to it and from the one that stores it.

# borg_repository_stored PATH: id, append_only and additional_free_space as the repository's own configuration has them, and
# a digest of its key: whoever holds the SSH key can exchange that one, even in append-only mode.
borg_repository_stored() {
  if [ ! -f "$1/config" ]; then return 0; fi
  for borg_repository_fact in id append_only additional_free_space; do
    sed -n "s/^$borg_repository_fact = /$borg_repository_fact /p" "$1/config"
  done
  borg_repository_key=$(awk '/^key = ./ { inside = 1; print; next } inside && /^[ \t]/ { print; next } { inside = 0 }' "$1/config")
  if [ -n "$borg_repository_key" ]; then printf 'key %s\n' "$(printf '%s' "$borg_repository_key" | sha256sum | cut -d' ' -f1)"; fi
}

# borg_repository_mount PATH: where the disk is mounted that holds PATH, or would.
borg_repository_mount() {
  borg_repository_path=$1
  while [ ! -e "$borg_repository_path" ]; do borg_repository_path=$(dirname "$borg_repository_path"); done
  stat -c %m "$borg_repository_path"
}

# borg_repository_known BASE: lines `ID TYPE` with the kind of key of each repository that this machine has opened.
borg_repository_known() {
  for borg_repository_type in "$1"/.config/borg/security/*/key-type; do
    if [ -f "$borg_repository_type" ]; then
      echo "$(basename "$(dirname "$borg_repository_type")") $(cat "$borg_repository_type")"
    fi
  done
}

borg_repository_environment() {
  export BORG_BASE_DIR="$1" BORG_RSH="$2" BORG_EXIT_CODES=modern
  export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=no BORG_DISPLAY_PASSPHRASE=no
  # The repository's address is an alias of ours, so another address is a changed setting, which the operator has made.
  export BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
}

# borg_repository_borg PASSPHRASE ARGUMENT...: borg reads the passphrase from a pipe; no environment or argument holds it. A
# copy to a bucket has the repository's lock for a moment.
borg_repository_borg() {
  borg_repository_secret=$1
  shift
  printf '%s\n' "$borg_repository_secret" | (exec 3<&0 </dev/null; BORG_PASSPHRASE_FD=3 exec /usr/bin/borg --lock-wait 60 "$@")
}

# borg_repository_apply BASE RSH LOCATION ENCRYPTION PASSPHRASE FORMER KEPT: passphrases and key in base64. Initialises the
# repository where there is none, gives one that still has the FORMER passphrase the new one, puts the KEPT key back into one
# whose key was exchanged, and prints id and exported key (base64).
borg_repository_apply() {
  borg_repository_environment "$1" "$2"
  borg_repository_location=$3
  borg_repository_new=$(printf '%s' "$5" | base64 -d)
  borg_repository_former=$(printf '%s' "$6" | base64 -d)
  borg_repository_kept=$7
  borg_repository_scratch=$(umask 077 && mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$borg_repository_scratch'" EXIT HUP INT TERM
  (umask 077 && mkdir -p "$1")
  if ! borg_repository_words=$(borg_repository_borg "$borg_repository_new" init --encryption "$4" "$3" 2>&1); then
    case $borg_repository_words in
      *"already exists"*) borg_repository_adopt ;;
      *)
        borg_repository_fail "could not be initialised"
        return 1
        ;;
    esac
  fi
  if ! borg_repository_words=$(borg_repository_borg "$borg_repository_new" info --json "$3" 2>&1); then
    borg_repository_fail "could not be opened"
    return 1
  fi
  printf '%s' "$borg_repository_words" | sed -n '/"repository"/,/}/s/.*"id": "\([0-9a-f]*\)".*/\1/p' | head -n 1
  borg_repository_borg "$borg_repository_new" key export "$3" "$borg_repository_scratch/key"
  base64 -w0 <"$borg_repository_scratch/key"
}

borg_repository_adopt() {
  if borg_repository_open; then return 0; fi
  if [ -n "$borg_repository_kept" ]; then
    borg_repository_refusal=$borg_repository_words
    printf '%s' "$borg_repository_kept" | base64 -d >"$borg_repository_scratch/kept"
    # Borg itself refuses the key of another repository.
    if borg_repository_borg "$borg_repository_new" key import "$borg_repository_location" "$borg_repository_scratch/kept" >/dev/null 2>&1 &&
      borg_repository_open; then
      return 0
    fi
    borg_repository_words=$borg_repository_refusal
  fi
  borg_repository_fail "exists already and this passphrase doesn't open it; give the one it was made with in cht-backup:passphrase"
  return 1
}

# borg_repository_open: whether the new passphrase opens the repository, if need be after taking the former one's place.
borg_repository_open() {
  if borg_repository_words=$(borg_repository_borg "$borg_repository_new" info "$borg_repository_location" 2>&1); then return 0; fi
  if [ -n "$borg_repository_former" ] && borg_repository_borg "$borg_repository_former" info "$borg_repository_location" >/dev/null 2>&1; then
    { printf '%s\n' "$borg_repository_former"; } | (
      exec 3<&0 </dev/null
      # change-passphrase takes the new one from the environment only; it lives as long as this one process of root's.
      BORG_NEW_PASSPHRASE="$borg_repository_new" BORG_PASSPHRASE_FD=3 exec /usr/bin/borg --lock-wait 60 key change-passphrase "$borg_repository_location"
    ) >/dev/null
    return 0
  fi
  return 1
}

borg_repository_fail() {
  printf 'the repository %s %s: %s\n' "$borg_repository_location" "$1" "$(printf '%s' "$borg_repository_words" | tail -n 3 | tr '\n' ' ')" >&2
}

# borg_repository_settle PATH SPACE: sets the repository's own flags where it is stored, as the user who owns it; prints the
# digest of its key, and where its disk is mounted.
borg_repository_settle() {
  borg_repository_owner=$(stat -c %U "$1")
  borg_repository_scratch=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$borg_repository_scratch'" EXIT HUP INT TERM
  chown "$borg_repository_owner" "$borg_repository_scratch"
  for borg_repository_setting in "append_only 1" "additional_free_space $2"; do
    # shellcheck disable=SC2086
    runuser -u "$borg_repository_owner" -- env BORG_BASE_DIR="$borg_repository_scratch" \
      BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=no BORG_RELOCATED_REPO_ACCESS_IS_OK=yes \
      /usr/bin/borg --lock-wait 60 config "$1" $borg_repository_setting
  done
  borg_repository_stored "$1" | sed -n 's/^key //p'
  borg_repository_mount "$1"
}
