import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CheckRequest, ReadRequest } from "@pulumi/pulumi/proto/provider_pb";
import { readHostFile } from "../../components/host-files";
import { loginLimitsHold } from "../../components/login-limits";
import { serveCommand } from "../../components/repository-guard";
import { waitFor } from "../../lab/machines";
import { Remote } from "../../operations/remote";
import { openKey } from "../../provider/borg-key";
import { parseFile } from "../../provider/file";
import { properties, toStruct } from "../../provider/plugin";
import { Unreachable } from "../../provider/refused";
import { handlers } from "../../provider/server";
import { remoteCommand } from "../../provider/session";
import { type Answer, actionScript, batchScript, decode, encode, parseBatch } from "../../provider/shell";
import { Machine } from "../../provider/ssh";
import { explainConnectionFailure, explainLogin } from "../../provider/ssh-failure";
import { askForHostKeys, chooseHostKey } from "../../provider/ssh-host-key";
import { socketFolder } from "../../provider/ssh-options";
import { freePort, Sshd, thereIsSshd } from "./sshd";

/** Inputs of a resource that asks its machine before anything is made. */
const SEAL = { machine: "cht", path: "/srv/x", program: "/opt/x", settings: "/etc/x" };

const directory = (path: string) => ({ library: "directory", name: "directory_read", arguments: [path] });

