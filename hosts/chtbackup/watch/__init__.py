"""Say how a deployment's backups stand, as this machine sees it, and tell somebody when that isn't well."""
