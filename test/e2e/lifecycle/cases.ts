/** One resource of every kind, with what must be seen on the machine at each stage of its life. */
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { bucketNames, serverNames } from "../../../components/names";
import { bucketSettings } from "../../../lab/bucket";
import * as host from "../../../provider";
import { project } from "../../../toolchain/paths";

export interface Case {
  /** Name of the resource, and of its test. */
  name: string;
  /** Declares it, in the program. */
  declare(): void;
  /** The machine to look at. */
  machine: "cht" | "server";
  /** Prints what is there, with enough to tell a second writing of the same (inode, times). */
  look: string;
  /** What `look` prints when the resource is there and right. */
  right: RegExp;
  /** What `look` prints after `destroy`. Default: what it printed before the first `up`. */
  afterDestroy?: RegExp;
  /** Breaks it. Left out where nothing can be broken. */
  meddle?: string;
  /** The property in which a preview must show that, or `create` where the whole thing is gone. */
  drift?: string;
}

const home = "/srv/lifecycle";
const requirement = `six==1.16.0 \\
    --hash=sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254
`;
export const secretText = "lifecycle-secret-9f2c";

let root: host.Directory;
let user: host.User;
let key: host.SshKey;
let hostKey: host.SshHostKey;
let authorized: host.AuthorizedKey;
let passphrase: host.Passphrase;
let borg: pulumi.Resource[];
let repository: host.BorgRepository;

/** What the lab's own copy uses. The bucket can't be broken from a machine: `test/e2e/bucket.test.ts` does it as its owner. */
const bucket = bucketNames("lab");
const protectedBucket = new RegExp(
  `"versioning": true.*"mode": "${bucketSettings.mode.toUpperCase()}", "days": ${bucketSettings.lockDays}}`,
);

const stat = (path: string) => `stat -c '%n %F %a %U %G %i %Y' ${path} 2>/dev/null`;

