"""What a bucket's errors mean for the operator."""

from __future__ import annotations

from typing import Any

REASONS = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key doesn't belong to the access key",
    "ExpiredToken": "the credentials have expired",
    "NoCredentialsError": "there are no credentials, and this machine has no role that gives some",
    "AccessDenied": "the key is refused: it lacks this right, or the bucket's name is wrong",
    "403": "the key is refused: it lacks this right, or the bucket's name is wrong",
    "404": "it isn't there",
    "NoSuchKey": "it isn't there",
    "NoSuchVersion": "this version isn't there",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it (timedatectl)",
    "PermanentRedirect": "the bucket is in another region",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
    "IllegalLocationConstraintException": "the bucket is in another region",
    "SlowDown": "it asks to slow down, and still does after several attempts",
    "ServiceUnavailable": "it is out of service, and still is after several attempts",
    "InternalError": "it has an error of its own, and still has after several attempts",
    "InvalidObjectState": "an object is in an archive class, and must be brought back from there first",
    "InvalidRequest": "it refuses the request",
    "EndpointConnectionError": "it can't be reached",
    "ConnectTimeoutError": "it can't be reached: no answer",
    "ReadTimeoutError": "it doesn't answer in time",
    "ConnectionClosedError": "it breaks off the connection",
    "SSLError": "its certificate isn't trusted",
    "ProxyConnectionError": "the proxy can't be reached",
    "BadDigest": "what arrives isn't what was read a moment ago: look at this machine's disk and memory",
    "QuotaExceeded": "its quota is used up",
}
# What the bucket would answer for any other object, too.
GENERAL = {
    "NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "TokenRefreshRequired", "RequestTimeTooSkewed", "RequestTimeout", "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException", "SlowDown", "Throttling", "ThrottlingException", "QuotaExceeded",
}  # fmt: skip


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def code_of(error: Any) -> str:
    """The server's own code, such as `NoSuchBucket`; of others the exception's name."""
    response = getattr(error, "response", None)
    return str(response["Error"].get("Code", "")) if isinstance(response, dict) else type(error).__name__


def is_about_object(error: Any) -> bool:
    """Whether a request for an object was refused for a reason that need not hold for others."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return False
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return 400 <= status < 500 and status not in (408, 429) and code_of(error) not in GENERAL


def is_gone(error: Any) -> bool:
    """Whether what was asked for isn't there."""
    return code_of(error) in ("404", "NoSuchKey", "NoSuchVersion")


def explain(error: Any) -> str:
    """Why a request failed, in words for the operator, with the server's own code or words."""
    code = code_of(error)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        operation = getattr(error, "operation_name", "")
        said = f"{operation}: {code}, HTTP {status}"
        return f"{REASONS.get(code) or response['Error'].get('Message') or 'it refuses'} ({said})"
    return f"{REASONS[code]} ({first_line(error)})" if code in REASONS else first_line(error)
