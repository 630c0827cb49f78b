"""For authors of schedulers: the snapshot, upstream's filters, the queue, and the loop that binds.

A scheduler is a `Decider` (one method, `decide`) in a `ClusterScheduler`, which answers slot
`scheduler`'s question and follows the cluster; see `sagong_scheduler_binpack` for a whole one.
"""
