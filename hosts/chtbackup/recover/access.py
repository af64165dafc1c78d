"""The new machine's way to the backup server: a key of its own, which root on the server lets in."""

from __future__ import annotations

import os
import shlex
import subprocess

from chtbackup.recover.paper import Mistyped

MARK = "cht-recovery"
"""What the key's line in authorized_keys ends with."""
KEPT = 7  # days that the server lets the key in
CONFIG = """Host offsite
  HostName {address}
  Port {port}
  User {user}
  IdentityFile {directory}/ssh_key
  IdentitiesOnly yes
  HostKeyAlias offsite
  UserKnownHostsFile {directory}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 30
  ServerAliveInterval 10
  ServerAliveCountMax 30
"""
HINTS = {
    "Host key verification failed": "the machine that answers isn't the one that the page was made for. Don't go on"
    " before somebody at the server has run `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there and seen the"
    " page's fingerprint",
    "Could not resolve": "from here the server has another address: add --server ADDRESS or --server ADDRESS:PORT",
    "timed out": "from here the server has another address, or a firewall shuts this machine out: --server"
    " ADDRESS:PORT names another",
    "refused": "no SSH server answers at this address and port: --server ADDRESS:PORT names another",
    "Connection closed": "the server may have had too many wrong logins from here: wait five minutes",
    "Connection reset": "the server may have had too many wrong logins from here: wait five minutes",
}


class NoWayIn(Exception):
    """The server can't be reached. The text says why, and what to do; it may have several lines."""


def place(server: str, elsewhere: str | None) -> tuple[str, str, str]:
    """Address, port and account by the page's line `server`; `elsewhere` is another address, perhaps with a port.
    Raises Mistyped."""
    address, port, user = server.split(" ")
    if elsewhere is not None:
        address, _, other = elsewhere.partition(":") if elsewhere.count(":") == 1 else (elsewhere, "", "")
        port = other or port
    if not address or address.startswith("-") or any(letter.isspace() for letter in address) or not port.isdigit():
        raise Mistyped(f"{elsewhere} is no ADDRESS or ADDRESS:PORT")
    return address, port, user


def prepare(directory: str, server: tuple[str, str, str], host_key: str) -> str:
    """Write ssh's settings and, once, a key into a directory of root's. Returns the path of the settings."""
    address, port, user = server
    os.makedirs(directory, mode=0o700, exist_ok=True)
    files = {
        "ssh_config": CONFIG.format(address=address, port=port, user=user, directory=directory),
        "known_hosts": f"offsite {host_key}\n",
    }
    for name, text in files.items():
        with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    if not os.path.exists(f"{directory}/ssh_key.pub"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", MARK, "-f", f"{directory}/ssh_key"],
            input="y\n", text=True, check=True, capture_output=True,
        )  # fmt: skip
    return f"{directory}/ssh_config"


def let_in(repository: str, key: str) -> str:
    """The command for root on the server that lets a public key in: for reading and appending in one repository, as
    the CHT host's own key, and for a week. It needs nothing there but a shell; a later key takes an earlier one's
    place. Where cht-backup is on the server, sshd puts its guard before borg."""
    keys = f"{os.path.dirname(repository)}/.ssh/authorized_keys"
    serve = f"/usr/bin/borg serve --append-only --restrict-to-repository {repository}"
    line = f'restrict,expiry-time="%s",command="{serve}" {key}'
    return (
        f"{shut_out(repository, made=True)}; printf {shlex.quote(line + chr(92) + 'n')}"
        f' "$(date -d +{KEPT}days +%Y%m%d)" >> {shlex.quote(keys)}'
    )


def shut_out(repository: str, made: bool = False) -> str:
    """The command for root on the server that shuts the new machine out again."""
    keys = shlex.quote(f"{os.path.dirname(repository)}/.ssh/authorized_keys")
    folder = shlex.quote(f"{os.path.dirname(repository)}/.ssh")
    there = f"install -d -m 755 {folder}; touch {keys}; chmod 644 {keys}; " if made else ""
    return f"{there}sed -i '/ {MARK}$/d' {keys}"


def try_out(config: str, repository: str) -> None:
    """See to it that the server lets this machine in. Raises NoWayIn."""
    done = subprocess.run(
        ["ssh", "-F", config, "offsite"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    if done.returncode != 255:
        return
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["ssh said nothing"]
    if any("Permission denied" in line for line in said):
        with open(f"{os.path.dirname(config)}/ssh_key.pub", encoding="utf-8") as file:
            key = file.read().strip()
        raise NoWayIn(
            "the backup server doesn't know this machine yet, or its week is over. Have root on the server run this"
            f" one line there, then repeat the command here:\n\n{let_in(repository, key)}\n"
        )
    hint = next((hint for words, hint in HINTS.items() if any(words in line for line in said)), None)
    raise NoWayIn(f"the backup server can't be reached: {said[-1]}" + (f"\n{hint}" if hint else ""))
