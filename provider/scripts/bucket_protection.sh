# shellcheck shell=sh
# A bucket's own settings, asked from the machine that copies to it.

# bucket_protection_read PROGRAMS SETTINGS: what `bucket_copy.py describe` prints. A look must not hang as long as a copy
# may wait; and it leaves nothing in the Python environment.
bucket_protection_read() {
  timeout 45 "$1/venv/bin/python" -B "$1/bin/bucket_copy.py" describe "$2"
}
