import assert from "node:assert/strict";
import { withMade } from "../../../config";
import { aws, machines, made, madeBucket, mistakes, operatorKey, read, wrongSettings } from "./settings";

wrongSettings([
  [
    "a region that doesn't exist",
    made({ region: "eu-west1" }),
    /^cht-backup:server.aws.region: found "eu-west1", which is no region of AWS; the nearest: eu-west-1/,
  ],
  [
    "a zone for a region",
    made({ region: "eu-west-1a" }),
    /^cht-backup:server.aws.region: found "eu-west-1a", which is an availability zone; its region is eu-west-1$/,
  ],
  [
    "a zone of another region",
    made({ availabilityZone: "us-east-1a" }),
    /^cht-backup:server.aws.availabilityZone: found "us-east-1a" in the region eu-west-1; must be one of that region/,
  ],
  [
    "no key of an operator",
    made({ operatorKeys: undefined }),
    /^cht-backup:server.aws.operatorKeys: missing; must be a list of public keys/,
  ],
  [
    "an operator's key that was cut",
    made({ operatorKeys: [operatorKey.slice(0, -4)] }),
    /^cht-backup:server.aws.operatorKeys\[0\]: found "ssh-ed25519 [^"]*"; must be a public key/,
  ],
  [
    "SSH for everybody",
    made({ operatorNetworks: ["0.0.0.0/0"] }),
    /^cht-backup:server.aws.operatorNetworks\[0\]: found "0\.0\.0\.0\/0"; must be a network in CIDR notation/,
  ],
  [
    "an address for a network",
    made({ operatorNetworks: ["203.0.113.7"] }),
    /^cht-backup:server.aws.operatorNetworks\[0\]: found "203\.0\.113\.7"; must be a network/,
  ],
  [
    "nothing that says where the CHT machine sends from",
    made({ chtNetworks: undefined }),
    /^cht-backup:server.aws.chtNetworks: missing, and host:machines.cht.address is no IP address; must be a list/,
  ],
  [
    "an address of a server that the stack makes",
    made({}, { "host:machines": machines }),
    /^host:machines.server.address: found "backup.example.org" with cht-backup:server.aws; must be left out/,
  ],
  [
    "a drill by the Docker plugin on a server that the stack makes",
    made({}, { "cht-backup:drill": { machine: "server", couchdbImage: `c@sha256:${"0".repeat(64)}` } }),
    /^cht-backup:drill.manageDocker: must be false for the machine server with cht-backup:server.aws/,
  ],
  [
    "another volume than AWS has",
    made({ volumeId: "/dev/sdf" }),
    /^cht-backup:server.aws.volumeId: found "\/dev\/sdf"; must be `vol-` and its id/,
  ],
  [
    "a bucket that is made nowhere",
    madeBucket({ region: undefined }),
    /^cht-backup:bucket.region: missing with aws; must be a region of AWS, for instance eu-west-1/,
  ],
  [
    "a bucket in a region that doesn't exist",
    madeBucket({ region: "europe" }),
    /^cht-backup:bucket.region: found "europe", which is no region of AWS/,
  ],
  [
    "a bucket elsewhere that AWS would make",
    madeBucket({ endpoint: "https://s3.example.org" }),
    /^cht-backup:bucket.endpoint: found "https:\/\/s3.example.org" with aws; must be left out/,
  ],
  [
    "a key for a bucket that the stack makes",
    madeBucket({ accessKeyId: "WRITER" }),
    /^cht-backup:bucket.accessKeyId: found a value that isn't shown with aws; must be left out/,
  ],
  [
    "a name with dots for a bucket at AWS",
    madeBucket({ name: "moh.backup.copy" }),
    /^cht-backup:bucket.name: found "moh.backup.copy" with aws; must have no dots there/,
  ],
  [
    "a zone beside a subnet",
    made({
      availabilityZone: "eu-west-1b",
      vpc: { id: "vpc-0123456789abcdef0", subnetId: "subnet-0123456789abcdef0" },
    }),
    /^cht-backup:server.aws.availabilityZone: found "eu-west-1b" with vpc; must be left out/,
  ],
  [
    "an address of the office's own network",
    made({ chtNetworks: ["192.168.1.20/32"] }),
    /^cht-backup:server.aws.chtNetworks: found "192.168.1.20\/32", which no server on the internet ever sees; must be /,
  ],
  [
    "a CHT machine that is reached inside a network, and nothing that says what the internet sees",
    made({ chtNetworks: undefined }, { "host:machines": { cht: { address: "10.0.0.5" } } }),
    /^cht-backup:server.aws.chtNetworks: found "10.0.0.5\/32", which no server on the internet ever sees/,
  ],
  [
    "operators that come by IPv6 alone",
    made({ operatorNetworks: ["2001:db8::/48"] }),
    /^cht-backup:server.aws.operatorNetworks: found networks of IPv6 alone; must have one of IPv4, too/,
  ],
  [
    "a region of another partition",
    made({ region: "cn-north-1" }),
    /^cht-backup:server.aws.region: found "cn-north-1", which isn't in AWS' public partition/,
  ],
  [
    "a tag of AWS' own",
    made({ tags: { "aws:x": "y" } }),
    /^cht-backup:server.aws.tags.aws:x: the name must be 1 to 128 letters/,
  ],
  [
    "a tag whose value IAM refuses, for a server",
    made({ tags: { owner: "Ministry of Health (Kenya)" } }),
    /^cht-backup:server.aws.tags.owner: found "Ministry of Health \(Kenya\)"; must be at most 256 letters, digits, spaces and/,
  ],
  [
    "tags that are one to IAM",
    made({ tags: { owner: "moh", Owner: "cht" } }),
    /^cht-backup:server.aws.tags: has the names owner and Owner, which are the same to IAM; must have one$/,
  ],
  [
    "a tag that is the stack's own to IAM",
    made({ tags: { name: "moh" } }),
    /^cht-backup:server.aws.tags: has the names Name and name, which are the same to IAM/,
  ],
  [
    "more tags than AWS takes",
    made({ tags: Object.fromEntries(Array.from({ length: 49 }, (_, index) => [`tag${index}`, ""])) }),
    /^cht-backup:server.aws.tags: found 49 tags; must be 48 at most/,
  ],
]);

