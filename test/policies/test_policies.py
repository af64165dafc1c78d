"""The documents of components/aws-policies.ts, tried on two servers: SeaweedFS evaluates conditions and a bucket's own
policy, moto's server evaluates IAM, for other services of AWS, too. What a server doesn't evaluate is said beside its
tests; the rules in test/unit/aws-policies.test.ts are about what neither does."""

import copy
import datetime
import json
import unittest

import botocore.exceptions
from servers import Metadata, Moto, StoreWithTls, documents

import parts
from parts import LOCK_DAYS, PREFIX

ACCOUNT = "123456789012"  # moto's
BUCKET, OTHER, MADE = "copy-moh", "copy-other", "copy-made"
ARN = f"arn:aws:s3:::{BUCKET}"
RIGHTS = {"bucketArn": ARN, "prefix": PREFIX}
WRITER = {**RIGHTS, "longestLockDays": LOCK_DAYS + 1}
WRITER_ARN, READER_ARN = (f"arn:aws:iam::{ACCOUNT}:user/cht-backup/moh/{name}" for name in ("writer", "reader"))
KEY = f"{PREFIX}repository/data/0/1"
ALLOWED = {"Sid": "x", "Effect": "Allow", "Action": "s3:*", "Resource": "*"}
ANYTHING = json.dumps({"Version": "2012-10-17", "Statement": [ALLOWED]})
IAM_ATTEMPTS = [
    ("make a user", "create_user", {"UserName": "x"}),
    ("make a key", "create_access_key", {"UserName": "writer"}),
    ("make a role", "create_role", {"RoleName": "x", "AssumeRolePolicyDocument": "{}"}),
    ("widen its rights", "put_user_policy", {"UserName": "writer", "PolicyName": "x", "PolicyDocument": ANYTHING}),
    ("list users", "list_users", {}),
]
EC2_ATTEMPTS = [
    ("list instances", "describe_instances", {}),
    ("make a volume", "create_volume", {"AvailabilityZone": "us-east-1a", "Size": 1}),
    ("end an instance", "terminate_instances", {"InstanceIds": ["i-0123456789abcdef0"]}),
]


def setUpModule():
    global rendered
    rendered = documents(
        writerPolicy=WRITER,
        readerPolicy=RIGHTS,
        deleterPolicy=RIGHTS,
        bucketPolicy={**WRITER, "account": ACCOUNT, "writerArn": WRITER_ARN, "readerArn": READER_ARN},
        instanceTrustPolicy={},
        operatorPolicy={
            "account": ACCOUNT,
            "deployment": "moh",
            "server": {"region": "us-east-1"},
            "bucket": {"name": MADE},
            "boundary": "cht-backup-boundary",
        },
        boundaryPolicy={"bucketArn": ARN},
        lifecycleRules={},
    )


def in_days(days):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)


