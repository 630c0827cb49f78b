"""Service `exporter`: figures of the bus and of every process, in Prometheus' text format."""

from sagong_exporter.service import Exporter

__all__ = ["Exporter"]
