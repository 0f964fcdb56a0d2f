"""A node for a real control plane: what a kubelet does, as far as the API server can see.

It takes pods from Pending to Running and Ready by their own probes, or to ImagePullBackOff,
CrashLoopBackOff and CreateContainerConfigError; it ends them when they are deleted, and serves
their logs, commands and ports to the API server. It also makes the disks that claims ask for.

with Kubelet(cluster, LoopbackRuntime()) as node:
    node.address("10.1.0.7")  # where this machine reaches a pod
"""

from __future__ import annotations

import base64
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.kubelet_runtime import Box, ImageRefused, Line, Runtime
from tests.fakes.kubelet_web import KubeletWeb
from tests.services.control_plane import Cluster

Json = dict[str, Any]

LOOK_SECONDS = 0.05
"""Between two probes, whatever a pod's own period says."""
BACK_OFF_SECONDS = 0.3
HICCUPS = (httpx.HTTPError, KeyError, ValueError, RuntimeError)
"""What comes of a call while the API server is too busy: a kubelet tries again."""
MERGE = {"content-type": "application/merge-patch+json"}
STORAGE_CLASS = "standard"
PROVISIONER = "helix.test/folders"


class Kubelet:
    """One node, and the storage class `standard`, the cluster's default."""

    def __init__(self, cluster: Cluster, runtime: Runtime, name: str = "node-1") -> None:
        self.cluster = cluster
        self.runtime = runtime
        self.name = name
        self.deaf = False
        """It does not see that pods are deleted, as on a machine that lost the network."""
        self.api = cluster.http()
        self.probes = httpx.Client(verify=False, trust_env=False)
        """One for all: making the means for TLS anew for each probe would take most of the time."""
        self.pods: dict[str, Pod] = {}
        """By uid."""
        self.forgotten: set[str] = set()
        """The uids of those that have ended: what is heard of them now is old."""
        self._web = KubeletWeb(self.find, cluster.certificates)
        self._stopped = threading.Event()
        self._disks = tempfile.TemporaryDirectory(prefix="helix-disks-")

    def __enter__(self) -> Kubelet:
        self._web.start()
        self._register()
        for work in (self._watch_pods, self._watch_claims):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for pod in list(self.pods.values()):
            pod.abandon()
        self.api.delete(f"/api/v1/nodes/{self.name}")
        self._web.close()
        self._disks.cleanup()

    def find(self, namespace: str, name: str) -> Pod | None:
        """The pod of that name that runs here."""
        wanted = (namespace, name)
        return next((one for one in self.pods.values() if one.key == wanted), None)

    def address(self, pod_ip: str) -> str:
        """Where this machine reaches a pod; the empty string if it runs no more."""
        boxes = (one.box for one in list(self.pods.values()))
        return next((one.address for one in boxes if one and one.pod_ip == pod_ip), "")

    def hear(self) -> None:
        """It is reached again, and does what it was told meanwhile."""
        self.deaf = False
        for pod in list(self.pods.values()):
            namespace, name = pod.key
            found = self.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
            about = found.json()["metadata"] if found.is_success else {}
            if self.pods.get(about.get("uid", "")) is pod and about.get("deletionTimestamp"):
                pod.end()

    # The node -------------------------------------------------------------------------------------

    def _register(self) -> None:
        size = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "500"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", **_stamps()}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
        }
        status = {
            "capacity": size,
            "allocatable": size,
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._web.port}},
            # It speaks WebSocket itself, as kubelets do since 1.36.
            "declaredFeatures": ["ExtendWebSocketsToKubelet"],
        }
        self.api.post("/api/v1/nodes", json=node)
        path = f"/api/v1/nodes/{self.name}"
        self._must(self.api.patch(f"{path}/status", json={"status": status}, headers=MERGE))
        self._must(self.api.patch(path, json={"spec": {"taints": None}}, headers=MERGE))
        storage = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
        }
        self.api.post("/apis/storage.k8s.io/v1/storageclasses", json=storage)

    @staticmethod
    def _must(answer: httpx.Response) -> None:
        assert answer.is_success, answer.text

    def _watch(self, path: str, selector: str, seen: Callable[[str, Json], None]) -> None:
        """Call `seen` with every object that is there, and with every change of one."""
        while not self._stopped.is_set():
            query = {"watch": "1", "fieldSelector": selector}
            with (
                suppress(httpx.HTTPError, RuntimeError),
                self.api.stream("GET", path, params=query, timeout=None) as answer,
            ):
                for line in answer.iter_lines():
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                        seen(event["type"], event["object"])
            self._stopped.wait(0.05)

    def _watch_pods(self) -> None:
        self._watch("/api/v1/pods", f"spec.nodeName={self.name}", self._saw_pod)

    def _saw_pod(self, change: str, seen: Json) -> None:
        uid = seen["metadata"]["uid"]
        pod = self.pods.get(uid)
        if change == "DELETED":
            if pod is not None:
                pod.end()
        elif pod is None:
            if uid not in self.forgotten:
                self.pods[uid] = Pod(self, seen)
        elif seen["metadata"].get("deletionTimestamp") and not self.deaf:
            pod.end()

    # Disks ----------------------------------------------------------------------------------------

    def _watch_claims(self) -> None:
        self._watch("/api/v1/persistentvolumeclaims", "", self._saw_claim)

    def _saw_claim(self, change: str, claim: Json) -> None:
        about, spec = claim["metadata"], claim["spec"]
        name = f"disk-{about['uid']}"
        if change == "DELETED":
            self.api.delete(f"/api/v1/persistentvolumes/{name}")
            return
        if spec.get("volumeName") or spec.get("storageClassName") != STORAGE_CLASS:
            return
        folder = Path(self._disks.name, name)
        folder.mkdir(exist_ok=True)
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": spec["resources"]["requests"],
                "accessModes": spec["accessModes"],
                "storageClassName": STORAGE_CLASS,
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder)},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "name": about["name"],
                    "namespace": about["namespace"],
                    "uid": about["uid"],
                },
            },
        }
        self.api.post("/api/v1/persistentvolumes", json=volume)

    def folders(self, namespace: str, spec: Json) -> dict[str, str]:
        """The disks of a pod: its names for them -> folders."""
        found = {}
        for volume in spec.get("volumes", ()):
            if "emptyDir" in volume:
                found[volume["name"]] = self._folder(spec.get("securityContext", {}))
            if config := volume.get("configMap"):
                found[volume["name"]] = folder = self._folder({})
                path = f"/api/v1/namespaces/{namespace}/configmaps/{config['name']}"
                for file, text in self.api.get(path).json()["data"].items():
                    Path(folder, file).write_text(text)
            if claim := volume.get("persistentVolumeClaim"):
                name = claim["claimName"]
                path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"
                uid = self.api.get(path).json()["metadata"]["uid"]
                found[volume["name"]] = str(Path(self._disks.name, f"disk-{uid}"))
        return found

    def _folder(self, security: Json) -> str:
        """An empty one, which the pod's own group may write to."""
        folder = tempfile.mkdtemp(dir=self._disks.name)
        os.chown(folder, -1, security.get("fsGroup", -1))
        os.chmod(folder, 0o2777)
        return folder


