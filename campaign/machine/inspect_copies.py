"""Look at the finished copies in the bucket, on the server: inspect_copies.py SETTINGS

Prints as JSON: `copies`, the keys of all indexes that can be read; `problems`, an object of theirs that can't be read,
or isn't locked.
"""

import json
import sys

from chtbackup.bucket import access as bucket_access
from chtbackup.bucket import copies as bucket_copies
from chtbackup.bucket import plan as copy_plan
from chtbackup.bucket.errors import BucketError, ObjectRefused

there = bucket_access.connect(copy_plan.read_settings(sys.argv[1]))
copies, problems, seen = [], [], set()
for version in bucket_copies.copies_in(there):
    try:
        index = bucket_copies.read_index(there, version)
    except (ValueError, BucketError, ObjectRefused):
        continue  # forged ones are no copies
    copies.append(f"{version.path}@{version.id}")
    for path, of in index.objects.items():
        if (path, of.version) in seen:
            continue
        seen.add((path, of.version))
        try:
            if not there.head(f"repository/{path}", of.version).get("mode"):
                problems.append(f"{version.path}: {path} isn't locked")
        except (BucketError, ObjectRefused, KeyError) as error:
            problems.append(f"{version.path}: {path} {of.version}: {error}")
print(json.dumps({"copies": copies, "problems": problems[:20]}))
