"""deploy/kubernetes: valid for a current cluster, and what it says of the server is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import kubernetes_validate
import pytest
from deployed import DEPLOY, document, env_file, operations, settings
from grpc_health.v1 import health_pb2, health_pb2_grpc
from programs import site

from walbatch.service import LIVENESS, SERVICE

pytestmark = pytest.mark.packaging

MANIFESTS = ("statefulset", "service", "networkpolicy", "poddisruptionbudget")
OLDEST, NEWEST = "1.34", kubernetes_validate.latest_version()
"""The one that docs/kubernetes.md asks for, and the newest that is known."""

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def manifest(name: str) -> dict[str, Any]:
    """Return one of the resources."""
    return document(f"kubernetes/{name}.yaml")


def pod() -> dict[str, Any]:
    """Return the template's specification."""
    spec: dict[str, Any] = manifest("statefulset")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    """Return the only container."""
    (only,) = pod()["containers"]
    return dict(only)


def pod_labels() -> dict[str, str]:
    """Return the labels of the pod."""
    return dict(manifest("statefulset")["spec"]["template"]["metadata"]["labels"])


def variables(secret: Path) -> dict[str, str]:
    """Return everything that the container has in its environment, with the secret where a test can have it."""
    image = {"WALBATCH_DATA_DIR": "/data", "WALBATCH_GRPC_LISTEN": "0.0.0.0:50051"}
    own = {entry["name"]: entry["value"] for entry in container()["env"]}
    assert own["WALBATCH_MIXPANEL_TOKEN_FILE"] == "/run/secrets/mixpanel/token"
    return image | env_file("kubernetes/settings.env") | own | {"WALBATCH_MIXPANEL_TOKEN_FILE": str(secret)}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """The token as the volume has it."""
    (volume,) = pod()["volumes"]
    path = tmp_path / "token"
    path.write_text("a-token")
    path.chmod(volume["secret"]["defaultMode"])
    return path


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", MANIFESTS)
def test_it_is_valid(name: str, version: str) -> None:
    """The strict schema of Kubernetes knows every field."""
    assert complaint(manifest(name), version) == ""


