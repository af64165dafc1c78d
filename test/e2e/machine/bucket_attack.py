"""What root on the server can try against the bucket with the writer's key: bucket_attack.py SETTINGS

Prints {attempt: answer} as JSON. An answer is the bucket's own code, or `succeeded`. The versions attacked are those
of the newest finished copy.
"""

import datetime
import json
import sys

import boto3
import botocore.config
import botocore.exceptions
from chtbackup.bucket import access as bucket_access
from chtbackup.bucket import copies as bucket_copies
from chtbackup.bucket import credentials
from chtbackup.bucket import index as bucket_index
from chtbackup.bucket import plan as copy_plan

settings = copy_plan.read_settings(sys.argv[1])
there = bucket_access.connect(settings)
newest = bucket_copies.copies_in(there)[0]
index = bucket_index.unpack_index(b"".join(there.read(f"index/{newest.path}", newest.id)))
s3 = boto3.client(
    "s3",
    endpoint_url=settings["endpoint"],
    region_name=settings["region"],
    config=botocore.config.Config(
        s3={"addressing_style": "path"}, request_checksum_calculation="when_required", retries={"total_max_attempts": 1}
    ),
    **credentials.read_credentials(settings["credentials"]),
)
name, prefix = settings["bucket"], settings["prefix"]
segment = next(path for path in index.objects if path.startswith("data/"))
objects = {
    "a segment": (f"{prefix}repository/{segment}", index.objects[segment].version),
    "the index": (f"{prefix}index/{newest.path}", newest.id),
}
answers = {}


def attempt(what, operation, **arguments):
    try:
        getattr(s3, operation)(Bucket=name, **arguments)
        answers[what] = "succeeded"
    except botocore.exceptions.ClientError as error:
        answers[what] = error.response["Error"]["Code"]


def until(days):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)


for what, (key, version) in objects.items():
    at = {"Key": key, "VersionId": version}
    attempt(f"delete the version of {what}", "delete_object", **at)
    attempt(f"delete the version of {what}, past governance", "delete_object", **at, BypassGovernanceRetention=True)
    attempt(f"hide {what} by a delete marker", "delete_object", Key=key)
    for mode in ("COMPLIANCE", "GOVERNANCE"):
        shorter = {"Mode": mode, "RetainUntilDate": until(0.01)}
        attempt(f"shorten the lock of {what} ({mode})", "put_object_retention", **at, Retention=shorter)
attempt("suspend versioning", "put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"})
attempt(
    "shorten the default lock",
    "put_object_lock_configuration",
    ObjectLockConfiguration={
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
    },
)
attempt(
    "let everything expire",
    "put_bucket_lifecycle_configuration",
    LifecycleConfiguration={"Rules": [{"ID": "x", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}]},
)
everybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{name}/*"}
policy = json.dumps({"Version": "2012-10-17", "Statement": [everybody]})
attempt("open it to everybody", "put_bucket_policy", Policy=policy)
attempt("delete the bucket", "delete_bucket")
attempt("write elsewhere", "put_object", Key="elsewhere/x", Body=b"x")
attempt("write over a segment's name", "put_object", Key=objects["a segment"][0], Body=b"not a segment")
print(json.dumps(answers))
