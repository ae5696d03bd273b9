"""boto3 and the aws cli drive the stand-in for API Gateway's control plane.

Both bring the service's own model: what they send and accept is what AWS has. Arguments: the API, the
certificate that its stage `prod` presents, and the aws command.
"""

import json
import subprocess
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

api, old, aws = sys.argv[1:]
client = boto3.client("apigateway", config=Config(retries={"max_attempts": 1}))


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return error.response["ResponseMetadata"]
    raise AssertionError(f"not refused with {code}")


def cli(*arguments):
    done = subprocess.run(
        [*aws.split(), "apigateway", *arguments, "--output", "json"],
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


# What is there, in both.
assert [one["clientCertificateId"] for one in client.get_client_certificates()["items"]] == [old]
assert cli("get-stage", "--rest-api-id", api, "--stage-name", "prod")["clientCertificateId"] == old

# Generate with tags, read it back.
made = client.generate_client_certificate(description="by boto3", tags={"portcullis:replaces": old})
new = made["clientCertificateId"]
assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
assert (made["expirationDate"] - made["createdDate"]).days == 365
assert made["pemEncodedCertificate"].startswith("-----BEGIN CERTIFICATE-----\r\n")
assert not made["pemEncodedCertificate"].endswith("\n")
arn = f"arn:aws:apigateway:{client.meta.region_name}::/clientcertificates/{new}"
cli("tag-resource", "--resource-arn", arn, "--tags", json.dumps({"a key": "a value"}))
tags = client.get_tags(resourceArn=arn)["tags"]
assert tags == {"portcullis:replaces": old, "a key": "a value"}, tags
client.untag_resource(resourceArn=arn, tagKeys=["a key"])
assert cli("get-tags", "--resource-arn", arn)["tags"] == {"portcullis:replaces": old}

# Switch, and the refusals around it.
operation = {"op": "replace", "path": "/clientCertificateId", "value": new}
change = {"restApiId": api, "stageName": "prod", "patchOperations": [operation]}
assert client.update_stage(**change)["clientCertificateId"] == new
refused("ConflictException", client.delete_client_certificate, clientCertificateId=new)
refused("NotFoundException", client.get_client_certificate, clientCertificateId="absent")
operation["value"] = "absent"
refused("BadRequestException", client.update_stage, **change)
assert cli("get-stages", "--rest-api-id", api)["item"][0]["clientCertificateId"] == new
deployment = cli("create-deployment", "--rest-api-id", api, "--stage-name", "prod")["id"]
stage = client.get_stage(restApiId=api, stageName="prod")
assert stage["deploymentId"] == deployment

# Pages, the quota, and the delete.
cli("delete-client-certificate", "--client-certificate-id", old)
for _ in range(59):
    client.generate_client_certificate()
metadata = refused("LimitExceededException", client.generate_client_certificate)
assert metadata["HTTPStatusCode"] == 429
pages = client.get_paginator("get_client_certificates").paginate(PaginationConfig={"PageSize": 25})
assert [len(page["items"]) for page in pages] == [25, 25, 10]
assert len(cli("get-client-certificates")["items"]) == 60

# Another key is not accepted.
stranger = boto3.client("apigateway", aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="other")
refused("InvalidSignatureException", stranger.get_rest_apis)
print("done")
