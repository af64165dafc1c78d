"""Tell somebody that something failed, until it has been told."""
