#!/usr/bin/env python3
"""Validates deploy/kubernetes/ offline: every overlay, and the base with each trust component.

The core API by kubernetes-validate (PyPI), custom resources by @kubernetes-models (npm), then the
rules of the restricted Pod security profile and those of this project. Each rule is tried on a
manifest that breaks it.
"""

import copy
import json
import pathlib
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
VERSIONS = ["1.31", "1.36"]
CUSTOM = {
    ("cert-manager.io/v1", "Certificate"): "@kubernetes-models/cert-manager/cert-manager.io/v1/Certificate",
    ("monitoring.coreos.com/v1", "PodMonitor"):
        "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
    ("monitoring.coreos.com/v1", "PrometheusRule"):
        "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
}
TRUST = ["trust-configmap", "trust-secret", "trust-fetch"]


def build(directory):
    built = subprocess.run(["kubectl", "kustomize", directory], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(built.stdout))


def variants():
    """Each overlay, and the base with each way to get the trust."""
    for overlay in sorted((KUBERNETES / "overlays").iterdir()):
        yield overlay.name, build(overlay)
    for trust in TRUST:
        with tempfile.TemporaryDirectory(dir=KUBERNETES) as directory:
            kustomization = {
                "resources": ["../base"],
                "components": [f"../components/{trust}"],
            }
            pathlib.Path(directory, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            yield f"base with {trust}", build(directory)


def check_schemas(manifests):
    for manifest in manifests:
        if (manifest["apiVersion"], manifest["kind"]) in CUSTOM:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{manifest['kind']} {manifest['metadata']['name']}: {error.message} ({version})"


def check_custom(manifests, modules):
    custom = [m for m in manifests if (m["apiVersion"], m["kind"]) in CUSTOM]
    script = """
        const [modules, manifests] = JSON.parse(require('fs').readFileSync(0));
        (async () => { for (const [path, manifest] of manifests) {
            const module = await import(`${modules}/node_modules/${path}`);
            try { new module[manifest.kind](manifest).validate(); }
            catch (error) { console.log(`${manifest.kind}: ${error.message}`); }
        } })().catch(error => { console.error(error); process.exit(1); });
    """
    stdin = json.dumps([modules, [[CUSTOM[m["apiVersion"], m["kind"]] + ".js", m] for m in custom]])
    checked = subprocess.run(["node", "-e", script], input=stdin, check=True, stdout=subprocess.PIPE, text=True)
    return checked.stdout.splitlines()


def pods(manifests):
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield manifest["metadata"]["name"], spec["template"]["spec"]


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def check_restricted(pod):
    """What the Pod Security Standards' profile `restricted` demands."""
    ours = pod.get("securityContext", {})
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
               "projected", "secret"}
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= allowed:
            yield f"volume {volume['name']} is of a kind that is not allowed"
    for key in ["hostNetwork", "hostPID", "hostIPC"]:
        if pod.get(key):
            yield key
    for container in containers(pod):
        context = container.get("securityContext", {})
        merged = {**ours, **context}
        capabilities = context.get("capabilities", {})
        rules = {
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "privileged": not context.get("privileged"),
            "runAsNonRoot": merged.get("runAsNonRoot") is True,
            "runAsUser 0": merged.get("runAsUser") != 0,
            "seccompProfile": merged.get("seccompProfile", {}).get("type") in ["RuntimeDefault", "Localhost"],
            "capabilities": capabilities.get("drop") == ["ALL"]
            and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
            "procMount": context.get("procMount", "Default") == "Default",
        }
        yield from (f"{container['name']}: {rule}" for rule, holds in rules.items() if not holds)


def seconds(text):
    return int(text.removesuffix("s"))


def check_ours(pod):
    """What this project promises beyond that."""
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    if pod.get("automountServiceAccountToken") is not False:
        yield "the token of the service account is mounted"
    for container in containers(pod):
        name = container["name"]
        if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
            yield f"{name}: its root is writable"
        if not container.get("resources", {}).get("limits", {}).get("memory"):
            yield f"{name}: no memory limit"
        if container["image"].rpartition(":")[2] in ["", "latest"] or ":" not in container["image"]:
            yield f"{name}: image without a version"
        for mount in container.get("volumeMounts", []):
            if "subPath" in mount or "subPathExpr" in mount:
                yield f"{name}: subPath is never updated"
            if mount["name"] not in volumes:
                yield f"{name}: no volume {mount['name']}"
        if name != "portcullis":
            continue
        env = {entry["name"]: entry["value"] for entry in container["env"]}
        stop = seconds(env["PORTCULLIS_SHUTDOWN_DELAY"]) + seconds(env["PORTCULLIS_DRAIN_TIMEOUT"])
        if pod["terminationGracePeriodSeconds"] < stop + 5:
            yield "it is killed before it has drained"
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        if not any(env["PORTCULLIS_TRUST"].startswith(path) for path in paths):
            yield "nothing is mounted where PORTCULLIS_TRUST looks"


