/** How a container gets a control group tree in which systemd can work. */

/**
 * Arguments of `docker run`.
 *
 * @param version What the engine says of itself (`docker info`, CgroupVersion).
 * @param unified Where the host has a cgroup v2 tree beside a v1 one (hybrid), or undefined.
 */
export function cgroupArguments(version: string, unified: string | undefined): string[] {
  // On v2 the container gets a tree of its own; the machine's first process makes it writable.
  if (version === "2") return ["--cgroupns=private"];
  // systemd 256 and newer works with v2 only. On a hybrid host the v2 tree has no controllers, but systemd
  // needs it just to tell the processes of its units apart.
  if (unified !== undefined) return ["--cgroupns=host", "--volume", `${unified}:/sys/fs/cgroup:rw`];
  return ["--cgroupns=host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"];
}

/** Where the cgroup v2 tree is mounted, in the text of /proc/self/mounts; /sys/fs/cgroup itself doesn't count. */
export function unifiedMount(mounts: string): string | undefined {
  for (const line of mounts.split("\n")) {
    const [, path, type] = line.split(" ");
    if (type === "cgroup2" && path !== "/sys/fs/cgroup") return path;
  }
  return undefined;
}