class Pod:
    """One pod on the node, looked after by a thread of its own."""

    def __init__(self, node: Kubelet, seen: Json) -> None:
        self._node = node
        self._seen = seen
        about = seen["metadata"]
        self.key = (about["namespace"], about["name"])
        self.box: Box | None = None
        self._before: Box | None = None
        self._restarts = 0
        self._ended = threading.Event()
        self._abandoned = False
        threading.Thread(target=self._live, daemon=True).start()

    def end(self) -> None:
        """It is being deleted."""
        self._ended.set()

    def abandon(self) -> None:
        """The node goes away."""
        self._abandoned = True
        self._ended.set()
        if self.box is not None:
            self.box.stop(0)

    def lines(self, *, previous: bool = False) -> list[Line] | None:
        """What the container printed, or the one before it; None if there was none."""
        box = self._before if previous else self.box or self._before
        return box.lines() if box is not None else None

    # Its life -------------------------------------------------------------------------------------

    def _live(self) -> None:
        while not self._ended.is_set():
            with suppress(*HICCUPS):
                if self.box is not None or self._start():
                    self._watch_over()
                continue
            self._ended.wait(BACK_OFF_SECONDS)
        finished = self._abandoned
        while not finished:
            with suppress(*HICCUPS):
                self._finish()
                finished = True
            time.sleep(LOOK_SECONDS)
            finished = finished or self._abandoned

    def _start(self) -> bool:
        spec = self._container
        try:
            env = self._environment(spec)
            self._node.runtime.pull(spec["image"], self._login(spec["image"]))
        except LookupError as error:
            self._wait_for("CreateContainerConfigError", str(error.args[0]))
        except ImageRefused as error:
            self._wait_for("ErrImagePull", str(error))
            self._wait_for("ImagePullBackOff", f'Back-off pulling image "{spec["image"]}"')
        else:
            folders = self._node.folders(self.key[0], self._seen["spec"])
            name = f"{self.key[1]}-{self._seen['metadata']['uid'][:8]}-{self._restarts}"
            security = {
                **self._seen["spec"].get("securityContext", {}),
                **spec.get("securityContext", {}),
            }
            whole = {**spec, "folders": folders, "security": security}
            self.box = self._node.runtime.start(name, whole, env)
            return True
        return False

    def _wait_for(self, reason: str, message: str) -> None:
        """Wait as a kubelet waits, and say why."""
        self._report({"waiting": {"reason": reason, "message": message}})
        self._ended.wait(BACK_OFF_SECONDS)

    def _watch_over(self) -> None:
        """Until the container, or the pod, has ended."""
        assert self.box is not None
        started, was_ready = _now(), None
        while not self._ended.is_set():
            if self.box.exit_code is not None:
                self._crashed(started)
                return
            ready = self._is_ready(self._container.get("readinessProbe"))
            if ready != was_ready:
                self._report({"running": {"startedAt": started}}, ready=ready)
                was_ready = ready
            self._ended.wait(LOOK_SECONDS)

    def _crashed(self, started: str) -> None:
        assert self.box is not None
        code = self.box.exit_code
        reason = {0: "Completed", 137: "OOMKilled"}.get(code or 0, "Error")
        ended = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": _now()}
        self.box.stop(0)
        self._before, self.box = self.box, None
        self._restarts += 1
        if self._restarts == 1:
            return  # a kubelet tries once more at once
        message = f"back-off restarting failed container app in pod {self.key[1]}"
        self._report(
            {"waiting": {"reason": "CrashLoopBackOff", "message": message}},
            last={"terminated": ended},
        )
        self._ended.wait(BACK_OFF_SECONDS)

    def _finish(self) -> None:
        """Stop the container, then let the API server forget the pod."""
        if self.box is not None:
            self._report({"running": {"startedAt": _now()}}, ready=False)
            self.box.stop(self._seen["spec"].get("terminationGracePeriodSeconds", 30))
            self._before, self.box = self.box, None
        namespace, name = self.key
        self._node.forgotten.add(self._seen["metadata"]["uid"])
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._seen["metadata"]["uid"]}}
        self._node.api.request(
            "DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", json=options
        )
        self._node.pods.pop(self._seen["metadata"]["uid"], None)

    # What it is told ------------------------------------------------------------------------------

    @property
    def _container(self) -> Json:
        container: Json = self._seen["spec"]["containers"][0]
        return container

    def _environment(self, spec: Json) -> dict[str, str]:
        found = {}
        for source in spec.get("envFrom", ()):
            if reference := source.get("secretRef"):
                values = self._secret(reference["name"])
                found |= {key: value.decode() for key, value in values.items()}
            if reference := source.get("configMapRef"):
                found |= self._get("configmaps", reference["name"])["data"]
        for one in spec.get("env", ()):
            if reference := one.get("valueFrom", {}).get("fieldRef"):
                section, _, field = reference["fieldPath"].partition(".")
                found[one["name"]] = self._seen[section][field]
            elif reference := one.get("valueFrom", {}).get("secretKeyRef"):
                data = self._secret(reference["name"])
                if reference["key"] not in data:
                    raise LookupError(f"couldn't find key {reference['key']} in Secret")
                found[one["name"]] = data[reference["key"]].decode()
            else:
                found[one["name"]] = one.get("value", "")
        return found

    def _secret(self, name: str) -> dict[str, bytes]:
        data = self._get("secrets", name)["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}

    def _get(self, plural: str, name: str) -> Json:
        answer = self._node.api.get(f"/api/v1/namespaces/{self.key[0]}/{plural}/{name}")
        if answer.status_code == 404:
            raise LookupError(f'{plural.removesuffix("s")} "{name}" not found')
        found: Json = answer.json()
        return found

    def _login(self, image: str) -> Mapping[str, Any] | None:
        """What the pod's secrets say on the image's registry."""
        for one in self._seen["spec"].get("imagePullSecrets", ()):
            with suppress(LookupError):
                auths = json.loads(self._secret(one["name"])[".dockerconfigjson"])["auths"]
                found: Mapping[str, Any] | None = auths.get(image.split("/", 1)[0])
                if found:
                    return found
        return None

    def _is_ready(self, probe: Json | None) -> bool:
        if probe is None:
            return True
        assert self.box is not None
        if command := probe.get("exec", {}).get("command"):
            return self.box.run(command)[0] == 0
        if get := probe.get("httpGet"):
            ports = {one.get("name"): one["containerPort"] for one in self._container["ports"]}
            port = ports.get(get["port"], get["port"])
            url = f"http://{self.box.address}:{port}{get.get('path', '/')}"
            with suppress(httpx.HTTPError):
                # A connection that is kept would outlive the container.
                headers = {"connection": "close"}
                timeout = probe.get("timeoutSeconds", 1)
                answer = self._node.probes.get(url, headers=headers, timeout=timeout)
                return 200 <= answer.status_code < 400
            return False
        with suppress(OSError):
            socket.create_connection((self.box.address, probe["tcpSocket"]["port"]), 1).close()
            return True
        return False

    # What it says ---------------------------------------------------------------------------------

    def _report(self, state: Json, *, ready: bool = False, last: Json | None = None) -> None:
        running = "running" in state
        yes = {True: "True", False: "False"}
        status: Json = {
            "phase": "Running" if running or last else "Pending",
            "conditions": [
                {"type": kind, "status": yes[value], **_stamps()}
                for kind, value in (
                    ("PodScheduled", True), ("Initialized", True), ("ContainersReady", ready),
                    ("Ready", ready),
                )
            ],
            "containerStatuses": [
                {
                    "name": self._container["name"],
                    "image": self._container["image"],
                    "imageID": "",
                    "ready": ready,
                    "started": running,
                    "restartCount": self._restarts,
                    "state": {"waiting": None, "running": None, "terminated": None, **state},
                    "lastState": last or {},
                }
            ],
        }  # fmt: skip
        if self.box is not None:
            status |= {"podIP": self.box.pod_ip, "podIPs": [{"ip": self.box.pod_ip}]}
        namespace, name = self.key
        # The uid in the patch: another pod may have the name by now.
        body = {"metadata": {"uid": self._seen["metadata"]["uid"]}, "status": status}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        self._node.api.patch(path, json=body, headers=MERGE)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _stamps() -> Json:
    return {"lastTransitionTime": _now()}


def wait_until(true: Callable[[], Any], seconds: float = 20) -> None:
    """Until it is true. Raises AssertionError if it takes too long."""
    end = time.monotonic() + timedelta(seconds=seconds).total_seconds()
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.02)
