"""Sets the default retention of the lab's bucket, with its owner's key: bucket_owner.py NAME MODE DAYS"""

import json
import sys

import boto3
import botocore.config

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
    config=botocore.config.Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
)
rule = {"DefaultRetention": {"Mode": mode, "Days": days}}
s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule})
