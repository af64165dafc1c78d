# shellcheck shell=sh
# What a machine is like, before anything is put on it. Nothing is changed, and nothing is waited for longer than a minute.

# survey KNOWN PROJECT PACKAGES ENVIRONMENT PATH...: lines `WORD VALUE`. KNOWN are paths that are there where everything
# has been put in place before; elsewhere the line `fresh yes` is among them, and what matters only before that is asked,
# too. PROJECT is one of Docker Compose's (empty: containers aren't asked for), ENVIRONMENT is a file with lines
# `NAME=VALUE`, of which those that name a project are told. Words of KNOWN and PACKAGES have blanks between them.
survey() {
  survey_fresh=no
  for survey_path in $1; do
    if [ ! -e "$survey_path" ]; then survey_fresh=yes; fi
  done
  if [ "$survey_fresh" = yes ]; then echo "fresh yes"; fi
  echo "time $(date +%s)"
  # shellcheck source=/dev/null
  (. /etc/os-release && echo "system ${ID:-} ${VERSION_ID:-} ${PRETTY_NAME:-}") 2>/dev/null || true
  if command -v apt-get >/dev/null; then echo "apt yes"; fi
  if [ -d /run/systemd/system ]; then echo "systemd yes"; fi
  echo "kernel $(uname -r)"
  survey_docker "$2"
  if [ -f "$4" ]; then sed -n 's/^CHT_COMPOSE_PROJECT_NAME=/named /p' "$4"; fi
  if [ "$survey_fresh" = yes ]; then
    echo "python $(/usr/bin/python3 -I -c 'import sys; print("{}.{}".format(*sys.version_info))' 2>/dev/null)"
    # shellcheck disable=SC2086
    if [ -n "$3" ]; then apt-cache policy $3 2>/dev/null | sed -n 's/^/policy /p'; fi
  fi
  shift 4
  for survey_path; do survey_path "$survey_path"; done
}

# survey_docker PROJECT: where `docker` is, and what it says; the containers' projects and services. What it didn't say in
# time, as on a machine that is busy, is told by a line `unknown WORD`.
survey_docker() {
  survey_command=$(command -v docker) || return 0
  echo "docker $(readlink -f "$survey_command")"
  if [ "$survey_fresh" = yes ]; then
    survey_ask engine docker version --format '{{.Server.Version}}'
    survey_ask compose docker compose version --short
  fi
  if [ -n "$1" ]; then
    survey_ask container docker ps --all --format '{{.Label "com.docker.compose.project"}} {{.Label "com.docker.compose.service"}}'
  fi
}

# survey_ask WORD COMMAND...: the lines that the command prints, or `unknown WORD` where it takes longer than a minute.
survey_ask() {
  survey_word=$1
  shift
  survey_status=0
  survey_said=$(timeout 60 "$@" 2>/dev/null) || survey_status=$?
  if [ "$survey_status" -eq 124 ]; then
    echo "unknown $survey_word"
  elif [ -n "$survey_said" ]; then
    printf '%s\n' "$survey_said" | sed "s/^/$survey_word /"
  fi
}

# survey_path PATH: its kind, the free MiB of the disk that holds it or would, and that it is there with what in it.
survey_path() {
  survey_kind=missing
  if [ -d "$1" ]; then survey_kind=directory; elif [ -e "$1" ]; then survey_kind=other; fi
  survey_there=$1
  while [ ! -e "$survey_there" ]; do survey_there=$(dirname "$survey_there"); done
  echo "path $survey_kind $(df -Pm "$survey_there" | awk 'NR == 2 { print $4 }') $1"
}
