"""Prepares AWS as a stack's state needs it: prepare.py ENDPOINT BUCKET ALIAS USER...

A policy for each user comes by standard input, as a JSON list. Prints the users' access keys, then has the server ask
everybody for his rights.
"""

import json
import sys
import urllib.request

import boto3

endpoint, bucket, alias, *users = sys.argv[1:]


def client(service):
    keys = {"aws_access_key_id": "root", "aws_secret_access_key": "root"}
    return boto3.client(service, endpoint_url=endpoint, region_name="eu-west-1", **keys)


location = {"LocationConstraint": "eu-west-1"}
client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration=location)
key = client("kms").create_key()["KeyMetadata"]
client("kms").create_alias(AliasName=alias, TargetKeyId=key["KeyId"])
iam = client("iam")
made = []
for user, policy in zip(users, json.load(sys.stdin), strict=True):
    iam.create_user(UserName=user)
    iam.put_user_policy(UserName=user, PolicyName="state", PolicyDocument=json.dumps(policy))
    made.append(iam.create_access_key(UserName=user)["AccessKey"])
kind = {"Content-Type": "text/plain"}
ask = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=b"0", headers=kind)
urllib.request.urlopen(ask, timeout=10).close()
print(json.dumps([[key["AccessKeyId"], key["SecretAccessKey"]] for key in made]))
