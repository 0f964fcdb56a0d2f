"""What AWS's errors mean, as data, for everything that talks to it with boto3.

Sources: the service models and the retry tables of botocore 1.43 (`botocore.retries.standard`), and
the messages of ECS's own documentation. boto3 itself is not imported: an error is known by the code
in its answer or by the name of its class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from model.errors import (
    Ambiguous,
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Transient,
)

CODES: dict[type[HelixError], tuple[str, ...]] = {
    Transient: (
        "RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete", "InternalError",
        "InternalFailure", "InternalServerError", "ServerException", "ServiceUnavailable",
        "ServiceUnavailableException", "InternalServiceError", "InternalServiceErrorException",
        "TransactionInProgressException", "DependencyTimeout",
    ),
    Throttled: (
        "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled",
        "RequestThrottledException", "TooManyRequestsException", "RequestLimitExceeded",
        "BandwidthLimitExceeded", "SlowDown", "EC2ThrottledException",
        "ProvisionedThroughputExceededException",
    ),
    QuotaExceeded: (
        # botocore throttles on these; ECS, ECR, IAM and Secrets Manager mean a quota.
        "LimitExceededException", "LimitExceeded", "TooManyBuckets",
        "ServiceQuotaExceededException", "AccessPointLimitExceeded", "FileSystemLimitExceeded",
        "InsufficientThroughputCapacity",
    ),
    AuthExpired: (
        "ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidIdentityToken",
        "TokenRefreshRequired", "UnauthorizedSSOTokenError", "SSOTokenLoadError",
        "TokenRetrievalError",
    ),
    PermissionDenied: (
        "AccessDenied", "AccessDeniedException", "UnauthorizedOperation",
        "UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch",
        "InvalidSignatureException", "AuthFailure", "OptInRequired", "NoCredentialsError",
        "PartialCredentialsError", "CredentialRetrievalError",
    ),
    ConfigurationError: (
        "ValidationException", "ValidationError", "InvalidParameterException", "InvalidParameter",
        "InvalidParameterValue", "InvalidRequestException", "ParamValidationError",
        "ClientException", "UnsupportedFeatureException", "PlatformUnknownException",
        "PlatformTaskDefinitionIncompatibilityException", "InvalidTagParameterException",
        "MalformedPolicyDocument", "BadRequest", "IncorrectMountTargetState", "NoRegionError",
        "ProfileNotFound", "ConfigParseError", "InvalidRegionError", "UnknownServiceError",
        "SSLError",
    ),
    NotFound: (
        "ClusterNotFoundException", "ServiceNotFoundException", "ServiceNotActiveException",
        "ServiceDeploymentNotFoundException", "RepositoryNotFoundException",
        "ImageNotFoundException", "ResourceNotFoundException", "FileSystemNotFound",
        "AccessPointNotFound", "NoSuchBucket", "NoSuchTagSet", "InvalidSubnetID.NotFound",
        "InvalidGroup.NotFound",
        "TargetGroupNotFound", "LoadBalancerNotFound", "NoSuchEntity",
    ),
    Conflict: (
        "RepositoryAlreadyExistsException", "ImageAlreadyExistsException",
        "ImageTagAlreadyExistsException", "ResourceAlreadyExistsException",
        "ResourceExistsException", "EntityAlreadyExists", "FileSystemAlreadyExists",
        "AccessPointAlreadyExists", "BucketAlreadyOwnedByYou", "BucketAlreadyExists",
    ),
    Busy: (
        "ConflictException", "UpdateInProgressException", "ResourceInUseException",
        "OperationAbortedException", "BlockedException",
    ),
}  # fmt: skip
"""Class -> the codes of answers, and the names of botocore's own exceptions, that mean it."""

MESSAGES: tuple[tuple[str, type[HelixError]], ...] = (
    # Unknown to AWS for up to a minute after it was created.
    (r"unable to assume|assume the (service.linked )?role|service linked role", Transient),
    (r"still draining", Busy),
    (r"was not idempotent", Conflict),
    (r"limit exceeded|exceeds? the (maximum|limit)|too many .* per", QuotaExceeded),
    (r"unable to describe task definition|task ?definition .*(not found|inactive)", NotFound),
)
"""What a sentence tells that its code, one of `VAGUE`, does not; case is ignored."""

VAGUE = {"InvalidParameterException", "ClientException", "InvalidRequestException"}
"""The codes whose message says what they mean."""

UNANSWERED = {
    "ConnectionClosedError", "ReadTimeoutError", "ResponseStreamingError", "IncompleteReadError",
    "HTTPClientError",
}  # fmt: skip
"""botocore's exceptions after which the call may have happened."""

