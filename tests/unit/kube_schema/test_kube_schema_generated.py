"""The committed results of the generator are what it would write today."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    pytest.importorskip("kubernetes_validate")
    path = ROOT / "packaging/generate_schema.py"
    spec = importlib.util.spec_from_file_location("generate_schema", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_type_table_is_up_to_date(generator: ModuleType) -> None:
    made = generator.types(generator.upstream())
    assert json.loads(generator.TYPES.read_text()) == json.loads(json.dumps(made))


def test_the_definitions_are_those_of_the_baseline(generator: ModuleType) -> None:
    packed = json.loads(gzip.decompress(generator.DEFINITIONS.read_bytes()))
    definitions = generator.upstream()
    assert set(packed) <= set(definitions)
    pod = "io.k8s.api.core.v1.Pod"
    assert packed[pod] == definitions[pod]


def test_every_struct_module_is_there(generator: ModuleType) -> None:
    for prefix in generator.MODEL_KINDS:
        assert (generator.MODEL / f"{prefix.replace('.', '_')}.py").exists()


def test_attributes_are_in_snake_case(generator: ModuleType) -> None:
    for wire, attribute in (
        ("clusterIPs", "cluster_ips"),
        ("podCIDR", "pod_cidr"),
        ("targetCPUUtilizationPercentage", "target_cpu_utilization_percentage"),
        ("from", "from_"),
        ("hostPID", "host_pid"),
    ):
        assert generator.snake(wire) == attribute
