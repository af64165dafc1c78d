# shellcheck shell=sh
# A virtual environment with locked packages. Its requirements file is written last: without it, it isn't complete.

# python_environment_digest PATH: one digest over all files but the interpreter's own caches.
python_environment_digest() {
  (cd "$1" && find . -type f ! -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
}

# python_environment_read PATH: the digest; then the requirements in base64. Nothing where it isn't complete.
python_environment_read() {
  if [ -f "$1/requirements.txt" ] && [ -x "$1/bin/python3" ] && "$1/bin/python3" -I -c '' 2>/dev/null; then
    python_environment_digest "$1"
    base64 -w0 <"$1/requirements.txt"
  fi
}

# python_environment_apply PATH REQUIREMENTS: REQUIREMENTS is base64.
python_environment_apply() {
  rm -rf "$1"
  mkdir -p "$(dirname "$1")"
  python_environment_step python3 -m venv "$1"
  printf '%s' "$2" | base64 -d >"$1/.requirements"
  python_environment_step "$1/bin/python3" -I -m pip install --quiet --disable-pip-version-check --no-input \
    --no-cache-dir --no-compile --require-hashes --requirement "$1/.requirements"
  mv "$1/.requirements" "$1/requirements.txt"
  python_environment_digest "$1"
}

# python_environment_remove PATH
python_environment_remove() {
  if [ -f "$1/pyvenv.cfg" ]; then rm -rf "$1"; fi
}

python_environment_step() {
  if ! python_environment_words=$("$@" 2>&1 </dev/null); then
    printf 'the Python environment could not be made: %s\n' "$(printf '%s' "$python_environment_words" | tail -n 5 | tr '\n' ' ')" >&2
    return 1
  fi
}