READS = ("Describe", "List", "Get", "Filter")
"""How the operations begin that change nothing."""

HINTS: dict[type[HelixError], str] = {
    Transient: "AWS has trouble; it is tried again, and https://health.aws.amazon.com may say more",
    Ambiguous: "the next attempt looks for what this one did",
    Throttled: "AWS asks for fewer calls; it is tried again",
    QuotaExceeded: "ask for a higher limit in AWS's Service Quotas, or remove what is not needed",
    AuthExpired: "log in again: aws sso login, or renew the credentials in the environment",
    Busy: "AWS is still at work on it; it is tried again",
    NotFound: "correct its name or the region in the instance's table, or make it; see "
    "docs/providers/aws.md",
    Conflict: "something of this name is there already: remove it, or rename the instance",
    ConfigurationError: "correct the setting that the message names; see docs/providers/aws.md",
}
"""What to do, where the class alone says it."""

CODE_HINTS = {
    "ClusterNotFoundException": "make the cluster: aws ecs create-cluster --cluster-name …, or "
    "correct `cluster` or `region`",
}
"""What to do about a code."""

PERMISSIONS = {"efs": "elasticfilesystem", "elbv2": "elasticloadbalancing"}
"""What permissions call a service, where boto3 calls it otherwise."""

ACTIONS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:DeleteObjects": "s3:DeleteObjectVersion",
}
"""What permissions call an operation, where that is not its name. Source: the service authorization
reference's page on S3, «API operations and permissions»."""


def permission(service: str, operation: str) -> str:
    """The permission that a call needs: («efs», «CreateAccessPoint») wants
    elasticfilesystem:CreateAccessPoint."""
    name = f"{PERMISSIONS.get(service, service)}:{operation}"
    return ACTIONS.get(name, name)


NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}

_BY_CODE = {code: cls for cls, codes in CODES.items() for code in codes}
_BY_MESSAGE = tuple((re.compile(pattern, re.IGNORECASE), cls) for pattern, cls in MESSAGES)


def classify(code: str, message: str = "", status: int = 0) -> type[HelixError]:
    """The class of an answer.

    Args:
        code: `Error.Code` of the answer, or the name of botocore's exception.
        message: `Error.Message`; only looked at where the code is vague.
        status: the HTTP status; only looked at where the code is unknown.
    """
    if code in VAGUE:
        for pattern, cls in _BY_MESSAGE:
            if pattern.search(message):
                return cls
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status == 429:
        return Throttled
    if status >= 500:
        return Transient
    return {401: PermissionDenied, 403: PermissionDenied, 404: NotFound}.get(
        status, ConfigurationError
    )


def translate(error: Exception, service: str, operation: str = "") -> HelixError:
    """The error that an exception of boto3 or botocore stands for.

    Args:
        service: as boto3 calls it: `ecs`.
        operation: as in a permission: `UpdateService`; empty if it did not come so far.
    """
    doing = permission(service, operation) if operation else service
    answer = getattr(error, "response", None)
    if isinstance(answer, Mapping) and "Error" in answer:
        return _of_answer(answer, doing)
    name = next((one for one in _names(error) if one in _BY_CODE), "")
    unanswered = any(one in UNANSWERED for one in _names(error))
    if not name or (unanswered and name != "SSLError"):
        lost = unanswered and not operation.startswith(READS)
        cls = Ambiguous if lost else Transient
        return cls(f"{doing}: AWS does not answer: {error}", hint=HINTS[cls])
    hint = HINTS.get(_BY_CODE[name], "")
    if name in NO_CREDENTIALS:
        hint = "log in: aws configure, aws sso login, or set AWS_ACCESS_KEY_ID; see docs/providers"
    return _BY_CODE[name](f"{doing}: {error}", hint=hint)


def _of_answer(answer: Mapping[str, Any], doing: str) -> HelixError:
    code, message = answer["Error"].get("Code", ""), answer["Error"].get("Message", "")
    about = answer.get("ResponseMetadata", {})
    cls = classify(code, message, about.get("HTTPStatusCode", 0))
    hint = CODE_HINTS.get(code) or HINTS.get(cls, "")
    if cls is PermissionDenied:
        hint = f"allow {doing} for these credentials: see docs/providers/aws.md"
    wait = about.get("HTTPHeaders", {}).get("retry-after", "")
    return cls(
        f"{doing}: {code}: {message}",
        hint=hint,
        request_id=about.get("RequestId", ""),
        retry_after=float(wait) if wait.replace(".", "", 1).isdigit() else None,
    )


def _names(error: Exception) -> list[str]:
    """The names of an exception's class and its bases, the precise first."""
    return [cls.__name__ for cls in type(error).__mro__]
