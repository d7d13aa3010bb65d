"""The files in deploy/ are what their programs take."""

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from serve.__main__ import make_parser
from serve.selfcheck import SAFE

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
VERSION = "1.34"  # of Kubernetes


def documents(name: str) -> list[dict]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


MANIFESTS = [manifest for name in ("kubernetes", "proxy", "models") for manifest in documents(f"{name}.yaml")]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: f"{one['metadata']['name']}-{one['kind']}")
def test_kubernetes(manifest: dict) -> None:
    """Each manifest keeps to Kubernetes' own schema, without a field that it does not know."""
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest | {"sepc": {}}, VERSION, strict=True)


def test_kubernetes_parts_fit() -> None:
    """Selectors select the pods, probes and services name ports that exist, and the autoscaler names the deployment."""
    kinds = {manifest["kind"]: manifest for manifest in documents("kubernetes.yaml")}
    deployment = kinds["Deployment"]
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == kinds["Service"]["spec"]["selector"] == labels
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert {port["targetPort"] for port in kinds["Service"]["spec"]["ports"]} <= ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    target = kinds["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def test_kubernetes_proxy_fits() -> None:
    """It is the one that reaches the servers, by the name and port of their service, with nginx's files by its names
    for them; what kustomization.yaml puts together is there."""
    kinds, servers = ({one["kind"]: one for one in documents(f"{name}.yaml")} for name in ("proxy", "kubernetes"))
    pod = kinds["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    for selector in (
        kinds["Deployment"]["spec"]["selector"]["matchLabels"],
        kinds["Service"]["spec"]["selector"],
        kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        servers["NetworkPolicy"]["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"],
    ):
        assert selector == labels
    (container,) = pod["spec"]["containers"]
    (compose,) = documents("compose.yaml")
    assert container["image"] == compose["services"]["proxy"]["image"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert mounted.keys() == volumes.keys()
    (kustomization,) = documents("kustomization.yaml")
    assert all((DEPLOY / path).is_file() for path in kustomization["resources"])
    (generated,) = kustomization["configMapGenerator"]
    assert volumes["configuration"]["configMap"]["name"] == generated["name"]
    parts = {key: DEPLOY / (path or key) for key, _, path in (file.partition("=") for file in generated["files"])}
    text = parts["nginx.conf"].read_text()
    assert set(re.findall(r"include (\S+);", text)) == parts.keys() - {"nginx.conf"}
    assert mounted["configuration"] == "/etc/nginx"
    assert f"{mounted['tls']}/tls.key;" in text
    assert f"listen {container['ports'][0]['containerPort']} " in text
    assert re.search(r"^error_log stderr ", text, re.MULTILINE)  # /dev/stderr may be opened by its owner alone
    service = servers["Service"]
    port = next(port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc")
    wanted = f"server {service['metadata']['name']}.default.svc.cluster.local:{port} resolve "
    assert wanted in parts["replicas.conf"].read_text()


def test_autoscaling() -> None:
    """What the autoscaler asks for, of a kind that it asks for, is what prometheus-adapter is told to provide."""
    scaler = next(one for one in documents("kubernetes.yaml") if one["kind"] == "HorizontalPodAutoscaler")
    (values,) = documents("prometheus-adapter.yaml")
    (wanted,), (rule,) = scaler["spec"]["metrics"], values["rules"]["custom"]
    assert rule["seriesQuery"].partition("{")[0] == wanted["pods"]["metric"]["name"]
    assert rule["resources"]["overrides"] == {name: {"resource": name} for name in ("namespace", "pod")}


def test_pod_monitor() -> None:
    """It finds the pods and their ports, by their names."""
    (monitor,) = documents("podmonitor.yaml")
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    pod = next(one for one in documents("kubernetes.yaml") if one["kind"] == "Deployment")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
    scraped = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert scraped == {"metrics", "health"} <= ports


def test_kserve() -> None:
    """Without its scaling bounds, KServe's predictor is a pod; its arguments are ones of the server's command."""
    (service,) = documents("kserve.yaml")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = dict(service["spec"]["predictor"])
    assert 1 <= predictor.pop("minReplicas") <= predictor.pop("maxReplicas")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gin"}, "spec": predictor}
    kubernetes_validate.validate(pod, VERSION, strict=True)
    assert make_parser().parse_args(predictor["containers"][0]["args"]).insecure
    same = next(one for one in documents("kubernetes.yaml") if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert predictor["securityContext"] == same["securityContext"]
    assert predictor["volumes"] == same["volumes"]
    for part in ("securityContext", "volumeMounts"):
        assert predictor["containers"][0][part] == same["containers"][0][part]


def test_compose() -> None:
    """The compose file keeps to the schema of its specification; the files that it mounts exist."""
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    (compose,) = documents("compose.yaml")
    jsonschema.validate(compose, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose | {"service": {}}, schema)
    mounted = {volume.split(":")[0] for service in compose["services"].values() for volume in service["volumes"]}
    mounted -= {"./tls", *compose["volumes"]}  # the first is made as docs/operating.md says
    assert [path for path in mounted if not (DEPLOY / path).exists()] == []
    proxy = {volume.split(":")[1] for volume in compose["services"]["proxy"]["volumes"]}
    included = re.findall(r"include (\S+);", (DEPLOY / "nginx.conf").read_text())
    assert {f"/etc/nginx/{name}" for name in ("nginx.conf", *included)} < proxy
    outside = [name for name, service in compose["services"].items() if "ports" in service]
    assert outside == ["proxy", "grafana"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd(tmp_path: Path) -> None:
    """With the paths of a place where the project is, the unit has nothing that systemd complains about."""
    text = (DEPLOY / "gin.service").read_text()
    for placeholder, path in (("/opt/gin/.venv/bin/python", sys.executable), ("=/opt/gin\n", f"={DEPLOY.parent}\n")):
        assert placeholder in text
        text = text.replace(placeholder, path)
    (tmp_path / "gin.service").write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", tmp_path / "gin.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_dockerfile() -> None:
    """The image is one that is called safe, runs without rights, and starts with arguments that the server knows."""
    text = (DEPLOY / "Dockerfile").read_text()
    image = re.search(r"^FROM nvcr\.io/nvidia/tritonserver:([\d.]+)-py3$", text, re.MULTILINE)
    assert image is not None
    assert image[1] >= SAFE
    assert re.search(r"^USER 1000:1000$", text, re.MULTILINE)
    entry, arguments = (json.loads(found) for found in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE))
    assert entry[:3] == ["python3", "-m", "serve"]
    assert make_parser().parse_args([*entry[3:], *arguments]).repository == Path("/models")
    sent = re.findall(r"^!(\S+)", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = [path.rstrip("/") for path in re.findall(r"^COPY (\S+)", text, re.MULTILINE)]
    assert sorted(copied) == sorted(sent)
    assert all((DEPLOY.parent / path).exists() for path in copied)
    constraints = (DEPLOY.parent / "constraints.txt").read_text()
    (installed,) = re.findall(r"^RUN pip install .* -c /tmp/constraints.txt (.*)$", text, re.MULTILINE)
    for package in installed.split():
        assert re.search(rf"^{package}==", constraints, re.MULTILINE)
