# shellcheck shell=sh
# What a deployment has so far, on the machines where it would be continued. All but the last function only look.

# backups_so_far_account NAME: the home of the account that receives backups; nothing where there is none. It outlives the
# stack, and says in which directory the deployment's repository was last.
backups_so_far_account() {
  getent passwd "$1" | cut -d: -f6 || true
}

# backups_so_far_file PATH: a file in base64; nothing where there is none.
backups_so_far_file() {
  if [ -f "$1" ]; then head -c 65536 "$1" | base64 -w0; fi
}

# backups_so_far_repository PATH: nothing where nothing was ever stored. Else lines: `there`; `config` and borg's own
# configuration in base64; `owner` and its owner, or that of the data where it is missing; `type` and the number of the kind of
# its key, with which borg begins all that it stores (`class KeyType` in borg 1.x's `crypto/key.py`); `newest` and the number
# of the newest segment; `locked`.
backups_so_far_repository() {
  if [ ! -d "$1/data" ] || [ -z "$(find "$1/data" -mindepth 2 -maxdepth 2 -type f -print -quit)" ]; then return 0; fi
  echo there
  if [ -f "$1/config" ] && [ ! -L "$1/config" ]; then
    printf 'config %s\n' "$(head -c 65536 "$1/config" | base64 -w0)"
    echo "owner $(stat -c %U "$1/config")"
  else
    # One that has lost its configuration still belongs to somebody.
    echo "owner $(stat -c %U "$1/data")"
  fi
  if [ -e "$1/lock.exclusive" ]; then echo locked; fi
  backups_so_far_numbers=$(find "$1/data" -mindepth 2 -maxdepth 2 -type f -printf '%f\n' | grep -x '[0-9]*' | sort -n)
  echo "newest $(printf '%s' "$backups_so_far_numbers" | tail -n 1)"
  for backups_so_far_number in $(printf '%s' "$backups_so_far_numbers" | head -n 100); do
    for backups_so_far_segment in "$1"/data/*/"$backups_so_far_number"; do
      # After BORG_SEG: crc and size, the tag (0 is PUT), an id, and what is stored.
      case $(od -An -v -tu1 -j16 -N1 "$backups_so_far_segment") in
        *' 0')
          echo "type $(od -An -v -tu1 -j49 -N1 "$backups_so_far_segment" | tr -d ' ')"
          return 0
          ;;
      esac
    done
  done
}

# backups_so_far_client BASE SETTINGS: lines `knows ID` of each repository that the machine has opened from BASE, and
# `deployment NAME SETTINGS` of each deployment whose settings, in base64, are beside those in SETTINGS.
backups_so_far_client() {
  for backups_so_far_known in "$1"/.config/borg/security/*; do
    if [ -d "$backups_so_far_known" ]; then echo "knows $(basename "$backups_so_far_known")"; fi
  done
  for backups_so_far_settings in "$(dirname "$2")"/*/settings.json; do
    if [ -f "$backups_so_far_settings" ] && [ "$(dirname "$backups_so_far_settings")" != "$2" ]; then
      backups_so_far_name=$(basename "$(dirname "$backups_so_far_settings")")
      echo "deployment $backups_so_far_name $(head -c 65536 "$backups_so_far_settings" | base64 -w0)"
    fi
  done
}

# backups_so_far_adopt NOTE TEXT: notes for the audit what was taken over from somebody else's hands.
backups_so_far_adopt() {
  mkdir -p "$(dirname "$1")"
  (umask 077 && printf '%s\n' "$2" >"$1.new")
  mv "$1.new" "$1"
}
