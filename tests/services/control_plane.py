"""A real Kubernetes control plane on loopback: etcd, API server, controllers and scheduler.

with control_plane() as cluster:
    api = cluster.http()
    cluster.kubeconfig("deployer", namespace="shop")

Nodes are not part of it: see `tests.fakes.kubelet`.
"""

from __future__ import annotations

import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from scripts.setup import kubernetes as setup
from tests.services.certificates import Certificates, make_certificates
from tests.services.engine import free_port
from tests.services.need import missing, program

START_SECONDS = 90.0
MEMORY = Path("/dev/shm")
"""etcd waits for its disk at every write; here nothing has to outlive the tests."""
TOKENS = {
    "admin": "system:masters",
    "deployer": "deployers",
    "nobody": "nobodies",
}
"""User -> group. The user's token is `token-<user>`."""
CONTROLLERS = (
    "deployment-controller", "replicaset-controller", "statefulset-controller",
    "endpointslice-controller", "garbage-collector-controller", "namespace-controller",
    "serviceaccount-controller", "resourcequota-controller", "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller", "persistentvolume-protection-controller",
)  # fmt: skip
"""Those whose work the tests see. The one that watches nodes would need their heartbeats."""


@dataclass
class Cluster:
    """A control plane that runs."""

    folder: Path
    port: int
    certificates: Certificates

    @property
    def url(self) -> str:
        """The API server."""
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(
        self, user: str, namespace: str = "default", *, url: str = "", token: str = ""
    ) -> Path:
        """A kubeconfig of a user.

        Args:
            url: another way to the API server, such as a proxy.
            token: another token than the user's own.
        """
        server = {"server": url or self.url}
        if server["server"].startswith("https"):
            server["certificate-authority"] = str(self.certificates.ca)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": user, "user": {"token": token or f"token-{user}"}}],
            "contexts": [
                {
                    "name": "test",
                    "context": {"cluster": "test", "user": user, "namespace": namespace},
                }
            ],
            "current-context": "test",
        }
        handle, name = tempfile.mkstemp(suffix=".kubeconfig", dir=self.folder)
        with open(handle, "w") as file:
            yaml.safe_dump(content, file)
        return Path(name)

    def http(self, user: str = "admin") -> httpx.Client:
        """The API as it is, without an SDK."""
        trusted = ssl.create_default_context(cafile=str(self.certificates.ca))
        return httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer token-{user}"},
            verify=trusted,
            timeout=20,
        )


@contextmanager
def control_plane() -> Iterator[Cluster]:
    """A control plane for the length of the block."""
    binary = setup.program()
    if not binary.exists():
        missing("kubernetes", f"there is no control plane {setup.version()}", "run: make tools")
    etcd = program("etcd", "kubernetes")
    processes: list[subprocess.Popen[bytes]] = []
    base = str(MEMORY) if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="helix-kubernetes-", dir=base) as name:
        folder = Path(name)
        cluster = Cluster(folder, free_port(), make_certificates(folder / "tls"))
        try:
            processes.append(_start(_etcd(etcd, folder), folder))
            processes.append(_start(_api_server(binary, cluster, folder), folder))
            _wait(cluster, processes)
            kubeconfig = cluster.kubeconfig("admin")
            processes += [_start(words, folder) for words in _workers(binary, kubeconfig, folder)]
            yield cluster
        finally:
            for process in reversed(processes):
                process.kill()  # there is no state worth an orderly end
            for process in processes:
                process.wait()


def _etcd(etcd: str, folder: Path) -> list[str]:
    peer = f"http://127.0.0.1:{free_port()}"
    clients = f"http://127.0.0.1:{free_port()}"
    (folder / "etcd.url").write_text(clients)
    return [
        etcd, "--data-dir", str(folder / "etcd"), "--log-level", "error",
        "--listen-client-urls", clients, "--advertise-client-urls", clients,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
        "--initial-cluster", f"default={peer}",
    ]  # fmt: skip


def _api_server(binary: Path, cluster: Cluster, folder: Path) -> list[str]:
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (folder / "sa.key").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "sa.pub").write_bytes(public)
    rows = [f"token-{user},{user},{user},{group}" for user, group in TOKENS.items()]
    (folder / "tokens.csv").write_text("\n".join(rows) + "\n")
    return [
        str(binary), "kube-apiserver",
        f"--etcd-servers={(folder / 'etcd.url').read_text()}",
        f"--secure-port={cluster.port}", "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
        f"--tls-cert-file={cluster.certificates.certificate}",
        f"--tls-private-key-file={cluster.certificates.key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        f"--service-account-key-file={folder / 'sa.pub'}",
        f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16", f"--cert-dir={folder / 'certs'}",
        "--kubelet-preferred-address-types=InternalIP", "--profiling=false",
    ]  # fmt: skip


def _workers(binary: Path, kubeconfig: Path, folder: Path) -> list[list[str]]:
    common = [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
    return [
        [
            str(binary), "kube-controller-manager", *common,
            f"--service-account-private-key-file={folder / 'sa.key'}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--use-service-account-credentials=false", "--kube-api-qps=200",
            "--kube-api-burst=400", "--pvclaimbinder-sync-period=1s",
        ],
        [str(binary), "kube-scheduler", *common, "--kube-api-qps=200", "--kube-api-burst=400"],
    ]  # fmt: skip


def _start(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    name = command[1] if command[1].startswith("kube-") else "etcd"
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )


def _wait(cluster: Cluster, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until the API server is ready."""
    end = time.monotonic() + START_SECONDS
    with cluster.http() as api:
        while time.monotonic() < end and all(one.poll() is None for one in processes):
            with suppress(httpx.HTTPError):
                if api.get("/readyz", timeout=2).status_code == 200:
                    return
            time.sleep(0.1)
    logs = [path.read_text(errors="replace")[-2000:] for path in cluster.folder.glob("*.log")]
    raise RuntimeError("the control plane did not start:\n" + "\n".join(logs))
