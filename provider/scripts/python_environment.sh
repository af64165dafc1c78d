# shellcheck shell=sh
# A virtual environment with locked packages. Its requirements file is written last: without it, it isn't complete.

# python_environment_digest PATH: one digest over all files and links. The interpreter's caches count too: they are made
# with the environment, and what is in them runs.
python_environment_digest() {
  (
    cd "$1" || exit
    {
      find . -type f -print0 | sort -z | xargs -0 sha256sum
      find . -type l -printf '%p %l\n' | sort
    } | sha256sum | cut -d' ' -f1
  )
}

# python_environment_read PATH: the digest; then the requirements in base64. Nothing where it isn't complete,
# or where the interpreter no longer finds its packages: after an upgrade of the system's Python it looks elsewhere.
python_environment_read() {
  if [ -f "$1/requirements.txt" ] && "$1/bin/python3" -I -B -c 'import pip' 2>/dev/null; then
    python_environment_digest "$1"
    base64 -w0 <"$1/requirements.txt"
  fi
}

# python_environment_apply PATH REQUIREMENTS: REQUIREMENTS is base64. Everything is fetched before the old environment
# goes: without a network it stays as it is.
python_environment_apply() {
  mkdir -p "$(dirname "$1")"
  python_environment_fetched=$(mktemp -d "$(dirname "$1")/.fetched-XXXXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$python_environment_fetched'" EXIT HUP INT TERM
  printf '%s' "$2" | base64 -d >"$python_environment_fetched/requirements.txt"
  python_environment_step python3 -m venv "$python_environment_fetched/venv"
  python_environment_pip "$python_environment_fetched/venv" download --quiet --no-cache-dir --only-binary :all: \
    --require-hashes --requirement "$python_environment_fetched/requirements.txt" --dest "$python_environment_fetched/wheels"
  rm -rf "$1"
  python_environment_step python3 -m venv "$1"
  python_environment_pip "$1" install --quiet --no-index --find-links "$python_environment_fetched/wheels" \
    --require-hashes --requirement "$python_environment_fetched/requirements.txt"
  mv "$python_environment_fetched/requirements.txt" "$1/requirements.txt"
  python_environment_digest "$1"
}

# python_environment_remove PATH
python_environment_remove() {
  if [ -f "$1/pyvenv.cfg" ]; then rm -rf "$1"; fi
}

# python_environment_pip ENVIRONMENT ARGUMENT...
python_environment_pip() {
  python_environment_in=$1
  shift
  python_environment_step "$python_environment_in/bin/python3" -I -m pip --disable-pip-version-check --no-input "$@"
}

python_environment_step() {
  if ! python_environment_words=$("$@" 2>&1 </dev/null); then
    printf 'the Python environment could not be made: %s\n' "$(printf '%s' "$python_environment_words" | tail -n 5 | tr '\n' ' ')" >&2
    return 1
  fi
}
