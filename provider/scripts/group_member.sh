# shellcheck shell=sh
# A user's membership in a group.

# group_member_read USER GROUP: `yes` where the user is in the group, as a new login would be.
group_member_read() {
  if id -nG "$1" 2>/dev/null | tr ' ' '\n' | grep -qxF "$2"; then echo yes; fi
}

# group_member_apply USER GROUP
group_member_apply() {
  usermod --append --groups "$2" "$1"
}
