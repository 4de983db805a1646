"""The "restricted" Pod Security Standard of Kubernetes, for pods on Linux.

The rules of https://kubernetes.io/docs/concepts/security/pod-security-standards/, "Baseline" and "Restricted".
"""

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected"),
    "secret",
}
SECCOMP = {"RuntimeDefault", "Localhost"}
APPARMOR = {"RuntimeDefault", "Localhost"}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    *("net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies"),
    *("net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time"),
    *("net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes"),
}
ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


def violations(pod: dict[str, Any]) -> list[str]:
    """Return a line for each rule that a pod, or the template of pods, violates."""
    spec = pod["spec"]
    found = [f"{name}: true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    annotations = pod.get("metadata", {}).get("annotations", {})
    found += [
        f"{name}: {value}"
        for name, value in annotations.items()
        if name.startswith(ANNOTATION) and value != "runtime/default" and not value.startswith("localhost/")
    ]
    own = spec.get("securityContext") or {}
    found += [f"sysctl {each['name']}" for each in own.get("sysctls", ()) if each["name"] not in SYSCTLS]
    for volume in spec.get("volumes", ()):
        found += [f"volume {volume['name']}: {kind}" for kind in volume.keys() - VOLUMES - {"name"}]
    found += [f"pod: {line}" for line in _of_context(own)]
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, ()):
            found += [f"{container['name']}: {line}" for line in _of_container(container, own)]
    return found


def _of_container(container: dict[str, Any], of_pod: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext") or {}
    yield from _of_context(context)
    effective = of_pod | context
    if effective.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if not effective.get("seccompProfile"):
        yield "no seccompProfile"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if context.get("privileged"):
        yield "privileged"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in capabilities.get("drop", ()):
        yield "capabilities: ALL are not dropped"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"capabilities: {capabilities['add']} added"
    if context.get("procMount", "Default") != "Default":
        yield f"procMount {context['procMount']}"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
    probes = [container.get(f"{name}Probe") for name in ("liveness", "readiness", "startup")]
    hooks = (container.get("lifecycle") or {}).values()
    for action in (each for each in (*probes, *hooks) if each):
        if any((action.get(how) or {}).get("host") for how in ("httpGet", "tcpSocket")):
            yield "a probe or hook names a host"


def _of_context(context: dict[str, Any]) -> Iterator[str]:
    """Check what the security contexts of pods and containers have in common."""
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if (profile := context.get("seccompProfile")) and profile.get("type") not in SECCOMP:
        yield f"seccompProfile {profile}"
    if (profile := context.get("appArmorProfile")) and profile.get("type") not in APPARMOR:
        yield f"appArmorProfile {profile}"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX or selinux.get("user") or selinux.get("role"):
        yield f"seLinuxOptions {selinux}"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess"
