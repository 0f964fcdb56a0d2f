"""What a HelixDB that keeps its data in a bucket does with it, from its own environment alone.

The stand-ins that play containers call this where a platform would start one.
"""

from __future__ import annotations

from collections.abc import Mapping

import boto3
from botocore.config import Config

OPTIONS = Config(
    retries={"total_max_attempts": 1, "mode": "standard"},
    request_checksum_calculation="when_required",  # Cloud Storage knows no others
    response_checksum_validation="when_required",
    s3={"addressing_style": "path"},
)


def begin(env: Mapping[str, str], reached: Mapping[str, str]) -> list[str]:
    """Write an object for the release that begins, then read those of all releases so far.

    Args:
        env: the container's environment, secrets included.
        reached: the address of a storage -> where its stand-in listens; S3's own is empty.

    Raises:
        KeyError: a variable is missing, or names a storage that is not there.
        botocore.exceptions.ClientError: the storage refuses it.
    """
    client = boto3.client(
        "s3",
        endpoint_url=reached[env.get("AWS_ENDPOINT", "")],
        region_name=env["S3_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        config=OPTIONS,
    )
    bucket, prefix = env["S3_BUCKET"], env["DB_PATH"]
    name = env["NAME"]
    client.put_object(Bucket=bucket, Key=f"{prefix}releases/{name}", Body=name.encode())
    found = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    objects = [client.get_object(Bucket=bucket, Key=one["Key"]) for one in found]
    return sorted(one["Body"].read().decode() for one in objects)
