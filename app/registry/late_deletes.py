"""How it is made sure that no delete reaches S3 after its key was written again.

A worker can be paused between its decision to delete an object and its request, and S3 cannot tell the object
that was meant from the same content that was written again later. So such a delete is signed before the
decision is recorded, and S3 itself refuses it EXPIRE_AFTER its signature. Whoever writes the key again waits
until OVER_AFTER the record. The difference is how far the clocks of a worker and of S3 may differ.
"""

from datetime import timedelta

EXPIRE_AFTER = timedelta(seconds=60)
OVER_AFTER = timedelta(minutes=3)
