"""Every version of every object below a prefix of a bucket, and its lock: bucket_versions.py SETTINGS PREFIX

Prints {object@version: [mode, end of the lock in seconds since 1970]} as JSON. `hidden` are those with a delete marker
on top.
"""

import json
import sys

from chtbackup.bucket import access as bucket_access
from chtbackup.bucket import plan as copy_plan

there = bucket_access.connect({**copy_plan.read_settings(sys.argv[1]), "prefix": sys.argv[2]})
listing = there.versions("")
locks = {}
for path, versions in listing.versions.items():
    for of in versions:
        lock = there.head(path, of.id)
        locks[f"{path}@{of.id}"] = [lock["mode"], lock["until"]]
print(json.dumps({"locks": locks, "hidden": sorted(listing.hidden)}))
