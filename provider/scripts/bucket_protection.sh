# shellcheck shell=sh
# A bucket's own settings, asked from the machine that copies to it.

# bucket_protection_read DIRECTORY PROGRAMS SETTINGS: what `bucket describe` prints, in the Python environment that is in
# DIRECTORY. A look must not hang as long as a copy may wait; and it leaves nothing in the environment.
bucket_protection_read() {
  # A deployment from before the programs were one package has a file of its own for each.
  if [ -z "$2" ]; then
    timeout 45 "$1/venv/bin/python" -B "$1/bin/bucket_copy.py" describe "$3"
  else
    timeout 45 "$1/venv/bin/python" -I -B "$2" bucket describe "$3"
  fi
}
