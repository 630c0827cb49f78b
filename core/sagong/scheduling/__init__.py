"""For authors of schedulers: the snapshot, upstream's filters, the queue, and the loop that binds.

A scheduler is a `Decider` (one method, `decide`) given to `answer` for slot `scheduler`'s question
and to `Dispatch`, which follows the cluster; see `sagong_scheduler_binpack` for a whole one.
"""
