"""launch/kubernetes.yaml fits its schema, the command's flags, and the "restricted" Pod Security Standard."""

import copy
import re

import kubernetes_validate
import pytest
import yaml

from covidscan.config import Config
from covidscan.distributed.exits import RunAgain, StoppedByUser
from tests.launch.pod_security import violations
from tests.support import runs

LAUNCH = runs.ROOT / "launch"


def test_the_manifest_fits_the_schemas_of_kubernetes_and_the_flags_of_the_command():
    manifests = list(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))
    assert [manifest["kind"] for manifest in manifests] == ["Service", "Job"]
    for manifest in manifests:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    service, job = manifests
    container = job["spec"]["template"]["spec"]["containers"][0]
    source = (runs.ROOT / "covidscan" / "cli" / "flags.py").read_text() + " ".join(Config.__annotations__)
    names = [re.match(r"--(\w+)=", argument).group(1) for argument in container["args"]]
    assert all(name == "flagfile" or name in source for name in names)
    assert f"--num_processes={job['spec']['completions']}" in container["args"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    address = f"{job['metadata']['name']}-0.{service['metadata']['name']}:"
    assert any(argument.startswith(f"--coordinator_address={address}") for argument in container["args"])
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}


def test_pods_that_a_person_stopped_are_not_started_again():
    _, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    actions = {
        status: rule["action"]
        for rule in job["spec"]["podFailurePolicy"]["rules"]
        for status in rule.get("onExitCodes", {"values": []})["values"]
    }
    assert actions == {RunAgain.status: "Ignore", StoppedByUser.status: "FailJob", 1: "FailJob", 2: "FailJob"}


def test_the_manifest_as_adapted_for_tpu_nodes_fits_the_schema():
    text = (LAUNCH / "kubernetes.yaml").read_text()
    job = yaml.safe_load(text.replace("nvidia.com/gpu: 8", "google.com/tpu: 4").split("---")[1])
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["google.com/tpu"] == 4
    job["spec"]["template"]["spec"] |= yaml.safe_load(re.search(r"#   (nodeSelector: .*)", text).group(1))
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def _pod() -> dict:
    *_, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    return job["spec"]["template"]


def test_the_pods_satisfy_the_restricted_standard():
    assert violations(_pod()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("securityContext.runAsNonRoot", False),
        ("securityContext.runAsUser", 0),
        ("securityContext.seccompProfile", None),
        ("securityContext.seccompProfile.type", "Unconfined"),
        ("securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
        ("hostNetwork", True),
        ("hostPID", True),
        ("volumes.1", {"name": "shared-memory", "hostPath": {"path": "/dev/shm"}}),
        ("volumes.1", {"name": "shared-memory", "nfs": {"server": "host", "path": "/"}}),
        ("containers.0.securityContext", None),
        ("containers.0.securityContext.allowPrivilegeEscalation", True),
        ("containers.0.securityContext.privileged", True),
        ("containers.0.securityContext.capabilities.drop", ["NET_RAW"]),
        ("containers.0.securityContext.capabilities.add", ["SYS_PTRACE"]),
        ("containers.0.securityContext.runAsUser", 0),
        ("containers.0.securityContext.procMount", "Unmasked"),
        ("containers.0.ports", [{"containerPort": 4321, "hostPort": 4321}]),
        ("initContainers", [{"name": "prepare", "image": "covidscan:cpu"}]),
    ],
)
def test_a_violation_of_the_restricted_standard_is_found(path, value):
    pod = copy.deepcopy(_pod())
    place = pod["spec"]
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    for part in parents:
        place = place[part]
    place[last] = value
    assert violations(pod)


def test_memory_processors_and_shared_memory_are_limited():
    spec = _pod()["spec"]
    for container in spec["containers"]:
        limits, requests = (container["resources"][kind] for kind in ("limits", "requests"))
        assert {"cpu", "memory"} <= limits.keys() & requests.keys()
        assert requests["cpu"] <= limits["cpu"]
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volume = next(volume for volume in spec["volumes"] if volume["name"] == mounted["/dev/shm"])
        assert volume["emptyDir"]["medium"] == "Memory"
        # What lies in /dev/shm counts as memory of the container.
        assert _gibibytes(volume["emptyDir"]["sizeLimit"]) < _gibibytes(limits["memory"])


def _gibibytes(quantity: str) -> int:
    return int(quantity.removesuffix("Gi"))