def check_selectors(manifests):
    """Every Service, policy and budget selects pods that are here."""
    labels = [spec["template"]["metadata"]["labels"] for m in manifests
              if "template" in (spec := m.get("spec", {}).get("jobTemplate", m).get("spec", {}))]
    for manifest in manifests:
        spec = manifest.get("spec", {})
        selector = {"Service": spec.get("selector"), "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels"),
                    "PodDisruptionBudget": spec.get("selector", {}).get("matchLabels")}.get(manifest["kind"])
        if selector and not any(selector.items() <= these.items() for these in labels):
            yield f"{manifest['kind']} {manifest['metadata']['name']} selects no pod"
        if manifest["metadata"].get("namespace", "portcullis") != "portcullis":
            yield f"{manifest['kind']} {manifest['metadata']['name']} is in another namespace"


def check(manifests, modules):
    yield from check_schemas(manifests)
    yield from check_custom(manifests, modules)
    yield from check_selectors(manifests)
    for name, pod in pods(manifests):
        yield from (f"{name}: {problem}" for problem in check_restricted(pod))
        yield from (f"{name}: {problem}" for problem in check_ours(pod))


def container(manifests, name="portcullis"):
    return next(c for _, pod in pods(manifests) for c in containers(pod) if c["name"] == name)


def of_kind(manifests, kind):
    return next(m for m in manifests if m["kind"] == kind)


BROKEN = {
    "an unknown key": lambda m: of_kind(m, "Deployment")["spec"].update(replica=3),
    "a wrong type": lambda m: of_kind(m, "PodDisruptionBudget")["spec"].update(maxUnavailable=[1]),
    "a Certificate without a secret": lambda m: of_kind(m, "Certificate")["spec"].pop("secretName"),
    "a PodMonitor with a wrong type": lambda m: of_kind(m, "PodMonitor")["spec"].update(podMetricsEndpoints="x"),
    "root": lambda m: next(pods(m))[1]["securityContext"].update(runAsUser=0),
    "no seccomp": lambda m: next(pods(m))[1]["securityContext"].pop("seccompProfile"),
    "escalation": lambda m: container(m)["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities": lambda m: container(m)["securityContext"].pop("capabilities"),
    "a host path": lambda m: next(pods(m))[1]["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "a host port": lambda m: container(m)["ports"][0].update(hostPort=443),
    "subPath": lambda m: container(m)["volumeMounts"][0].update(subPath="tls.crt"),
    "no volume": lambda m: next(pods(m))[1]["volumes"].pop(),
    "a writable root": lambda m: container(m)["securityContext"].update(readOnlyRootFilesystem=False),
    "latest": lambda m: container(m).update(image="portcullis:latest"),
    "a short grace period": lambda m: next(pods(m))[1].update(terminationGracePeriodSeconds=30),
    "trust elsewhere": lambda m: next(e for e in container(m)["env"] if e["name"] == "PORTCULLIS_TRUST")
    .update(value="/elsewhere"),
    "a selector of nothing": lambda m: of_kind(m, "Service")["spec"].update(selector={"app": "x"}),
}


def main(modules):
    failed = 0
    for name, manifests in variants():
        problems = list(check(manifests, modules))
        failed += bool(problems)
        print(f"{'FAILED' if problems else 'ok'}: {name}, {len(manifests)} manifests", *problems, sep="\n    ")
    good = build(KUBERNETES / "overlays/gateway")
    for name, break_it in BROKEN.items():
        manifests = copy.deepcopy(good)
        break_it(manifests)
        if not list(check(manifests, modules)):
            failed += 1
            print(f"FAILED: {name} is not noticed")
    with tempfile.NamedTemporaryFile() as file:
        monitoring = KUBERNETES / "components/monitoring"
        subprocess.run([monitoring / "generate", file.name], check=True)
        if (monitoring / "prometheusrule.yaml").read_bytes() != pathlib.Path(file.name).read_bytes():
            failed += 1
            print("FAILED: prometheusrule.yaml differs from deploy/portcullis.rules.yml: run", monitoring / "generate")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) != 0)