export const cases: Case[] = [
  {
    name: "directory",
    declare() {
      root = new host.Directory("directory", { machine: "cht", path: home, mode: "0711" });
    },
    machine: "cht",
    look: `stat -c '%F %a %U' ${home} 2>/dev/null`,
    right: /^directory 711 root$/,
    // Borg's own files and the passphrase outlive the stack in it, so it isn't empty and stays.
    afterDestroy: /^directory 711 root$/,
    meddle: `chmod 0777 ${home}`,
    drift: "mode",
  },
  {
    name: "group-member",
    declare() {
      new host.GroupMember("group-member", { machine: "cht", user: "games", group: "users" });
    },
    machine: "cht",
    look: "id -nG games",
    right: /^games users$/,
    // Whether it was one before, nobody knows any more.
    afterDestroy: /^games users$/,
    meddle: "gpasswd --delete games users",
    drift: "create",
  },
  {
    name: "file-from-text",
    declare() {
      new host.File(
        "file-from-text",
        { machine: "cht", path: `${home}/text`, content: "one\ntwo 'three'\n", mode: "0640", group: "adm" },
        { dependsOn: root },
      );
    },
    machine: "cht",
    look: `${stat(`${home}/text`)} && cat ${home}/text`,
    right: /regular file 640 root adm .*\none\ntwo 'three'$/,
    meddle: `echo four >>${home}/text`,
    drift: "content",
  },
  {
    name: "file-from-file",
    declare() {
      new host.File(
        "file-from-file",
        { machine: "cht", path: `${home}/source`, source: "Pulumi.yaml" },
        { dependsOn: root },
      );
    },
    machine: "cht",
    look: `${stat(`${home}/source`)} && head -n 1 ${home}/source`,
    right: /regular file 644 root root .*\nname: lifecycle$/,
    meddle: `rm ${home}/source`,
    drift: "create",
  },
  {
    name: "file-with-a-secret",
    declare() {
      new host.File(
        "file-with-a-secret",
        { machine: "cht", path: `${home}/secret`, content: pulumi.secret(secretText), mode: "0600" },
        { dependsOn: root },
      );
    },
    machine: "cht",
    look: `${stat(`${home}/secret`)} && cat ${home}/secret`,
    right: new RegExp(`regular file 600 root root .*\n${secretText}$`),
    meddle: `chown daemon ${home}/secret`,
    drift: "owner",
  },
  {
    name: "packages",
    declare() {
      new host.Packages("packages", { machine: "server", packages: ["tree"], minimum: { tree: "1.0" } });
    },
    machine: "server",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the braces are dpkg-query's
    look: "dpkg-query -W -f '${db:Status-Status}' tree 2>/dev/null | sed 's/config-files/not-installed/'",
    right: /^installed$/,
    afterDestroy: /^installed$/,
    meddle: "dpkg --purge tree >/dev/null 2>&1",
    drift: "packages",
  },
  {
    name: "packages-for-a-program",
    declare() {
      new host.Packages("packages-for-a-program", {
        machine: "server",
        packages: ["hello-of-another-distribution|hello"],
        unless: "hello --version",
      });
    },
    machine: "server",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the braces are dpkg-query's
    look: "dpkg-query -W -f '${db:Status-Status}' hello 2>/dev/null | sed 's/config-files/not-installed/'",
    right: /^installed$/,
    afterDestroy: /^installed$/,
    meddle: "dpkg --purge hello >/dev/null 2>&1",
    drift: "unless",
  },
  {
    name: "user",
    declare() {
      user = new host.User("user", { machine: "server", user: "lifecycle", home });
    },
    machine: "server",
    look: "getent passwd lifecycle | cut -d: -f1,6,7",
    right: /^lifecycle:\/srv\/lifecycle:\/bin\/sh$/,
    meddle: "usermod --shell /usr/sbin/nologin lifecycle",
    drift: "shell",
  },
  {
    name: "directory-of-one-owner",
    declare() {
      new host.Directory(
        "directory-of-one-owner",
        {
          machine: "server",
          path: `${home}/owned`,
          owner: user.user,
          group: user.user,
          mode: "0700",
          ownsContents: true,
        },
        { dependsOn: user },
      );
    },
    machine: "server",
    look: `stat -c '%n %U:%G' /etc/hostname; find ${home}/owned -printf '%P %u:%g\\n' 2>/dev/null | sort`,
    right: /^\/etc\/hostname root:root(\n\S* lifecycle:lifecycle)+$/,
    // What is in it keeps it.
    afterDestroy: /\n \d+:\d+\ndata /,
    // As on a disk from another machine: the number is nobody's here. A link leads out.
    meddle: `cd ${home}/owned && mkdir -p data/0 && touch data/0/1 && ln -s /etc/hostname link && chown -Rh 4711:4711 data link`,
    drift: "ownsContents",
  },
  {
    name: "ssh-key",
    declare() {
      key = new host.SshKey(
        "ssh-key",
        { machine: "cht", path: `${home}/key`, comment: "lifecycle@cht" },
        { dependsOn: root },
      );
    },
    machine: "cht",
    look: `${stat(`${home}/key`)} && cut -d' ' -f1,3 ${home}/key.pub`,
    right: /regular file 600 root root .*\nssh-ed25519 lifecycle@cht$/,
    meddle: `chmod 0644 ${home}/key`,
    drift: "mode",
  },
  {
    name: "ssh-host-key",
    declare() {
      hostKey = new host.SshHostKey("ssh-host-key", { machine: "server" });
    },
    machine: "server",
    look: "cat /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f1",
    right: /^ssh-ed25519$/,
  },
  {
    name: "authorized-key",
    declare() {
      authorized = new host.AuthorizedKey("authorized-key", {
        machine: "server",
        user: user.user,
        publicKey: key.publicKey,
        command: `borg serve --append-only --restrict-to-repository ${home}/repository`,
      });
    },
    machine: "server",
    look: `${stat(`${home}/.ssh/authorized_keys`)} && grep -c . ${home}/.ssh/authorized_keys`,
    right: /regular file 644 root root .*\n1$/,
    meddle: `echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDOyFo85EhjxcKPwy3PVRUkg9DAcyF83jITBCUDpWyHv intruder' >>${home}/.ssh/authorized_keys`,
    drift: "otherKeys",
  },
  {
    name: "unit",
    declare() {
      const service = new host.Unit("service", {
        machine: "cht",
        unit: "lifecycle.service",
        content: "[Unit]\nDescription=Lifecycle\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
      });
      new host.Unit(
        "unit",
        {
          machine: "cht",
          unit: "lifecycle.timer",
          content: "[Unit]\nDescription=Lifecycle\n[Timer]\nOnCalendar=2099-01-01\n[Install]\nWantedBy=timers.target\n",
          enabled: true,
          active: true,
        },
        { dependsOn: service },
      );
    },
    machine: "cht",
    look: "systemctl is-enabled lifecycle.timer 2>&1; systemctl is-active lifecycle.timer; systemctl show -p DropInPaths lifecycle.timer",
    right: /^enabled\nactive\nDropInPaths=$/,
    meddle:
      "systemctl disable -q --now lifecycle.timer; mkdir -p /etc/systemd/system/lifecycle.timer.d; printf '[Timer]\\nOnCalendar=2098-01-01\\n' >/etc/systemd/system/lifecycle.timer.d/x.conf; systemctl daemon-reload",
    drift: "overrides",
  },
  {
    name: "passphrase",
    declare() {
      passphrase = new host.Passphrase(
        "passphrase",
        { machine: "cht", path: `${home}/passphrase` },
        { dependsOn: root },
      );
    },
    machine: "cht",
    look: `${stat(`${home}/passphrase`)} && wc -c <${home}/passphrase`,
    right: /regular file 600 root root .*\n40$/,
    afterDestroy: /regular file 600 root root .*\n40$/,
    meddle: `echo another >${home}/passphrase`,
    drift: "inFile",
  },
  {
    name: "space-reserve",
    declare() {
      new host.SpaceReserve(
        "space-reserve",
        { machine: "server", path: `${home}/reserve`, mebibytes: 3 },
        { dependsOn: user },
      );
    },
    machine: "server",
    look: `stat -c '%s %a %i' ${home}/reserve 2>/dev/null`,
    right: /^3145728 600 /,
    meddle: `rm ${home}/reserve`,
    drift: "create",
  },
  {
    name: "tree",
    declare() {
      new host.Tree(
        "tree",
        { machine: "cht", path: `${home}/tree`, source: join(project, "hosts", "restore"), validate: "true" },
        { dependsOn: root },
      );
    },
    machine: "cht",
    look: `cd ${home}/tree 2>/dev/null && stat -c '%a %U %i' . && ls -A && head -n 1 access.sh`,
    right: /^755 root \d+\naccess\.sh\nprepare\.sh\n#!\/bin\/sh$/,
    meddle: `echo '# changed' >>${home}/tree/access.sh; touch ${home}/tree/more`,
    drift: "files",
  },
  {
    name: "python-environment",
    declare() {
      const python = new host.Packages("python", { machine: "cht", packages: ["python3-venv"] });
      new host.PythonEnvironment(
        "python-environment",
        { machine: "cht", path: `${home}/venv`, requirements: requirement },
        { dependsOn: [root, python] },
      );
    },
    machine: "cht",
    look: `stat -c '%i' ${home}/venv/pyvenv.cfg 2>/dev/null && ${home}/venv/bin/python3 -c 'import six; print(six.__version__)'`,
    right: /^\d+\n1\.16\.0$/,
    meddle: `echo "__version__ = 'evil'" | tee -a ${home}/venv/lib/python3*/site-packages/six.py >/dev/null`,
    drift: "files",
  },
  {
    name: "borg-repository",
    declare() {
      borg = [
        new host.Packages("borg-on-cht", {
          machine: "cht",
          packages: ["borgbackup"],
          minimum: { borgbackup: "1.2.8" },
        }),
        new host.Packages("borg-on-server", { machine: "server", packages: ["borgbackup"] }),
        new host.Directory(
          "repository",
          { machine: "server", path: `${home}/repository`, group: user.user, mode: "1770" },
          { dependsOn: user },
        ),
        new host.File(
          "known-hosts",
          { machine: "cht", path: `${home}/known_hosts`, content: pulumi.interpolate`offsite ${hostKey.publicKey}\n` },
          { dependsOn: root },
        ),
      ];
      repository = new host.BorgRepository(
        "borg-repository",
        {
          machine: "cht",
          server: "server",
          location: `ssh://lifecycle@cht-backup-lab-server${home}/repository`,
          path: `${home}/repository`,
          rsh: `ssh -i ${home}/key -o IdentitiesOnly=yes -o BatchMode=yes -o HostKeyAlias=offsite -o UserKnownHostsFile=${home}/known_hosts`,
          baseDirectory: `${home}/borg`,
          passphrase: passphrase.passphrase,
        },
        { dependsOn: [...borg, key, authorized] },
      );
    },
    machine: "server",
    look: `stat -c '%U' ${home}/repository/config 2>/dev/null && grep -E '^(append_only|additional_free_space) ' ${home}/repository/config`,
    right: /^root\nappend_only = 1\nadditional_free_space = 500M$/,
    afterDestroy: /^root\nappend_only = 1\nadditional_free_space = 500M$/,
    meddle: `sed -i 's/^append_only = 1/append_only = 0/' ${home}/repository/config`,
    drift: "appendOnly",
  },
  {
    name: "repository-seal",
    declare() {
      const settings = {
        deployment: "lifecycle",
        user: "lifecycle",
        repository: `${home}/repository`,
        state: `${home}/state`,
      };
      new host.RepositorySeal(
        "repository-seal",
        {
          machine: "server",
          path: settings.repository,
          program: serverNames("lab", "").package,
          settings: `${home}/repository.json`,
        },
        {
          dependsOn: [
            repository,
            new host.Directory("seal-state", { machine: "server", path: settings.state }, { dependsOn: user }),
            new host.File(
              "seal-settings",
              { machine: "server", path: `${home}/repository.json`, content: JSON.stringify(settings) },
              { dependsOn: user },
            ),
          ],
        },
      );
    },
    machine: "server",
    look: `cd ${home}/repository 2>/dev/null && stat -c '%n %U %a' . config data/0 data/0/0`,
    right: /^\. root 1770\nconfig root 640\ndata\/0 root 1770\ndata\/0\/0 root 440$/,
    // What is stored stays sealed.
    afterDestroy: /^\. root 1770\nconfig root 640\ndata\/0 root 1770\ndata\/0\/0 root 440$/,
    meddle: `chown lifecycle ${home}/repository/data/0/0`,
    drift: "unsealed",
  },
  {
    name: "bucket-protection",
    declare() {
      new host.BucketProtection("bucket-protection", {
        machine: "server",
        bucket: bucketSettings.name,
        programs: bucket.programs,
        program: serverNames("lab", "").package,
        settings: `${bucket.settings}/bucket.json`,
        mode: bucketSettings.mode.toUpperCase(),
        days: bucketSettings.lockDays,
      });
    },
    machine: "server",
    look: `${bucket.programs}/venv/bin/python -B ${serverNames("lab", "").package} bucket describe ${bucket.settings}/bucket.json`,
    right: protectedBucket,
    afterDestroy: protectedBucket,
  },
];
