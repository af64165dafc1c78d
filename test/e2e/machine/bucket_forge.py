"""What root on the server can put among the copies with the writer's key: bucket_forge.py SETTINGS

First the newest copy's index again, as if it had been made two days before; then one that names a version that there
isn't; then one that is none. Prints their keys as JSON, in this order.
"""

import dataclasses
import json
import sys
import time

from chtbackup.base.text import moment
from chtbackup.bucket import access as bucket_access
from chtbackup.bucket import copies as bucket_copies
from chtbackup.bucket import index as bucket_index
from chtbackup.bucket import plan as copy_plan

settings = copy_plan.read_settings(sys.argv[1])
there = bucket_access.connect(settings)
index = bucket_copies.read_index(there, bucket_copies.copies_in(there)[0])
again = dataclasses.replace(index, made=moment(bucket_index.made_at(index.made) - 48 * 3600))
gone = dataclasses.replace(index.objects["config"], version=index.objects["README"].version)
damaged = dataclasses.replace(index, objects={**index.objects, "config": gone})

keys = []
for number, content in enumerate([bucket_index.pack_index(again), bucket_index.pack_index(damaged), b"no index"]):
    keys.append(bucket_index.index_key(moment(time.time()), 10**9 + number))
    there.put(keys[-1], content)
print(json.dumps(keys))
