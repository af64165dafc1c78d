"""Makes the lab's bucket where it is missing, as its owner would: make-bucket.py NAME MODE DAYS

Waits until the storage works. The bucket has versioning and object lock, which by default locks for DAYS in MODE.
"""

import contextlib
import json
import sys
import time

import boto3
import botocore.config
import botocore.exceptions

LIMIT = 60  # seconds

name, mode, days = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open("/etc/bucket/s3.json", encoding="utf-8") as file:
    identities = json.load(file)["identities"]
owner = next(of for of in identities if of["name"] == "owner")["credentials"][0]
s3 = boto3.client(
    "s3",
    endpoint_url="http://127.0.0.1:8333",
    region_name="us-east-1",
    aws_access_key_id=owner["accessKey"],
    aws_secret_access_key=owner["secretKey"],
    config=botocore.config.Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        retries={"total_max_attempts": 1},
        connect_timeout=2,
    ),
)


def works():
    # It answers before it can store.
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
        s3.create_bucket(Bucket="scratch")
    s3.put_object(Bucket="scratch", Key="works", Body=b"yes")


def make():
    if name in [of["Name"] for of in s3.list_buckets()["Buckets"]]:
        return
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)


deadline = time.monotonic() + LIMIT
while True:
    try:
        works()
        make()
        s3.put_object_lock_configuration(
            Bucket=name,
            ObjectLockConfiguration={
                "ObjectLockEnabled": "Enabled",
                "Rule": {"DefaultRetention": {"Mode": mode, "Days": days}},
            },
        )
        break
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        if time.monotonic() > deadline:
            sys.exit(f"the storage doesn't work: {error}")
        time.sleep(0.2)
