"""Why a bucket doesn't do what is asked of it."""

from __future__ import annotations


class BucketError(Exception):
    """The bucket can't be used. The text is one line for the operator."""


class ObjectRefused(BucketError):
    """The bucket answers, but doesn't give this one object: it is gone, archived, or encrypted by a foreign key. The
    others may be all right."""


class Gone(ObjectRefused):
    """The bucket has no such object, or no such version of it."""
