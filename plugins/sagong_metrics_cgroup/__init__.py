"""Plugin `metrics_cgroup`: what containers and the machine use."""

from sagong_metrics_cgroup.plugin import MetricsCgroup

__all__ = ["MetricsCgroup"]
