"""Stores in object storage: `--runs s3://BUCKET/PREFIX` (docs/clusters.md, Object storage).

files.py     files that are whole or unchanged
objects.py   the objects below an address, with conditional writes
lease.py     a lock by heartbeat, for object storage and for file systems without flock
mirror.py    the local folder that a command works in, and what it brings and sends
"""

from hmtl_ablate.storage.mirror import address_of, bring, mirror_of, opened, publish, store_folder

__all__ = ["address_of", "bring", "mirror_of", "opened", "publish", "store_folder"]