def test_a_misspelt_field_would_be_found() -> None:
    """The control of the schemas."""
    broken = manifest("statefulset")
    broken["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert "livenesProbe" in complaint(broken, OLDEST)


def complaint(document: dict[str, Any], version: str) -> str:
    """Return what the schema of a version of Kubernetes has against a manifest; nothing if it is valid."""
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


def test_kustomize_takes_every_file() -> None:
    """What is in the folder is in the list, and what the pod refers to is generated."""
    kustomization = document("kubernetes/kustomization.yaml")
    (configs,) = kustomization["configMapGenerator"]
    (secrets,) = kustomization["secretGenerator"]
    (image,) = kustomization["images"]
    assert set(kustomization["resources"]) == {f"{name}.yaml" for name in MANIFESTS}
    assert {path.stem for path in (DEPLOY / "kubernetes").glob("*.yaml")} == {*MANIFESTS, "kustomization"}
    assert container()["envFrom"] == [{"configMapRef": {"name": configs["name"]}}]
    assert configs["envs"] == ["settings.env"]
    assert [volume["secret"]["secretName"] for volume in pod()["volumes"]] == [secrets["name"]]
    assert secrets["files"] == ["token=mixpanel-token"]
    assert container()["image"] == image["name"]


def test_one_server_owns_one_volume_that_stays() -> None:
    """One replica, and a claim for one pod alone, kept whatever becomes of the StatefulSet; no emptyDir, no NFS."""
    spec = manifest("statefulset")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert spec["replicas"] == 1
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    assert [set(volume) for volume in pod()["volumes"]] == [{"name", "secret"}]
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert set(mounts) == {claim["metadata"]["name"], *(volume["name"] for volume in pod()["volumes"])}


def test_it_would_pass_the_restricted_standard() -> None:
    """No root, no rights, nothing to write outside of the volume, no token for the cluster."""
    assert pod()["securityContext"]["runAsNonRoot"]
    assert pod()["securityContext"]["runAsUser"] == 65532
    assert pod()["securityContext"]["fsGroup"] == 65532
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod()["automountServiceAccountToken"] is False
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_server_takes_its_settings(secret: Path) -> None:
    """It would start with this environment; its directory is inside of the volume, and the port is the named one."""
    made = settings(variables(secret))
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert made.data_dir == Path("/data/log")
    assert made.grpc_listen == f"0.0.0.0:{ports['grpc']}"
    assert made.admin_listen.startswith("127.0.0.1:")
    assert made.mixpanel_token
    assert made.mixpanel_token.get_secret_value() == "a-token"


def test_the_volume_holds_what_may_wait(secret: Path) -> None:
    """As much as the backlog's limit, and as much again of what was sent."""
    (claim,) = manifest("statefulset")["spec"]["volumeClaimTemplates"]
    size = claim["spec"]["resources"]["requests"]["storage"]
    assert size.endswith("Gi")
    assert int(size.removesuffix("Gi")) * 2**30 >= 2 * settings(variables(secret)).max_backlog_bytes


def test_it_is_killed_only_after_its_grace(secret: Path) -> None:
    """The time that Kubernetes gives has room for the hook, for the grace, and for some more."""
    hook = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= hook + settings(variables(secret)).shutdown_grace + 10


def test_the_probes_ask_what_the_server_answers(tmp_path: Path) -> None:
    """Each asks the gRPC port, for a name that a real server serves; what restarts the pod is the event loop alone."""
    asked = {probe: container()[probe]["grpc"] for probe in PROBES}
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert {probe: check["service"] for probe, check in asked.items()} == {
        "startupProbe": LIVENESS,
        "livenessProbe": LIVENESS,
        "readinessProbe": SERVICE,
    }
    assert {check["port"] for check in asked.values()} == {ports["grpc"]}
    with site(tmp_path) as here:
        here.serve()
        with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for check in asked.values():
                answer = stub.Check(health_pb2.HealthCheckRequest(service=check["service"]), timeout=5)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_everything_selects_the_pod() -> None:
    """The names and labels by which they refer to each other are there."""
    service, policy, budget = (manifest(name)["spec"] for name in MANIFESTS[1:])
    stateful = manifest("statefulset")["spec"]
    ports = {port["name"] for port in container()["ports"]}
    for selector in (service["selector"], policy["podSelector"]["matchLabels"], budget["selector"]["matchLabels"]):
        assert selector == stateful["selector"]["matchLabels"] == pod_labels()
    assert stateful["serviceName"] == manifest("service")["metadata"]["name"]
    assert {port["targetPort"] for port in service["ports"]} == ports
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports


def test_a_drain_of_the_node_is_not_blocked() -> None:
    """A budget that one replica can never meet would stop every upgrade of the cluster."""
    budget = manifest("poddisruptionbudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


def test_monitoring_opens_the_admin_port(secret: Path) -> None:
    """The patches concern what there is, and the result is valid: the port, its address, and who may reach it."""
    kustomization = document("kubernetes/monitoring/kustomization.yaml")
    patch = document("kubernetes/monitoring/admin-port.yaml")
    (operation,) = operations("kubernetes/monitoring/scraping.yaml")
    template = patch["spec"]["template"]
    (opened,) = template["spec"]["containers"]
    (entry,), (port,) = opened["env"], opened["ports"]
    assert kustomization["kind"] == "Component"
    assert {entry["path"] for entry in kustomization["patches"]} == {"admin-port.yaml", "scraping.yaml"}
    assert "# components: [monitoring]" in (DEPLOY / "kubernetes" / "kustomization.yaml").read_text()
    assert patch["metadata"]["name"] == manifest("statefulset")["metadata"]["name"]
    assert opened["name"] == container()["name"]
    made = settings(variables(secret) | {entry["name"]: entry["value"]})
    assert made.admin_listen == f"0.0.0.0:{port['containerPort']}"
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    assert operation["path"] == "/spec/ingress/-"
    policy = manifest("networkpolicy")
    policy["spec"]["ingress"].append(operation["value"])
    kubernetes_validate.validate(policy, OLDEST, strict=True)
    assert [rule["port"] for rule in operation["value"]["ports"]] == [port["name"]]