describe("the way in", function () {
  this.timeout(60_000);
  let sshd: Sshd;
  const open: { close(): void }[] = [];

  before(function () {
    if (!thereIsSshd) this.skip();
    sshd = new Sshd();
  });
  afterEach(() => {
    for (const each of open.splice(0)) each.close();
  });
  after(() => sshd?.remove());

  function machine(change: Record<string, unknown> = {}): Machine {
    const made = new Machine("cht", sshd.settings(change));
    open.push(made);
    return made;
  }

  function remote(change: Record<string, unknown> = {}, option?: string): Remote {
    const made = new Remote("cht", sshd.settings(change), option);
    open.push(made);
    return made;
  }

  describe("a login whose shell prints what it likes", () => {
    const noise = (more = "") =>
      'echo "Welcome to the production CHT host, be careful"; printf "no newline"; sleep 0.3; echo "warning: $$" >&2; ' +
      `${more} exec sh -c "$SSH_ORIGINAL_COMMAND"`;
    before(() => sshd.start(`ForceCommand ${sshd.script("login", noise())}`));

    it("changes nothing of what is read there, however many ask", async () => {
      sshd.script("login", noise("(sleep 0.2; echo later; sleep 0.2; printf 'later still') &"));
      const cht = machine();
      const answers = await Promise.all(["/", "/no-such", "/etc"].map((path) => cht.read(directory(path))));
      assert.deepEqual(
        answers.map(({ output }) => output.split(" ")[0]),
        ["directory", "missing\n", "directory"].map((word) => word.trim()),
      );
      await new Promise((done) => setTimeout(done, 450));
      assert.match((await cht.read(directory("/"))).output, /^directory 0755 root root/);
      sshd.script("login", noise());
    });

    it("changes nothing of what an action gives back, nor of why it failed", async () => {
      const cht = machine();
      const path = join(sshd.folder, "made-by-action");
      const { gid } = statSync(sshd.folder);
      const group = execFileSync("id", ["-gn", String(process.getuid?.())], { encoding: "utf8" }).trim();
      const user = execFileSync("id", ["-un"], { encoding: "utf8" }).trim();
      assert.equal(gid, process.getgid?.());
      const call = { library: "directory", name: "directory_apply", arguments: [path, "0750", user, group] };
      assert.equal((await cht.act(call)).includes("Welcome"), false);
      assert.equal(statSync(path).mode & 0o777, 0o750);
      writeFileSync(join(sshd.folder, "a-file"), "");
      const refused = { ...call, arguments: [join(sshd.folder, "a-file"), "0750", user, group] };
      await assert.rejects(cht.act(refused), /^Error: cht: \S+ is there already and is not a directory; move it away$/);
    });

    it("changes nothing of what the commands run there: output, lines, errors, exit code", async () => {
      const cht = remote();
      const lines: string[] = [];
      const errors: string[] = [];
      assert.equal(
        await cht.script('mktemp -u "$1/run.XXX" | sed s/run.*/run/', [sshd.folder]),
        `${sshd.folder}/run\n`,
      );
      const finished = await cht.run(["sh", "-c", "cat; echo 'it''s' $1; echo no >&2; exit 3", "sh", "a  'b'"], {
        stdin: "given\n",
        onLine: (line) => lines.push(line),
        onError: (line) => errors.push(line),
      });
      assert.deepEqual(finished, { code: 3, stdout: "given\nits a 'b'\n", stderr: "no\n" });
      assert.deepEqual([lines, errors], [["given", "its a 'b'"], ["no"]]);
      await assert.rejects(cht.script("echo wrong >&2; exit 1"), /^Error: cht: wrong$/);
    });
  });

  it("goes by every kind of shell that a login may have", () => {
    const command = remoteCommand("MARK", false, ["sh", "-c", 'printf "%s|" "$@"', "sh", "a'b", "c d", "$e"]);
    for (const shell of ["sh", "bash", "dash", "zsh", "csh", "tcsh", "fish", "ksh", "mksh"]) {
      let printed: string;
      try {
        printed = execFileSync(shell, ["-c", command], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") continue;
        throw error;
      }
      assert.equal(printed, "MARK\na'b|c d|$e|", shell);
    }
  });

  describe("a login whose environment is foreign", () => {
    before(async () => {
      const login = sshd.script("login", 'umask 077; exec sh -c "$SSH_ORIGINAL_COMMAND"');
      const foreign = [
        "BORG_PASSPHRASE=other-backup BORG_REPO=/elsewhere PYTHONPATH=/evil PYTHONSTARTUP=/evil GREP_OPTIONS=-v",
        "CDPATH=/ TMPDIR=/no-such LANG=de_DE.UTF-8 LC_ALL=de_DE.UTF-8 PIP_USER=1 http_proxy=http://proxy:3128",
        "PIP_INDEX_URL=https://mirror.example/simple NO_PROXY=localhost,::1 DOCKER_HOST=tcp://other",
      ];
      await sshd.start(`ForceCommand ${login}\nSetEnv ${foreign.join(" ")}`);
    });

    it("lends what runs there its proxies and package mirrors, and nothing else", async () => {
      const names = (text: string) =>
        text
          .split("\n")
          .filter((line) => /^[A-Za-z_]\w*=/.test(line) && !/^(PWD|SHLVL|_|OLDPWD)=/.test(line))
          .map((line) => (/^(PATH|HOME)=/.test(line) ? line.replace(/=.*/, "") : line))
          .sort();
      const wanted = [
        "HOME",
        "LANG=C.UTF-8",
        "NO_PROXY=localhost,::1",
        "PATH",
        "PIP_INDEX_URL=https://mirror.example/simple",
      ];
      assert.deepEqual(names(await remote().script("env")), [...wanted, "http_proxy=http://proxy:3128"].sort());
    });

    it("can't change the passphrase by which borg makes a repository", async function () {
      if (!existsSync("/usr/bin/borg")) this.skip();
      const [base, repository] = ["base", "repository"].map((name) => join(sshd.folder, name)) as [string, string];
      const printed = await machine().act({
        library: "borg_repository",
        name: "borg_repository_apply",
        arguments: [base, "ssh", repository, "repokey-blake2", encode("the stack's own passphrase"), "", ""],
      });
      const opened = await openKey(decode(printed.split("\n")[1] ?? ""), "the stack's own passphrase");
      assert.ok("contents" in opened, JSON.stringify(opened));
    });

    it("can't close what is made there: its umask isn't taken", async () => {
      assert.equal((await remote().script("umask")).trim(), "0022");
      const cht = machine();
      const path = join(sshd.folder, "between", "made");
      const [user, group] = ["-un", "-gn"].map((of) => execFileSync("id", [of], { encoding: "utf8" }).trim());
      await cht.act({
        library: "directory",
        name: "directory_apply",
        arguments: [path, "0700", user, group] as string[],
      });
      assert.equal(statSync(join(sshd.folder, "between")).mode & 0o777, 0o755);
    });
  });

  describe("what stands in the way is told by its right cause, by the real ssh", () => {
    before(() => sshd.start());

    async function reason(
      change: Record<string, unknown>,
      env: Record<string, string | undefined> = {},
    ): Promise<string> {
      const before = Object.fromEntries(Object.keys(env).map((name) => [name, process.env[name]]));
      const set = (values: Record<string, string | undefined>) => {
        for (const [name, value] of Object.entries(values)) {
          if (value === undefined) delete process.env[name];
          else process.env[name] = value;
        }
      };
      set({ SSH_AUTH_SOCK: undefined, ...env });
      try {
        const error = await machine(change)
          .read(directory("/"))
          .then(
            () => assert.fail("it was reached"),
            (each: Error) => each,
          );
        assert.doesNotMatch(error.message, /\n|undefined/);
        return error.message;
      } finally {
        set(before);
      }
    }

    it("a key file that isn't there", async () => {
      assert.match(
        await reason({ identityFile: "/no/such/key" }),
        /^cht \(127\.0\.0\.1\): the key file \/no\/such\/key can't be read\. Check host:machines\.cht\.identityFile$/,
      );
    });

    it("a key with a passphrase, which no agent has", async () => {
      const locked = sshd.makeKey("locked", "a passphrase");
      assert.match(
        await reason({ identityFile: locked }),
        /the key file \S+\/locked needs a passphrase, and no agent has the key: .*`ssh-add \S+\/locked`$/,
      );
    });

    it("a key with a passphrase, and an agent that has ended", async () => {
      assert.match(
        await reason({ identityFile: sshd.makeKey("locked", "a passphrase") }, { SSH_AUTH_SOCK: "/no/such/agent" }),
        /needs a passphrase, and no agent has the key, and the agent that SSH_AUTH_SOCK names doesn't answer: start an agent/,
      );
    });

    it("a key that others may read", async () => {
      const open = join(sshd.folder, "open");
      writeFileSync(open, readFileSync(sshd.identityFile));
      chmodSync(open, 0o644);
      assert.match(await reason({ identityFile: open }), /others may read it\. Close it: `chmod 600 \S+\/open`$/);
    });

    it("a file that is no key", async () => {
      const file = join(sshd.folder, "no-key");
      writeFileSync(file, "not a key\n", { mode: 0o600 });
      assert.match(
        await reason({ identityFile: file }),
        /\/no-key is no private key that ssh can read \(.+\)\. Check host/,
      );
    });

    it("no key at all", async () => {
      const configFile = join(sshd.folder, "no-keys");
      writeFileSync(configFile, "IdentityFile /no/such/one\n");
      assert.match(
        await reason({ identityFile: undefined, configFile }),
        /there is no key to log in with: .*host:machines\.cht\.identityFile$/,
      );
    });

    it("a key that isn't authorized", async () => {
      assert.match(
        await reason({ identityFile: sshd.makeKey("stranger") }),
        /login refused \(.*Permission denied \(publickey.*\)\)?\.?.*Check host:machines\.cht\.user and .*authorized there$/,
      );
    });

    it("a server that takes no keys", async () => {
      const other = new Sshd();
      try {
        await other.start("PubkeyAuthentication no\nPasswordAuthentication yes");
        const error = await reason({ port: other.port, hostKey: other.hostKey });
        assert.match(error, /takes no keys at all \(only password.*\).*Allow `PubkeyAuthentication` there$/);
      } finally {
        await other.remove();
      }
    });

    it("an agent with more keys than the server lets anybody try", () => {
      const words = "Received disconnect from 192.0.2.7 port 22:2: Too many authentication failures\n";
      assert.match(explainConnectionFailure("cht", sshd.settings(), words), /more keys than .*cht\.identityFile$/);
    });

    it("a port at which nothing listens", async () => {
      const port = await freePort();
      assert.match(
        await reason({ port }),
        new RegExp(`: nothing answers at port ${port}\\. Check host:machines\\.cht\\.port`),
      );
    });

    it("a name that nobody knows", async () => {
      assert.match(
        await reason({ address: "no-such-host.invalid" }),
        /the name can't be resolved\. Check host:machines\.cht\.address$/,
      );
    });

    it("a jump host whose name nobody knows", async () => {
      assert.match(
        await reason({ jump: "no-such-host.invalid" }),
        /the jump host no-such-host\.invalid can't be passed \(.*Could not resolve.*\)\. Check host:machines\.cht\.jump$/,
      );
    });

    it("a jump host whose host key isn't known, or that doesn't let us in, or has no way on", async () => {
      const jump = `localhost:${sshd.port}`;
      const config = (text: string) => {
        const configFile = join(sshd.folder, "jump_config");
        writeFileSync(configFile, text);
        return configFile;
      };
      const known = `[localhost]:${sshd.port} ${sshd.hostKey}\n`;
      writeFileSync(join(sshd.folder, "knows"), known);
      assert.match(
        await reason({ jump, configFile: config("UserKnownHostsFile /dev/null\n") }),
        /the jump host localhost:\d+ can't be passed \(Host key verification failed\.\): its host key isn't known/,
      );
      assert.match(
        await reason({ jump, configFile: config(`UserKnownHostsFile ${sshd.folder}/knows\nIdentityFile /no/such\n`) }),
        /the jump host \S+ can't be passed \(.*Permission denied.*\)\. Check host:machines\.cht\.jump$/,
      );
      const port = await freePort();
      const through = config(`UserKnownHostsFile ${sshd.folder}/knows\nIdentityFile ${sshd.identityFile}\n`);
      assert.match(
        await reason({ jump, port, configFile: through }),
        /the jump host \S+ has no way there \(Connection refused\)\. Check host:machines\.cht\.address/,
      );
    });

    it("an ssh configuration that ssh doesn't take, or that isn't there", async () => {
      const configFile = join(sshd.folder, "bad_config");
      writeFileSync(configFile, "NoSuchOption yes\n");
      assert.match(
        await reason({ configFile }),
        /ssh doesn't take its configuration on this computer \(\S*bad_config.*NoSuch/i,
      );
      assert.match(
        await reason({ configFile: "/no/such/config" }),
        /the ssh configuration \/no\/such\/config can't be read \(No such file or directory\)\. Check host:machines\.cht\.configFile$/,
      );
    });

    it("another host key than the pinned one", async () => {
      assert.match(
        await reason({ hostKey: sshd.publicKey("key") }),
        /its SSH host key is not the one pinned in host:machines\.cht\.hostKey/,
      );
    });

    it("another host key than the one known from earlier, with a command that removes it", async () => {
      const knownHosts = join(sshd.folder, "known_hosts");
      writeFileSync(knownHosts, `[127.0.0.1]:${sshd.port} ${sshd.publicKey("key")}\n`);
      const message = await reason({ hostKey: undefined });
      const [, command = ""] = /remove the old key with `([^`]+)`/.exec(message) ?? [];
      assert.equal(command, `ssh-keygen -R '[127.0.0.1]:${sshd.port}' -f ${knownHosts}`);
      execFileSync("sh", ["-c", command], { stdio: "ignore" });
      assert.match((await machine({ hostKey: undefined }).read(directory("/"))).output, /^directory/);
      const elsewhere = { ...sshd.settings({ hostKey: undefined }), address: "cht.example.org", port: 2222 };
      const words = "Host key verification failed.";
      assert.match(explainConnectionFailure("cht", elsewhere, words), /`ssh-keygen -R '\[cht\.example\.org\]:2222'`/);
    });

    it("something that is no SSH server, and one that hangs up", async () => {
      for (const [answer, expected] of [
        [
          "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n".repeat(30),
          /no SSH server\. Check host:machines\.cht\.port|hangs up/,
        ],
        ["", /hangs up before the login/],
        // What sshd says to whom its penalties have shut out, ssh shows to nobody.
        ["Not allowed at this time\r\n", /hangs up before the login/],
      ] as const) {
        const server = createServer((socket) => {
          socket.on("error", () => undefined);
          socket.end(answer);
        });
        await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
        const { port } = server.address() as { port: number };
        try {
          assert.match(await reason({ port }), expected);
        } finally {
          server.close();
        }
      }
    });
  });

  describe("a login that comes to nothing", () => {
    const said = async (text: string, code: number, sudo = false) => {
      const login = sshd.script("login", text);
      await sshd.start(`ForceCommand ${login}`);
      const words = `${code}`;
      const errors = await Promise.all([
        machine({ sudo })
          .read(directory("/"))
          .then(() => assert.fail(words), String),
        remote({ sudo })
          .script("echo reached")
          .then(() => assert.fail(words), String),
      ]);
      return errors.map((error) => error.replace(/^Error: /, ""));
    };

    it("is told with what it said", async () => {
      for (const error of await said("echo 'This account is currently not available.'; exit 1", 1)) {
        assert.match(error, /^cht: the login of \S+ comes to nothing \(This account is currently not available\)$/);
      }
      for (const error of await said("echo 'only backups here' >&2; exit 0", 0)) {
        assert.match(error, /^cht: the login of \S+ starts no shell there \(only backups here\)/);
      }
    });

    it("is not mistaken for a login that may not use sudo, nor that for another cause", () => {
      const machine = { ...sshd.settings(), user: "ubuntu", sudo: true };
      const host = "sudo: unable to resolve host cht-1: Name or service not known\n";
      for (const [text, code, expected] of [
        [
          "sudo: a password is required\n",
          1,
          /may not use sudo without a password\. .*NOPASSWD.*host:machines\.cht\.user to root$/,
        ],
        [`${host}sudo: a password is required\n`, 1, /may not use sudo without a password/],
        ["sudo: a terminal is required to read the password\n", 1, /may not use sudo without a password/],
        [
          "sudo: sorry, you must have a tty to run sudo\n",
          1,
          /wants a terminal \(`requiretty`\).*`Defaults:ubuntu !requiretty`/,
        ],
        ["bash: line 1: exec: sudo: not found\n", 127, /there is no sudo\. Install it, or set host/],
        ["bash: exec: sudo: not found\n", 126, /there is no sudo/],
        ["ubuntu is not in the sudoers file.\n", 1, /may not use sudo\. Allow/],
        ["Sorry, user ubuntu may not run sudo on cht-1.\n", 1, /may not use sudo\. Allow/],
        ["Sorry, user ubuntu is not allowed to execute '/bin/sh' as root on cht-1.\n", 1, /may not use sudo\. Allow/],
        ["sudo: /etc/sudo.conf is world writable\n", 1, /sudo there doesn't work \(/],
        [host, 1, /starts no shell there \(sudo: unable to resolve host/],
      ] as const) {
        const explained = explainLogin("cht", machine, text, code);
        assert.match(explained, expected);
        assert.equal(explained.split("\n").length, 1);
      }
      assert.match(
        explainLogin("root@new", machine, "sudo: a password is required", 1, "--to"),
        /, or log in as root$/,
      );
    });

    it("isn't taken for one because sudo has words of its own", async () => {
      const bin = join(sshd.folder, "bin");
      mkdirSync(bin, { recursive: true });
      writeFileSync(
        join(bin, "sudo"),
        '#!/bin/sh\necho "sudo: unable to resolve host cht-1: Name or service not known" >&2\nshift\nexec "$@"\n',
      );
      chmodSync(join(bin, "sudo"), 0o755);
      const login = sshd.script("login", `PATH=${bin}:$PATH; exec sh -c "$SSH_ORIGINAL_COMMAND"`);
      await sshd.start(`ForceCommand ${login}`);
      const call = {
        library: "directory",
        name: "directory_apply",
        arguments: ["/etc/passwd", "0755", "root", "root"],
      };
      await assert.rejects(machine({ sudo: true }).act(call), /\/etc\/passwd is there already and is not a directory/);
      assert.equal(await remote({ sudo: true }).script("echo reached"), "reached\n");
    });
  });

  describe("what the offsite server's sshd really does", () => {
    const user = execFileSync("id", ["-un"], { encoding: "utf8" }).trim();
    const limits = () =>
      readHostFile("server/sshd.conf")
        .replaceAll("@DEPLOYMENT@", "moh")
        .replaceAll("@SERVER_USER@", user)
        .replaceAll("@SERVE_COMMAND@", serveCommand("moh"))
        // The account's home isn't the test's.
        .replace(" .ssh/authorized_keys", ` ${sshd.folder}/authorized_keys`);
    const holds = () =>
      spawnSync("sh", ["-c", loginLimitsHold(user, serveCommand("moh"), program())], { encoding: "utf8" });
    const program = () => `/usr/sbin/sshd -f ${sshd.folder}/sshd_config`;

    it("whom it lets in by `AllowUsers`, `AllowGroups` or `PubkeyAuthentication` keeps no backups out", async () => {
      const others = "AllowUsers nobody-else\nAllowGroups nobody-else\n";
      await sshd.start(`${others}PubkeyAuthentication no\nMatch all\n${others}Match all\n${limits()}`);
      const { status, stdout, stderr } = holds();
      assert.deepEqual([status, stdout, stderr], [0, "", ""]);
      // The forced command isn't here; that it is begun shows that the key was let in.
      await assert.rejects(remote({}).script("true"), /starts no shell there \(.*(guard\.py|No such file)/);
    });

    it("is drift with its reason where `DenyUsers` or an earlier `Match` shuts the account out", async () => {
      for (const [other, expected] of [
        [`DenyUsers nobody-else ${user.slice(0, 2)}*`, /^DenyUsers or DenyGroups of sshd \(\S+\*\) shuts out /],
        ["Match all\nPubkeyAuthentication no\nMatch all", /\(PubkeyAuthentication in a Match before this one\) shuts/],
        ["Match all\nForceCommand /bin/true\nMatch all", /takes the forced command from/],
      ] as const) {
        await sshd.start(`${other}\n${limits()}`);
        const { status, stdout } = holds();
        assert.equal(status, 1, other);
        assert.match(stdout, expected);
        const call = {
          library: "file",
          name: "file_read",
          arguments: ["/etc/hostname", loginLimitsHold(user, serveCommand("moh"), program())],
        };
        const read = spawnSync("sh", ["-s"], { input: batchScript([call]), encoding: "utf8" });
        const found = parseFile(parseBatch(read.stdout, 1)[0] as Answer, "server: x");
        assert.equal(found?.valid, false);
        assert.match(found?.refusal ?? "", expected);
      }
    });

    async function offered(more: string): Promise<string> {
      await sshd.start(more);
      mkdirSync(join(sshd.folder, "sbin"), { recursive: true });
      writeFileSync(join(sshd.folder, "sbin", "sshd"), `#!/bin/sh\nexec ${program()} "$@"\n`);
      chmodSync(join(sshd.folder, "sbin", "sshd"), 0o755);
      const env = { ...process.env, PATH: `${sshd.folder}/sbin:${process.env.PATH}` };
      const { stdout, status, stderr } = spawnSync("sh", ["-s"], {
        input: actionScript(askForHostKeys),
        encoding: "utf8",
        env,
      });
      assert.equal(status, 0, stderr);
      return stdout;
    }
    const scanned = () =>
      spawnSync("ssh-keyscan", ["-p", String(sshd.port), "127.0.0.1"], { encoding: "utf8" }).stdout.replaceAll(
        /^\S+ /gm,
        "",
      );

    it("clients pin a host key that it offers, whatever files lie beside it", async () => {
      sshd.makeKey("rsa", "", "rsa");
      // The public half of another key beside it.
      writeFileSync(join(sshd.folder, "rsa.pub"), "ssh-rsa AAAA stale\n");
      const rsa = chooseHostKey(await offered(`HostKey ${sshd.folder}/rsa\n`));
      assert.match(rsa ?? "", /^ssh-rsa /);
      assert.ok(
        scanned()
          .split("\n")
          .includes(rsa ?? ""),
      );
      assert.ok((await machine({ hostKey: rsa }).read(directory("/"))).output.startsWith("directory"));

      const both = `HostKey ${sshd.folder}/rsa\nHostKey ${sshd.folder}/host\n`;
      assert.equal(chooseHostKey(await offered(both)), sshd.hostKey);
      assert.equal(chooseHostKey(await offered(both), rsa), rsa, "the one that clients know stays while it is offered");
      const limited = `${both}HostKeyAlgorithms rsa-sha2-512\n`;
      assert.equal(chooseHostKey(await offered(limited), sshd.hostKey), rsa);
      assert.doesNotMatch(scanned(), /ed25519/);
      assert.equal(chooseHostKey("algorithms x\n"), undefined);
    });
  });

  describe("a folder for temporary files whose path is long", () => {
    it("doesn't keep anybody out", async () => {
      await sshd.start();
      const long = join(mkdtempSync(join(tmpdir(), "long-")), "x".repeat(85 - tmpdir().length));
      mkdirSync(long);
      const before = process.env.TMPDIR;
      process.env.TMPDIR = long;
      try {
        assert.match((await machine().read(directory("/"))).output, /^directory/);
        assert.deepEqual(readdirSync(long), []);
      } finally {
        if (before === undefined) delete process.env.TMPDIR;
        else process.env.TMPDIR = before;
        rmSync(join(long, ".."), { recursive: true });
      }
    });

    it("is passed over for the next that is short enough and may be written to", () => {
      assert.equal(socketFolder([`/${"x".repeat(90)}`, "", "relative", "/no/such", "/tmp"]), "/tmp");
      assert.throws(
        () => socketFolder([`/${"x".repeat(90)}`]),
        /TMPDIR \(.*\) is too long.*Set TMPDIR to a shorter one$/,
      );
    });
  });

  describe("a machine that can't be reached", () => {
    const urn = (name: string) => `urn:pulumi:s::p::host:index:Directory::${name}`;
    const look = (path: string, more: Record<string, unknown> = {}) => {
      const request = new ReadRequest();
      const state = { machine: "cht", path, mode: "0755", owner: "root", group: "root", ownsContents: false, ...more };
      request.setUrn(urn(path));
      request.setId(`cht:${path}`);
      request.setProperties(toStruct(state, []));
      request.setInputs(toStruct(state, []));
      return request;
    };

    it("is told once, with its cause; what else is on it adds no line, and the look fails", async () => {
      const down = machine({ port: await freePort() });
      const { read, check } = handlers(() => () => down);
      // What a survey came upon was told to nobody.
      const survey = new CheckRequest();
      survey.setUrn("urn:pulumi:s::p::host:index:RepositorySeal::x");
      survey.setNews(toStruct(SEAL, []));
      assert.deepEqual((await check(survey)).getFailuresList(), []);
      const looks = await Promise.allSettled(["/a", "/b", "/c", "/d"].map((path) => read(look(path))));
      const failed = looks.filter((each) => each.status === "rejected");
      assert.equal(failed.length, 1);
      assert.match(
        String(failed[0]?.reason),
        /^Error: cht \(127\.0\.0\.1\): can't be reached over SSH: nothing answers at port/,
      );
      for (const each of looks) {
        if (each.status === "fulfilled") assert.equal(properties(each.value.getInputs()).values.mode, "0755");
      }
      const later = await read(look("/e"));
      assert.equal(properties(later.getInputs()).values.path, "/e");
    });

    it("is told for each machine by itself", async () => {
      const one = machine({ port: await freePort() });
      const other = new Machine("server", sshd.settings({ port: await freePort() }));
      open.push(other);
      const { read } = handlers(() => (name) => (name === "cht" ? one : other));
      const looks = await Promise.allSettled(
        ["/a", "/b"].flatMap((path) => [read(look(path)), read(look(path, { machine: "server" }))]),
      );
      const failed = looks.flatMap((each) => (each.status === "rejected" ? [String(each.reason)] : []));
      assert.deepEqual(failed.map((words) => /^Error: (\w+) /.exec(words)?.[1]).sort(), ["cht", "server"]);
    });

    it("is the same error for whoever asks, so that it can be told once", async () => {
      const down = machine({ port: await freePort() });
      const caught = await Promise.all(
        ["/a", "/b"].map((path) =>
          down.read(directory(path)).then(
            () => assert.fail(),
            (error: unknown) => error,
          ),
        ),
      );
      assert.ok(caught[0] instanceof Unreachable);
      assert.equal(caught[0], caught[1]);
    });
  });

  it("leaves no connection behind", async () => {
    await sshd.start();
    const cht = machine();
    await cht.read(directory("/"));
    cht.close();
    const left = () => {
      const processes = execFileSync("ps", ["-eww", "-o", "args"], { encoding: "utf8" }).split("\n");
      return processes.filter((line) => line.includes("host-ssh-") && line.includes(`-p ${sshd.port} `));
    };
    assert.ok(await waitFor(async () => left().length === 0, 60_000), left().join("\n"));
  });
});
