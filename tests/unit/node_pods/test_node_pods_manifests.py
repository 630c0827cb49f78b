"""What files of pods, containers and images say, and what is wrong with them."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import sample_image

from sagong.model.k8s.core_v1 import Pod
from sagong_node.pods.archives import packed_images
from sagong_node.pods.container_file import read_container
from sagong_node.pods.manifests import Broken, is_static, read_pods

GOOD = """\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: main
    image: busybox:1
"""


def pods(text: str, *, node: str = "box", json_form: bool = False) -> list[Pod]:
    found = read_pods(text.encode(), json_form=json_form, node=node)
    return [msgspec.json.decode(pod.body, type=Pod) for pod in found]


def container(text: str, form: str = "toml") -> dict[str, Any]:
    """The container's pod, as a document."""
    found = read_container(text.encode(), "sensor", form=form, node="box")
    document: dict[str, Any] = msgspec.json.decode(found.body)
    return document


def test_a_static_pod_has_the_nodes_name_and_upstreams_annotations() -> None:
    (pod,) = pods(GOOD)
    assert (pod.metadata.namespace, pod.metadata.name) == ("default", "web-box")
    assert pod.spec.node_name == "box"
    assert pod.spec.restart_policy == "Always"
    assert pod.spec.termination_grace_period_seconds == 30
    marks = pod.metadata.annotations
    assert marks["kubernetes.io/config.source"] == "file"
    assert marks["kubernetes.io/config.hash"] == pod.metadata.uid
    assert is_static(pod.metadata.uid)


def test_the_uid_is_that_of_the_content_and_the_node() -> None:
    uid = pods(GOOD)[0].metadata.uid
    assert pods(f"# a remark\n{GOOD}")[0].metadata.uid == uid
    assert pods(GOOD.replace("busybox:1", "busybox:2"))[0].metadata.uid != uid
    assert pods(GOOD, node="other")[0].metadata.uid != uid
    assert not is_static("0b5e7a1c-7d5c-4a43-9c0e-1d0f6c2f7a11")


def test_a_file_may_hold_several_documents_and_be_json() -> None:
    two = GOOD + "---\n" + GOOD.replace("name: web", "name: other") + "---\n"
    assert [pod.metadata.name for pod in pods(two)] == ["web-box", "other-box"]
    (pod,) = pods(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}), json_form=True)  # fmt: skip
    assert pod.metadata.name == "j-box"


VOLUME = "  volumes:\n  - {name: v, %s}\n"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (GOOD.replace("kind: Pod", "kind: Job"), 1, "only pods"),
        (GOOD.replace("    image", "    imagee"), 8, "unknown field spec.containers[0].imagee"),
        (GOOD.replace("busybox:1", "[1]"), 8, "Expected `str`"),
        (GOOD.replace("name: web", "name: We_b"), 4, "metadata.name 'We_b'"),
        (GOOD.replace("    image: busybox:1\n", ""), 7, "a container needs an image"),
        (GOOD.replace("- name: main", "- name: M"), 7, "spec.containers[0].name 'M'"),
        (GOOD + "  restartPolicy: Maybe\n", 9, "spec.restartPolicy must be one of"),
        (GOOD + "    volumeMounts: [{name: x, mountPath: /x}]\n", 9, "spec.volumes has no 'x'"),
        (GOOD + VOLUME % "configMap: {name: c}", 9, "can't refer to configmaps (c)"),
        (GOOD + VOLUME % "secret: {secretName: s}", 9, "can't refer to secrets (s)"),
        (GOOD + VOLUME % "persistentVolumeClaim: {claimName: p}", 9, "persistentvolumeclaims (p)"),
        (GOOD + "  serviceAccountName: admin\n", 9, "can't have a service account"),
        (GOOD + "  bad\n  worse: [\n", 10, "not YAML"),
        (GOOD + "---\n- a list\n", 10, "a pod is expected here"),
        (GOOD + "---\n" + GOOD.replace("image:", "imag:"), 17, "unknown field"),
        (GOOD.replace("name: web", "name: web\n  name: bew"), 1, "the key name stands twice"),
    ],
)  # fmt: skip
def test_a_broken_file_names_the_line_and_the_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(Broken) as told:
        pods(text)
    assert (told.value.line, reason in told.value.reason) == (line, True), told.value.reason