class Filled:
    """What is in the buckets at first. A lock refuses things by itself, so there are versions with less of it, too,
    where only the lack of a right does. `own` are the names of the four."""

    def __init__(self, admin, own="1234"):
        admin.put_object(Bucket=BUCKET, Key="elsewhere/x", Body=b"x")
        admin.put_object(Bucket=OTHER, Key=KEY, Body=b"x")

        def put(name, **lock):
            key = {"Bucket": BUCKET, "Key": f"{PREFIX}repository/data/0/{name}"}
            return {**key, "VersionId": admin.put_object(**key, Body=b"x", **lock)["VersionId"]}

        until = in_days(LOCK_DAYS)
        self.locked = put(own[0], ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
        self.governed = put(own[1], ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until)
        self.free = put(own[2])
        large = {"Bucket": BUCKET, "Key": f"{PREFIX}repository/data/0/{own[3]}"}
        self.unfinished = {**large, "UploadId": admin.create_multipart_upload(**large)["UploadId"]}


def rights_of_writer(filled):
    """What the writer must be able to do: name, operation, arguments."""
    name, one = {"Bucket": BUCKET}, filled.locked
    longer = {"Mode": "COMPLIANCE", "RetainUntilDate": in_days(LOCK_DAYS + 0.5)}
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": in_days(LOCK_DAYS)}
    return [
        ("put", "put_object", {**name, "Key": f"{PREFIX}index/1", "Body": b"x"}),
        (
            "put with a lock of its own",
            "put_object",
            {**name, "Key": f"{PREFIX}repository/nonce", "Body": b"x", **lock},
        ),
        ("put in an infrequent class", "put_object", {**name, "Key": KEY, "Body": b"x", "StorageClass": "GLACIER_IR"}),
        ("put in parts", "create_multipart_upload", {**name, "Key": f"{PREFIX}large"}),
        ("remove parts of an upload that doesn't end", "abort_multipart_upload", filled.unfinished),
        ("get", "get_object", one),
        ("get the newest", "get_object", {**name, "Key": KEY}),
        ("see the lock", "head_object", one),
        ("list", "list_objects_v2", {**name, "Prefix": PREFIX}),
        ("list versions", "list_object_versions", {**name, "Prefix": f"{PREFIX}repository/"}),
        ("lengthen", "put_object_retention", {**one, "Retention": longer}),
        ("see versioning", "get_bucket_versioning", name),
        ("see the default lock", "get_object_lock_configuration", name),
        ("see public access", "get_public_access_block", name),
    ]


def attempts(filled):
    """What neither writer nor reader may do: name, operation, arguments."""
    name, key = {"Bucket": BUCKET}, {"Bucket": BUCKET, "Key": filled.free["Key"]}
    shorter = {"Mode": "GOVERNANCE", "RetainUntilDate": in_days(1)}
    weaker = {"Mode": "GOVERNANCE", "RetainUntilDate": in_days(LOCK_DAYS + 0.7)}
    default = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    expire = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"{ARN}/*"}
    open_ = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), False)
    replication = {
        "Role": f"arn:aws:iam::{ACCOUNT}:role/x",
        "Rules": [{"ID": "x", "Status": "Enabled", "Priority": 1, "Prefix": "", "Destination": {"Bucket": ARN}}],
    }
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]}
    return [
        ("delete a version", "delete_object", filled.free),
        ("delete a locked version", "delete_object", filled.locked),
        ("delete a version around its lock", "delete_object", {**filled.governed, "BypassGovernanceRetention": True}),
        ("hide a name", "delete_object", key),
        (
            "delete several",
            "delete_objects",
            {**name, "Delete": {"Objects": [{"Key": key["Key"], "VersionId": filled.free["VersionId"]}]}},
        ),
        ("shorten a lock", "put_object_retention", {**filled.governed, "Retention": shorter}),
        (
            "shorten a lock around it",
            "put_object_retention",
            {**filled.governed, "Retention": shorter, "BypassGovernanceRetention": True},
        ),
        ("weaken a lock", "put_object_retention", {**filled.locked, "Retention": weaker}),
        ("hold", "put_object_legal_hold", {**filled.free, "LegalHold": {"Status": "ON"}}),
        ("expire", "put_bucket_lifecycle_configuration", {**name, "LifecycleConfiguration": {"Rules": [expire]}}),
        ("expire nothing", "delete_bucket_lifecycle", name),
        ("end versioning", "put_bucket_versioning", {**name, "VersioningConfiguration": {"Status": "Suspended"}}),
        ("shorten the default lock", "put_object_lock_configuration", {**name, "ObjectLockConfiguration": default}),
        (
            "let everybody in",
            "put_bucket_policy",
            {**name, "Policy": json.dumps({"Version": "2012-10-17", "Statement": [everybody]})},
        ),
        ("remove the bucket's policy", "delete_bucket_policy", name),
        ("publish an object", "put_object_acl", {**key, "ACL": "public-read"}),
        ("publish the bucket", "put_bucket_acl", {**name, "ACL": "public-read"}),
        ("allow publishing", "put_public_access_block", {**name, "PublicAccessBlockConfiguration": open_}),
        ("allow publishing otherwise", "delete_public_access_block", name),
        ("replicate", "put_bucket_replication", {**name, "ReplicationConfiguration": replication}),
        ("encrypt otherwise", "put_bucket_encryption", {**name, "ServerSideEncryptionConfiguration": encryption}),
        ("tag", "put_object_tagging", {**key, "Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}}),
        ("remove the bucket", "delete_bucket", name),
        ("make a bucket", "create_bucket", {"Bucket": "copy-new"}),
        ("put elsewhere", "put_object", {**name, "Key": "elsewhere/x", "Body": b"x"}),
        ("get from elsewhere", "get_object", {**name, "Key": "elsewhere/x"}),
        ("list elsewhere", "list_objects_v2", {**name, "Prefix": "elsewhere/"}),
        ("list everything", "list_objects_v2", name),
        ("list all versions", "list_object_versions", name),
        ("put into another bucket", "put_object", {"Bucket": OTHER, "Key": KEY, "Body": b"x"}),
        ("get from another bucket", "get_object", {"Bucket": OTHER, "Key": KEY}),
        ("list another bucket", "list_objects_v2", {"Bucket": OTHER, "Prefix": PREFIX}),
    ]


def archived():
    """What the conditions in the writer's policy refuse."""
    new = {"Bucket": BUCKET, "Key": KEY, "Body": b"x"}
    return [
        ("archive", "put_object", {**new, "StorageClass": "DEEP_ARCHIVE"}),
        ("encrypt", "put_object", {**new, "SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32}),
    ]


def rights_of_reader(filled):
    """What the reader must be able to do."""
    reading = ("get", "list", "get the newest", "list versions", "see the lock")
    return [of for of in rights_of_writer(filled) if of[0] in reading]


def writing(filled):
    """What the writer may do and the reader may not."""
    return [of for of in rights_of_writer(filled) if of[1].startswith(("put_", "create_", "abort_"))]


def rights_of_deleter(filled):
    """What whoever removes old copies must be able to do: one version of a file, after a look at its lock."""
    return [
        ("see the lock's end", "get_object_retention", filled.locked),
        ("delete a version", "delete_object", filled.free),
    ]


def beyond_the_deleter(filled):
    """What whoever removes old copies may not, `filled.free` gone by now: the other attempts, reading and writing."""
    program = {"Bucket": BUCKET, "Key": f"{PREFIX}recover-0123456789ab.pyz", "VersionId": "null"}
    others = [of for of in rights_of_writer(filled) if of[0] != "see the lock"]
    gone = ("delete a version", "delete several", "hold", "publish an object", "tag")
    tried = [of for of in attempts(filled) if of[0] not in gone]
    return [*tried, *others, ("delete what isn't of a copy", "delete_object", program)]


def inside(tried):
    """What concerns the bucket, whose policy has no power over others."""
    return [of for of in tried if of[2]["Bucket"] == BUCKET]


def code_of(client, operation, arguments):
    """The answer's error code, None where it was done."""
    try:
        done = getattr(client, operation)(**arguments)
    except botocore.exceptions.ClientError as error:
        # An answer to HEAD has no content, and so no code but the number.
        return {"403": "AccessDenied"}.get(error.response["Error"]["Code"], error.response["Error"]["Code"])
    # A request for several objects has an answer for each.
    return done["Errors"][0]["Code"] if done.get("Errors") else None


class Case(unittest.TestCase):
    def all_done(self, client, wanted, done=(None,)):
        for name, operation, arguments in wanted:
            with self.subTest(name):
                self.assertIn(code_of(client, operation, arguments), done)

    def all_refused(self, client, tried, denied=("AccessDenied",)):
        for name, operation, arguments in tried:
            with self.subTest(name):
                self.assertIn(code_of(client, operation, arguments), denied)


# ---- SeaweedFS ------------------------------------------------------------------------------------------

# The names of the rights that are tried here. SeaweedFS takes no NotAction in a bucket's policy, so what is meant by it
# is listed.
ACTIONS = [
    "AbortMultipartUpload", "BypassGovernanceRetention", "CreateBucket", "DeleteBucket", "DeleteBucketPolicy",
    "DeleteObject", "DeleteObjectVersion", "GetBucketObjectLockConfiguration", "GetBucketPublicAccessBlock",
    "GetBucketVersioning", "GetObject", "GetObjectRetention", "GetObjectVersion", "ListBucket", "ListBucketVersions",
    "PutBucketAcl", "PutBucketObjectLockConfiguration", "PutBucketPolicy", "PutBucketPublicAccessBlock",
    "PutBucketVersioning", "PutEncryptionConfiguration", "PutLifecycleConfiguration", "PutObject", "PutObjectAcl",
    "PutObjectLegalHold", "PutObjectRetention", "PutObjectTagging", "PutReplicationConfiguration",
]  # fmt: skip


def for_seaweedfs(policy, names):
    """The bucket's policy as SeaweedFS understands it: users by name, as they have no ARN there, and no NotAction."""
    policy = copy.deepcopy(policy)
    for statement in policy["Statement"]:
        if "NotAction" in statement:
            left = set(statement.pop("NotAction"))
            statement["Action"] = [f"s3:{name}" for name in ACTIONS if f"s3:{name}" not in left]
        of = statement.get("Condition", {}).pop("ArnEquals", None)
        if of is not None:
            statement["Condition"]["StringEquals"] = {
                **statement["Condition"].get("StringEquals", {}),
                "aws:username": names[of["aws:PrincipalArn"]],
            }
    return policy


class OnSeaweedFS(Case):
    """It has no key for how long a lock would last (s3:object-lock-remaining-retention-days), nor other accounts."""

    @classmethod
    def setUpClass(cls):
        names = ("writer", "reader", "deleter")
        cls.store = StoreWithTls({name: json.dumps(rendered[f"{name}Policy"]) for name in names})
        cls.addClassCleanup(cls.store.stop)
        for name in (BUCKET, OTHER):
            cls.store.make_bucket(name, default=None)
        cls.filled, cls.to_delete = Filled(cls.store.admin), Filled(cls.store.admin, own="5678")
        default = {
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": LOCK_DAYS}},
        }
        cls.store.admin.put_object_lock_configuration(Bucket=BUCKET, ObjectLockConfiguration=default)

    def protect(self, tls=False, **names):
        """Give the bucket its policy until the test ends, with somebody else's name for `writer` or `reader`."""
        users = {WRITER_ARN: names.get("writer", "writer"), READER_ARN: names.get("reader", "reader")}
        policy = for_seaweedfs(rendered["bucketPolicy"], users)
        if not tls:
            policy["Statement"] = [of for of in policy["Statement"] if of["Sid"] != "NothingWithoutTls"]
        admin = self.store.client("admin", self.store.secure)
        admin.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
        self.addCleanup(admin.delete_bucket_policy, Bucket=BUCKET)

    def all_done(self, client, wanted):
        # It has no switches for public access, and says so to whoever may ask.
        super().all_done(client, wanted, (None, "NotImplemented"))

    def test_the_writer_may_put_get_list_and_lengthen(self):
        self.all_done(self.store.client("writer"), rights_of_writer(self.filled))

    def test_the_writer_may_nothing_else(self):
        self.all_refused(self.store.client("writer"), attempts(self.filled) + archived())

    def test_the_reader_may_get_and_list(self):
        self.all_done(self.store.client("reader"), rights_of_reader(self.filled))

    def test_the_reader_may_nothing_else(self):
        self.all_refused(self.store.client("reader"), attempts(self.filled) + writing(self.filled))

    def test_whoever_removes_old_copies_may_remove_a_version_that_no_lock_keeps_and_nothing_else(self):
        self.all_done(self.store.client("deleter"), rights_of_deleter(self.to_delete))
        self.all_refused(self.store.client("deleter"), beyond_the_deleter(self.to_delete))

    def test_the_buckets_policy_takes_nothing_from_writer_and_reader(self):
        self.protect()
        self.all_done(self.store.client("writer"), rights_of_writer(self.filled))
        self.all_done(self.store.client("reader"), rights_of_reader(self.filled))

    def test_the_buckets_policy_keeps_a_writer_to_its_rights_who_was_given_all_others(self):
        self.assertIsNone(code_of(self.store.client("intruder"), *archived()[0][1:]))
        self.protect(writer="intruder")
        self.all_done(self.store.client("intruder"), rights_of_writer(self.filled))
        self.all_refused(self.store.client("intruder"), inside(attempts(self.filled)) + archived())

    def test_the_buckets_policy_keeps_a_reader_to_its_rights_who_was_given_all_others(self):
        self.protect(reader="intruder")
        self.all_done(self.store.client("intruder"), rights_of_reader(self.filled))
        self.all_refused(self.store.client("intruder"), inside(attempts(self.filled)) + writing(self.filled))

    def test_nobody_gets_around_a_lock_in_governance_mode(self):
        lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": in_days(2)}
        put = {"Bucket": BUCKET, "Key": "elsewhere/locked", "Body": b"x", **lock}
        around = {"Bucket": BUCKET, "Key": "elsewhere/locked", "BypassGovernanceRetention": True}
        somebody = self.store.client("intruder")
        versions = [self.store.admin.put_object(**put)["VersionId"] for _ in range(2)]
        self.assertIsNone(code_of(somebody, "delete_object", {**around, "VersionId": versions[0]}))
        self.protect()
        self.assertEqual(code_of(somebody, "delete_object", {**around, "VersionId": versions[1]}), "AccessDenied")

    def test_nobody_is_answered_without_tls(self):
        self.protect(tls=True)
        for name in ("writer", "reader", "intruder"):
            self.all_refused(self.store.client(name), rights_of_reader(self.filled))
            self.all_done(self.store.client(name, self.store.secure), rights_of_reader(self.filled))

    def test_a_copy_is_made_checked_and_restored_with_these_rights_alone(self):
        self.protect()
        deployment = parts.Deployment(self.store, BUCKET)
        self.addCleanup(deployment.remove)
        content = deployment.backup("first", 3)
        for action in ("copy", "check"):
            done = deployment.run(action)
            self.assertIsNotNone(done.report, done)
            self.assertEqual((done.code, done.report["problems"]), (0, []), done)
        self.assertEqual(deployment.restore("first"), content)


# ---- moto -----------------------------------------------------------------------------------------------

# Calls that moto takes for others, which the writer may do; nor does it refuse to shorten a lock.
NOT_BY_MOTO = {
    "shorten a lock", "shorten a lock around it", "weaken a lock", "hold", "list elsewhere", "list everything",
    "list all versions",
}  # fmt: skip
EVERYTHING = "arn:aws:iam::aws:policy/AdministratorAccess"


def in_s3s_spelling(of):
    if not isinstance(of, dict):
        return of
    return {"ID" if name == "id" else name[0].upper() + name[1:]: in_s3s_spelling(it) for name, it in of.items()}


def for_moto(policy):
    """A policy as moto understands it: it takes every condition for met, and so would always refuse what is refused
    under one."""
    left = [of for of in policy["Statement"] if of["Effect"] == "Allow" or "Condition" not in of]
    return {**policy, "Statement": left}


def seen_by_moto(tried):
    return [of for of in tried if of[0] not in NOT_BY_MOTO]


class OnMoto(Case):
    @classmethod
    def setUpClass(cls):
        cls.moto = Moto()
        cls.addClassCleanup(cls.moto.stop)

    def setUp(self):
        self.moto.forget()
        for name in (BUCKET, OTHER):
            self.moto.make_bucket(name)
        self.filled = Filled(self.moto.client("s3"))

    def test_the_writer_may_put_get_list_and_lengthen_and_nothing_else(self):
        key = self.moto.make_user("writer", for_moto(rendered["writerPolicy"]))
        self.moto.enforce()
        self.all_done(self.moto.client("s3", key), rights_of_writer(self.filled))
        self.all_refused(self.moto.client("s3", key), seen_by_moto(attempts(self.filled)))
        self.all_refused(self.moto.client("iam", key), IAM_ATTEMPTS)
        self.all_refused(self.moto.client("ec2", key), EC2_ATTEMPTS, ["UnauthorizedOperation", "AccessDenied"])

    def test_the_buckets_policy_keeps_a_writer_to_its_rights_who_was_given_all_others(self):
        # moto doesn't look at a bucket's policy, so what it refuses to the writer is taken for the writer's own.
        (refused,) = (of for of in rendered["bucketPolicy"]["Statement"] if of["Sid"] == "WriterNothingElse")
        refused = {name: of for name, of in refused.items() if name not in ("Principal", "Condition")}
        both = {"Version": "2012-10-17", "Statement": [ALLOWED, refused]}
        key = self.moto.make_user("writer", both)
        self.moto.enforce()
        self.all_done(self.moto.client("s3", key), rights_of_writer(self.filled))
        elsewhere = [of for of in attempts(self.filled) if "elsewhere" in of[0]]
        tried = [of for of in inside(seen_by_moto(attempts(self.filled))) if of not in elsewhere]
        self.all_refused(self.moto.client("s3", key), tried)

    def test_the_reader_may_get_and_list_and_nothing_else(self):
        key = self.moto.make_user("reader", rendered["readerPolicy"])
        self.moto.enforce()
        self.all_done(self.moto.client("s3", key), rights_of_reader(self.filled))
        self.all_refused(self.moto.client("s3", key), seen_by_moto(attempts(self.filled)) + writing(self.filled))
        self.all_refused(self.moto.client("iam", key), IAM_ATTEMPTS)
        self.all_refused(self.moto.client("ec2", key), EC2_ATTEMPTS, ["UnauthorizedOperation", "AccessDenied"])

    def test_whoever_removes_old_copies_may_remove_a_version_that_no_lock_keeps_and_nothing_else(self):
        key = self.moto.make_user("deleter", for_moto(rendered["deleterPolicy"]))
        self.moto.enforce()
        # It takes a look at a lock for one at the object, and lets everybody around a lock.
        (_look, delete), beyond = rights_of_deleter(self.filled), seen_by_moto(beyond_the_deleter(self.filled))
        self.all_done(self.moto.client("s3", key), [delete])
        tried = [of for of in beyond if not of[2].get("BypassGovernanceRetention")]
        self.all_refused(self.moto.client("s3", key), tried)
        self.all_refused(self.moto.client("iam", key), IAM_ATTEMPTS)
        self.all_refused(self.moto.client("ec2", key), EC2_ATTEMPTS, ["UnauthorizedOperation", "AccessDenied"])

    def boundary(self):
        # moto knows no NotResource.
        policy = for_moto(rendered["boundaryPolicy"])
        return {**policy, "Statement": [of for of in policy["Statement"] if "NotResource" not in of]}

    def test_nobody_under_the_boundary_may_more_whatever_rights_he_is_given(self):
        # moto doesn't look at boundaries, so what one refuses is taken for the user's own.
        refused = [of for of in self.boundary()["Statement"] if of["Effect"] == "Deny"]
        given = {"Sid": "x", "Effect": "Allow", "Action": "*", "Resource": "*"}
        key = self.moto.make_user("thief", {"Version": "2012-10-17", "Statement": [given, *refused]})
        self.moto.enforce()
        self.all_done(self.moto.client("s3", key), rights_of_writer(self.filled))
        elsewhere = [of for of in attempts(self.filled) if "elsewhere" in of[0]]
        tried = [of for of in inside(seen_by_moto(attempts(self.filled))) if of not in elsewhere]
        self.all_refused(self.moto.client("s3", key), tried)
        self.all_refused(self.moto.client("iam", key), IAM_ATTEMPTS)
        self.all_refused(self.moto.client("ec2", key), EC2_ATTEMPTS, ["UnauthorizedOperation", "AccessDenied"])

    def test_the_boundary_leaves_writer_and_reader_their_rights_and_gives_nobody_more(self):
        key = self.moto.make_user("bounded", self.boundary())
        self.moto.enforce()
        self.all_done(self.moto.client("s3", key), rights_of_writer(self.filled) + rights_of_reader(self.filled))
        elsewhere = [of for of in attempts(self.filled) if "elsewhere" in of[0]]
        tried = [of for of in seen_by_moto(attempts(self.filled)) if of not in elsewhere]
        self.all_refused(self.moto.client("s3", key), tried)
        self.all_refused(self.moto.client("iam", key), IAM_ATTEMPTS)
        self.all_refused(self.moto.client("ec2", key), EC2_ATTEMPTS, ["UnauthorizedOperation", "AccessDenied"])

    def test_the_servers_role_makes_and_checks_a_copy_without_any_key_on_the_server(self):
        # It takes no default for a bucket that isn't empty.
        self.moto.forget()
        self.moto.make_bucket(BUCKET, LOCK_DAYS)
        role = self.moto.make_role("writer", rendered["instanceTrustPolicy"], for_moto(rendered["writerPolicy"]))
        self.moto.enforce()
        metadata = Metadata(role)
        self.addCleanup(metadata.stop)
        deployment = parts.Deployment(self.moto, BUCKET)
        self.addCleanup(deployment.remove)
        (deployment.folder / "credentials").unlink()
        deployment.set(credentials=None)
        deployment.backup("first", 3)
        for action in ("copy", "check"):
            done = deployment.run(action)
            self.assertIsNotNone(done.report, done)
            self.assertEqual((done.code, done.report["problems"]), (0, []), done)
        self.assertTrue(any("Botocore" in agent for agent in metadata.served), metadata.served)

    def test_the_operator_makes_server_bucket_and_users_and_removes_nothing_that_holds_data(self):
        # moto knows the resource of hardly any call but those to S3.
        anywhere = copy.deepcopy(rendered["operatorPolicy"])
        for statement in anywhere["Statement"]:
            if not statement["Action"][0].startswith("s3:"):
                statement["Resource"] = "*"
        key = self.moto.make_user("operator", anywhere)
        self.moto.enforce()
        ec2, iam, s3, ssm = (self.moto.client(service, key) for service in ("ec2", "iam", "s3", "ssm"))

        tags = [{"Key": "cht-backup:deployment", "Value": "moh"}]
        vpc = ec2.create_vpc(CidrBlock="10.83.0.0/24", AmazonProvidedIpv6CidrBlock=True)["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.83.0.0/24")["Subnet"]["SubnetId"]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        routes = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=routes, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        joined = ec2.associate_route_table(RouteTableId=routes, SubnetId=subnet)["AssociationId"]
        group = ec2.create_security_group(VpcId=vpc, GroupName="server", Description="x")["GroupId"]
        ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh])
        volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=100, VolumeType="gp3", Encrypted=True)[
            "VolumeId"
        ]
        ec2.create_tags(Resources=[volume], Tags=tags)
        path, trust = "/cht-backup/moh/", json.dumps(rendered["instanceTrustPolicy"])
        boundary = {"PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/cht-backup-boundary"}
        iam.create_role(RoleName="server", Path=path, AssumeRolePolicyDocument=trust, **boundary)
        writing = json.dumps(rendered["writerPolicy"])
        iam.put_role_policy(RoleName="server", PolicyName="writer", PolicyDocument=writing)
        iam.create_instance_profile(InstanceProfileName="server", Path=path)
        iam.add_role_to_instance_profile(InstanceProfileName="server", RoleName="server")
        image = ec2.describe_images()["Images"][0]["ImageId"]
        instance = ec2.run_instances(
            ImageId=image, MinCount=1, MaxCount=1, InstanceType="t4g.small", SubnetId=subnet,
            SecurityGroupIds=[group], IamInstanceProfile={"Name": "server"}, MetadataOptions={"HttpTokens": "required"},
        )["Instances"][0]["InstanceId"]  # fmt: skip
        (system,) = ec2.describe_instances()["Reservations"][0]["Instances"][0]["BlockDeviceMappings"]
        ec2.create_tags(Resources=[system["Ebs"]["VolumeId"]], Tags=tags)
        (interface,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface["NetworkInterfaceId"], Groups=[group])
        ec2.attach_volume(InstanceId=instance, VolumeId=volume, Device="/dev/sdf")
        address = ec2.allocate_address(Domain="vpc")["AllocationId"]
        associated = ec2.associate_address(AllocationId=address, InstanceId=instance)["AssociationId"]
        # There are no such parameters, which only whoever may ask is told.
        asked = ("debian/release/13/latest/arm64", "canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3")
        for name in asked:
            self.assertEqual(code_of(ssm, "get_parameter", {"Name": f"/aws/service/{name}"}), "ParameterNotFound")
        iam.create_user(UserName="reader", Path=path, **boundary)
        iam.put_user_policy(UserName="reader", PolicyName="x", PolicyDocument=json.dumps(rendered["readerPolicy"]))
        iam.create_access_key(UserName="reader")
        self.make_bucket_as_the_stack_does(s3)

        one = {"Bucket": MADE, "Key": KEY}
        refusals = {
            ec2: [
                ("remove the volume", "delete_volume", {"VolumeId": volume}),
                ("make a key pair", "create_key_pair", {"KeyName": "x"}),
                ("copy the volume", "create_snapshot", {"VolumeId": volume}),
            ],
            iam: [
                ("attach a policy", "attach_user_policy", {"UserName": "reader", "PolicyArn": EVERYTHING}),
                ("attach a policy to a role", "attach_role_policy", {"RoleName": "server", "PolicyArn": EVERYTHING}),
                ("make a policy", "create_policy", {"PolicyName": "x", "PolicyDocument": ANYTHING}),
                ("make a login", "create_login_profile", {"UserName": "reader", "Password": "Correct-horse-1"}),
                ("make a group", "create_group", {"GroupName": "x"}),
                ("remove the boundary", "delete_role_permissions_boundary", {"RoleName": "server"}),
                ("list users", "list_users", {}),
            ],
            s3: [
                ("remove the bucket", "delete_bucket", {"Bucket": MADE}),
                ("remove its policy", "delete_bucket_policy", {"Bucket": MADE}),
                ("remove a version", "delete_object", {**one, "VersionId": "x"}),
                ("hide a name", "delete_object", one),
                ("get", "get_object", one),
                ("put", "put_object", {**one, "Body": b"x"}),
                ("make another bucket", "create_bucket", {"Bucket": "copy-new"}),
                ("list another bucket", "list_objects_v2", {"Bucket": OTHER}),
            ],
            ssm: [("read another parameter", "put_parameter", {"Name": "x", "Value": "x", "Type": "String"})],
        }
        for client, tried in refusals.items():
            self.all_refused(client, tried, ("AccessDenied", "UnauthorizedOperation"))

        ec2.detach_volume(InstanceId=instance, VolumeId=volume)
        ec2.disassociate_address(AssociationId=associated)
        ec2.release_address(AllocationId=address)
        ec2.terminate_instances(InstanceIds=[instance])
        ec2.delete_security_group(GroupId=group)
        ec2.disassociate_route_table(AssociationId=joined)
        ec2.delete_route_table(RouteTableId=routes)
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        ec2.delete_internet_gateway(InternetGatewayId=gateway)
        ec2.delete_subnet(SubnetId=subnet)
        ec2.delete_vpc(VpcId=vpc)
        iam.remove_role_from_instance_profile(InstanceProfileName="server", RoleName="server")
        iam.delete_instance_profile(InstanceProfileName="server")
        iam.delete_role_policy(RoleName="server", PolicyName="writer")
        iam.delete_role(RoleName="server")

    def make_bucket_as_the_stack_does(self, s3):
        name = {"Bucket": MADE}
        s3.create_bucket(**name, ObjectLockEnabledForBucket=True)
        s3.put_bucket_versioning(**name, VersioningConfiguration={"Status": "Enabled"})
        default = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 30}}}
        s3.put_object_lock_configuration(**name, ObjectLockConfiguration=default)
        aes = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        s3.put_bucket_encryption(**name, ServerSideEncryptionConfiguration={"Rules": [aes]})
        s3.put_bucket_ownership_controls(
            **name, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        )
        s3.put_bucket_policy(**name, Policy=json.dumps(rendered["bucketPolicy"]).replace(BUCKET, MADE))
        s3.get_bucket_policy(**name)
        rules = [in_s3s_spelling(of) for of in rendered["lifecycleRules"]]
        s3.put_bucket_lifecycle_configuration(**name, LifecycleConfiguration={"Rules": rules})
        s3.list_objects_v2(**name)

    def test_the_operator_changes_roles_of_its_deployment_alone(self):
        key = self.moto.make_user("operator", rendered["operatorPolicy"])
        iam = self.moto.client("iam")
        paths = {"ours": "/cht-backup/moh/", "another": "/cht-backup/other/", "somebody": "/"}
        for name, path in paths.items():
            iam.create_role(
                RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps(rendered["instanceTrustPolicy"])
            )
        self.moto.enforce()
        iam = self.moto.client("iam", key)
        for name in paths:
            given = {"RoleName": name, "PolicyName": "x", "PolicyDocument": ANYTHING}
            self.assertEqual(code_of(iam, "put_role_policy", given), None if name == "ours" else "AccessDenied", name)


if __name__ == "__main__":
    unittest.main()
