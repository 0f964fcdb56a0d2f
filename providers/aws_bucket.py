"""The bucket of a HelixDB on AWS: private, encrypted and versioned; and what may reach it.

The release's own credentials are the task's role, which is asked about before anything is changed
and, with `grant`, gets an inline policy for exactly this bucket; or keys of the person's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from model.aws_errors import classify
from model.errors import ConfigurationError, Conflict, NotFound, PermissionDenied
from model.instance import Instance, ObjectStorage
from model.names import LABEL_INSTANCE
from providers.aws_api import AwsApi, tag_value
from providers.base import Context
from providers.bucket import Bucket

ON_BUCKET = ("s3:ListBucket",)
ON_OBJECTS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")
"""What HelixDB does in its bucket."""
CLOSED = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
ENCRYPTED = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
NO_LOCATION = "us-east-1"
"""The region that S3 must not be told."""


class S3Bucket(Bucket):
    """A bucket of S3.

    Args:
        role: the ARN of the task's role; empty if it has none.
    """

    def __init__(
        self, api: AwsApi, instance: Instance, storage: ObjectStorage, context: Context, role: str
    ) -> None:
        super().__init__(instance, storage, context)
        self._api = api
        self._role = role

    def owner(self) -> str | None:
        try:
            self._s3("head_bucket")
            tags = self._s3("get_bucket_tagging")["TagSet"]
        except NotFound as error:
            return "" if "NoSuchTagSet" in error.message else None
        except PermissionDenied as error:
            raise PermissionDenied(
                f"the bucket «{self.name}» is another account's, or may not be looked at: "
                f"{error.message}",
                hint=f"name another bucket, or {error.hint}",
                request_id=error.request_id,
            ) from None
        found = next((one["Value"] for one in tags if one["Key"] == LABEL_INSTANCE), "")
        return self.instance.key if found == tag_value(self.instance.key) else found

    def is_empty(self) -> bool:
        return not self._s3("list_objects_v2", MaxKeys=1)["KeyCount"]

    def create(self) -> None:
        region = self.storage.region
        place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._s3("create_bucket", **({} if region == NO_LOCATION else place))
        except Conflict:
            self.owner()  # refuses one of another account

    def protect(self) -> None:
        self._s3("put_public_access_block", PublicAccessBlockConfiguration=CLOSED)
        self._s3("put_bucket_encryption", ServerSideEncryptionConfiguration=ENCRYPTED)
        self._s3("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
        tag = {"Key": LABEL_INSTANCE, "Value": tag_value(self.instance.key)}
        self._s3("put_bucket_tagging", Tagging={"TagSet": [tag]})

    def ensure(self) -> None:
        """See `Bucket.ensure`; and give the role its policy, where that is asked for."""
        super().ensure()
        if self.storage.grant:
            self._api(
                "iam",
                "put_role_policy",
                RoleName=_role_name(self._role),
                PolicyName=self._policy_name,
                PolicyDocument=json.dumps(self._policy()),
            )

    def check_access(self) -> None:
        """Ask AWS what the task's role may do in the bucket."""
        if "AWS_ACCESS_KEY_ID" in self.instance.secrets:
            if self.storage.grant:
                raise ConfigurationError(
                    "grant is for the task's role, and the release has keys of its own",
                    hint=f"remove grant, or access_key and secret_key, from {self._where}",
                )
            return
        if not self._role:
            raise ConfigurationError(
                f"the release has nothing to open the bucket «{self.name}» with",
                hint=f"set task_role in [cloud.{self.instance.name}.aws], or access_key and "
                f"secret_key in {self._where}",
            )
        if self.storage.grant:
            return
        lacking = [*self._lacking(ON_BUCKET, ""), *self._lacking(ON_OBJECTS, f"/{self._prefix}*")]
        if lacking:
            raise ConfigurationError(
                f"the role {self._role} lacks {', '.join(lacking)} on the bucket «{self.name}»",
                hint=f"allow it, or write grant = true in {self._where}",
            )

    def _lacking(self, actions: tuple[str, ...], path: str) -> list[str]:
        try:
            answer = self._api(
                "iam",
                "simulate_principal_policy",
                PolicySourceArn=self._role,
                ActionNames=list(actions),
                ResourceArns=[f"{self._arn}{path}"],
            )
        except PermissionDenied as error:
            note = f"not checked what {self._role} may do: {error.message}"
            if note not in self.context.notes:
                self.context.notes.append(note)
            return []
        return [
            str(one["EvalActionName"])
            for one in answer["EvaluationResults"]
            if one["EvalDecision"] != "allowed"
        ]

    def delete(self) -> None:
        with suppress(NotFound):
            while found := self._versions():
                answer = self._s3("delete_objects", Delete={"Objects": found, "Quiet": True})
                for wrong in answer.get("Errors", ())[:1]:
                    raise classify(wrong["Code"])(
                        f"{wrong['Key']} in «{self.name}» stays: {wrong['Message']}",
                        hint="allow s3:DeleteObjectVersion, then run it again",
                    )
                self.context.report(f"removed {len(found)} objects of {self.name}")
            self._s3("delete_bucket")
        if self.storage.grant:
            with suppress(NotFound):
                self._api(
                    "iam",
                    "delete_role_policy",
                    RoleName=_role_name(self._role),
                    PolicyName=self._policy_name,
                )

    def _versions(self) -> list[dict[str, str]]:
        """Up to a thousand objects, each with its version."""
        page = self._s3("list_object_versions")
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        return [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found[:1000]]

    @property
    def _prefix(self) -> str:
        return self.storage.prefix

    @property
    def _arn(self) -> str:
        return f"arn:aws:s3:::{self.name}"

    @property
    def _policy_name(self) -> str:
        return f"helix-{self.name}"

    def _policy(self) -> Mapping[str, Any]:
        """What the role needs, and nothing else."""
        bucket = {"Effect": "Allow", "Action": list(ON_BUCKET), "Resource": self._arn}
        objects = f"{self._arn}/{self._prefix}*"
        inside = {"Effect": "Allow", "Action": list(ON_OBJECTS), "Resource": objects}
        return {"Version": "2012-10-17", "Statement": [bucket, inside]}

    def _s3(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return self._api("s3", operation, Bucket=self.name, **arguments)


def _role_name(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]
