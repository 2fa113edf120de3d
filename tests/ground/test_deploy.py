"""The examples to deploy give the gateway no more rights than it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = (DEPLOY / "clerk-event-gateway.service").read_text()


def kubernetes(kind: str) -> Any:
    """Give the manifest's one object of a kind."""
    found = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    (one,) = [document for document in found if document["kind"] == kind]
    return one


def test_compose_gives_a_read_only_root_and_no_capability() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["gateway"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - of the container
    assert not service.keys() & {"privileged", "cap_add", "user", "pid", "network_mode", "volumes"}
    admin = [port for port in service["ports"] if port.endswith(":9090")]
    assert admin == ["127.0.0.1:9090:9090"]


def test_kubernetes_gives_a_read_only_root_and_no_capability() -> None:
    pod = kubernetes("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
    assert writable == ["/tmp"]  # noqa: S108 - of the container
    assert "env" not in container, "secrets come as files"


def test_kubernetes_mounts_directories_so_that_a_change_is_seen() -> None:
    """The kubelet swaps `..data` in a directory; what is mounted by subPath stays as it was."""
    (container,) = kubernetes("Deployment")["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert not any("subPath" in mount for mount in mounts.values())
    config = container["args"][container["args"].index("--config") + 1]
    assert str(Path(config).parent) == mounts["config"]["mountPath"]
    assert "--no-watch" not in container["args"]


def test_the_unit_reloads() -> None:
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in UNIT


def test_only_the_webhook_port_is_a_service() -> None:
    ports = kubernetes("Service")["spec"]["ports"]
    assert [port["targetPort"] for port in ports] == ["http"]


def test_the_unit_gives_no_right() -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT, re.MULTILINE))
    expected = {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "RestrictNamespaces": "yes",
        "MemoryDenyWriteExecute": "yes",
    }
    assert expected.items() <= settings.items()
    assert int(settings["LimitNOFILE"]) > 4096 + 200, "server.max_connections needs as many"
