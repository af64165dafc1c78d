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

# python_environment_apply PATH REQUIREMENTS: REQUIREMENTS is base64. The new environment is made beside the old one and
# takes its place when it is whole: whatever fails before, the old one stays in use.
python_environment_apply() {
  mkdir -p "$(dirname "$1")"
  python_environment_beside=$(mktemp -d "$(dirname "$1")/.fetched-XXXXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$python_environment_beside'" EXIT HUP INT TERM
  python_environment_new=$python_environment_beside/venv
  printf '%s' "$2" | base64 -d >"$python_environment_beside/requirements.txt"
  python_environment_step python3 -m venv "$python_environment_new"
  # From wherever this machine is set up to take packages: closed networks have a mirror of their own.
  python_environment_step "$python_environment_new/bin/python3" -I -m pip --disable-pip-version-check --no-input \
    download --quiet --no-cache-dir --only-binary :all: \
    --require-hashes --requirement "$python_environment_beside/requirements.txt" --dest "$python_environment_beside/wheels"
  python_environment_step python_environment_install "$python_environment_new" --no-compile \
    --find-links "$python_environment_beside/wheels" --require-hashes --requirement "$python_environment_beside/requirements.txt"
  python_environment_settle "$python_environment_new" "$1"
  mv "$python_environment_beside/requirements.txt" "$python_environment_new/requirements.txt"
  # A program that runs from the old one finds either all along; a name can't be exchanged for another in one step here.
  if [ -e "$1" ] || [ -L "$1" ]; then mv -T "$1" "$python_environment_beside/old"; fi
  mv -T "$python_environment_new" "$1"
  python_environment_digest "$1"
}

# python_environment_install ENVIRONMENT ARGUMENT...: from what was fetched, so that no setting of pip's matters (`user = true`,
# `target`).
python_environment_install() {
  python_environment_in=$1
  shift
  env PIP_CONFIG_FILE=/dev/null "$python_environment_in/bin/python3" -I -m pip --isolated --disable-pip-version-check \
    --no-input install --quiet --no-index "$@"
}

# python_environment_settle MADE PATH: what was made in one place says that it is in another. Compiled modules name their
# sources, so they are compiled only now; a module that this Python can't compile isn't for it.
python_environment_settle() {
  grep -rlIF "$1" "$1/bin" "$1/pyvenv.cfg" | while IFS= read -r python_environment_file; do
    # A link leads to the system's Python.
    if [ ! -L "$python_environment_file" ]; then sed -i "s|$1|$2|g" "$python_environment_file"; fi
  done
  "$1/bin/python3" -I -m compileall -q -s "$1" -p "$2" "$1/lib" >/dev/null 2>&1 || true
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