describe("settings", () => {
  it("take what IAM takes as a tag's value", () => {
    const tags = { owner: "Wizara ya Afya", place: "Région de Dakar" };
    assert.deepEqual(mistakes(made({ tags: { ...tags, empty: "", mail: "a_b@c.org:1/2=3+4-5" } })), []);
  });

  it("turn networks into the form in which AWS reads them back", () => {
    const operatorNetworks = ["2001:DB8:7:0:0:0:0:0/48", "203.0.113.7/032", "2001:db8:0:0:1:0:0:1/128"];
    const chtNetworks = ["2001:DB8::9/128", "203.0.113.9/32"];
    const { aws } = read(made({ operatorNetworks: [...operatorNetworks, "198.51.100.0/24"], chtNetworks })).server;
    assert.deepEqual(aws?.operatorNetworks, [
      "2001:db8:7::/48",
      "203.0.113.7/32",
      "2001:db8::1:0:0:1/128",
      "198.51.100.0/24",
    ]);
    assert.deepEqual(aws?.chtNetworks, ["2001:db8::9/128", "203.0.113.9/32"]);
  });
});

describe("settings of a stack that makes its server", () => {
  it("need a region, keys and networks; the machine is logged in to as the one that its first boot makes", () => {
    const { region, operatorKeys, operatorNetworks } = aws;
    const settings = read({
      "host:machines": { cht: { address: "198.51.100.20" }, server: { identityFile: "~/.ssh/backup" } },
      "cht-backup:server": { aws: { region, operatorKeys, operatorNetworks } },
    });
    assert.deepEqual(settings.server.aws, {
      ...{ region, operatorKeys, operatorNetworks },
      chtNetworks: ["198.51.100.20/32"],
      instanceType: "t4g.small",
      image: "debian-13",
      dataGibibytes: 100,
      tags: {},
    });
    const { server } = settings.machines;
    assert.deepEqual(server, { user: "cht-admin", sudo: true, identityFile: "~/.ssh/backup" });
    assert.deepEqual([settings.server.address, settings.server.port], [undefined, 22]);
  });

  it("are completed by what the stack has made, where nothing else is said", () => {
    const reader = { accessKeyId: "READER", secretAccessKey: "hunter2/reader" };
    const before = read({ ...made({}), ...madeBucket({}) }, ["cht-backup:bucket"]);
    const after = withMade(before, { serverAddress: "192.0.2.9", bucketReader: reader });
    assert.equal(after.machines.server.address, "192.0.2.9");
    assert.equal(after.server.address, "192.0.2.9");
    assert.deepEqual(after.bucket?.reader, reader);
    const own = { "cht-backup:server": { address: "10.0.0.2", aws } };
    assert.equal(withMade(read({ ...made({}), ...own }), { serverAddress: "192.0.2.9" }).server.address, "10.0.0.2");
    const existing = read({});
    assert.deepEqual(withMade(existing, {}), existing);
  });
});
