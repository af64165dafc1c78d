"""The keys with which a bucket is asked: from a file, or the machine's role."""

from __future__ import annotations

import configparser
from typing import Any

from chtbackup.bucket.errors import BucketError


def read_credentials(path: str) -> dict[str, str]:
    """Arguments for boto3 from a file as the AWS command line tool has it (`[default]`, `aws_access_key_id = …`).
    Raises BucketError, without a word of the file's content."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
        section = parser["default"]
        found = {name: section[name] for name in ("aws_access_key_id", "aws_secret_access_key")}
        if section.get("aws_session_token"):
            found["aws_session_token"] = section["aws_session_token"]
        return found
    except OSError as error:
        raise BucketError(f"the bucket's credentials {path} can't be read: {error.strerror}") from error
    except (KeyError, configparser.Error, UnicodeDecodeError):
        raise BucketError(
            f"{path}: must have [default] with aws_access_key_id and aws_secret_access_key"
        ) from None  # the parser's error quotes the line


def session_of_the_machine() -> Any:
    """Requests as the machine's role, whose keys change every few hours and lie in no file. Whatever else boto3 looks
    for, in variables and in somebody's home, is passed over."""
    import boto3
    import botocore.session
    from botocore.credentials import CredentialResolver

    session = botocore.session.Session()
    # Soon after a start the machine's metadata may not be there yet.
    session.set_config_variable("metadata_service_num_attempts", 5)
    role = session.get_component("credential_provider").get_provider("iam-role")
    session.register_component("credential_provider", CredentialResolver([role]))
    return boto3.Session(botocore_session=session)