def test_broken_json_names_its_line() -> None:
    with pytest.raises(Broken, match="not JSON") as told:
        pods('{\n"apiVersion": "v1",\n}', json_form=True)
    assert told.value.line == 3


def test_a_container_file_is_a_pod_with_one_container() -> None:
    document = container(
        """
        image = "registry.example/sensor:3"
        entrypoint = ["sensor"]
        command = ["--every", "5"]
        env = { PLACE = "roof", LEVEL = 3 }
        ports = ["8080:80", "127.0.0.1:5353:53/udp"]
        volumes = ["/srv/sensor:/data", "/etc/sensor:/config:ro"]
        tmpfs = ["/tmp"]
        restart = "on-failure"
        network = "host"
        memory = "32Mi"
        cpu = 0.5
        user = "1000:2000"
        read_only = true
        """
    )
    spec = document["spec"]
    assert (document["metadata"]["name"], spec["restartPolicy"]) == ("sensor-box", "OnFailure")
    assert spec["hostNetwork"] is True
    (made,) = spec["containers"]
    assert (made["command"], made["args"]) == (["sensor"], ["--every", "5"])
    assert made["imagePullPolicy"] == "IfNotPresent"
    assert made["env"] == [{"name": "PLACE", "value": "roof"}, {"name": "LEVEL", "value": "3"}]
    assert made["ports"][1] == {
        "containerPort": 53, "hostPort": 5353, "hostIP": "127.0.0.1", "protocol": "UDP",
    }  # fmt: skip
    assert made["resources"]["limits"] == {"memory": "32Mi", "cpu": 0.5}
    assert [m["mountPath"] for m in made["volumeMounts"]] == ["/data", "/config", "/tmp"]
    assert spec["volumes"][0] == {"name": "bind-0", "hostPath": {"path": "/srv/sensor"}}
    context = made["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (1000, 2000)
    assert context["readOnlyRootFilesystem"] is True
    assert container("image: busybox:1\n", "yaml")["spec"]["hostNetwork"] is False


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "image is missing: a text in quotes"),
        ('image = "a"\nimages = "b"', "images: no such key; did you mean image?"),
        ('image = "a"\nports = ["80"]', "port '80' is not"),
        ('image = "a"\nvolumes = ["srv:/data"]', "volumes[0] 'srv:/data' is not"),
        ('image = "a"\nuser = "root"', "user 'root' is not UID"),
        ('image = "a"\nrestart = "maybe"', 'restart "maybe": say always or on-failure or no'),
        (
            'image = 3\ncommand = "sleep 3"',
            'image 3: a text in quotes, such as "3"; command "sleep 3"',
        ),
        ("image = \nx = 1", "line 1"),
    ],
)
def test_a_broken_container_file_says_why(text: str, reason: str) -> None:
    with pytest.raises(Broken) as told:
        container(text)
    assert reason in told.value.reason


def test_archives_tell_their_images_without_being_unpacked(tmp_path: Path) -> None:
    sample = sample_image.build(tmp_path)
    (docker,) = packed_images(sample.docker_archive)
    assert (docker.names, docker.digest) == ((sample.name,), sample.image_id)
    layout = tmp_path / "layout.tar"
    with tarfile.open(layout, "w") as tar:
        tar.add(sample.oci_layout, ".")
    (oci,) = packed_images(layout)
    assert (oci.names, oci.digest) == ((sample.name,), sample.manifest_digest)
    packed = tmp_path / "sample.tar.gz"
    with gzip.open(packed, "wb", compresslevel=1) as file, sample.docker_archive.open("rb") as raw:
        shutil.copyfileobj(raw, file)
    assert packed_images(packed) == [docker]


def test_another_tar_is_no_archive_of_images(tmp_path: Path) -> None:
    path = tmp_path / "other.tar"
    with tarfile.open(path, "w"):
        pass
    with pytest.raises(ValueError, match="neither"):
        packed_images(path)
