"""The API of one namespace for one activity: a client, and one way to call.

The SDK's own retries are off, every call has a time limit, and none of the SDK's errors gets out.
Objects are plain JSON, as the API server sends and takes them: what a newer server adds to them is
kept and harms nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import OpenApiException
from pydantic import ValidationError
from websocket import WebSocketException

from model.errors import AuthExpired, ConfigurationError, Conflict, NotFound
from model.kubernetes_errors import translate

Json = dict[str, Any]

MANAGER = "helix-deploy"
"""Our name as an owner of fields (server-side apply)."""
TIMEOUT = 9.0
"""Seconds one call may take."""
SDK_ERRORS = (
    OpenApiException,
    urllib3.exceptions.HTTPError,
    WebSocketException,
    ValidationError,
)
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

KINDS: dict[str, tuple[str, str]] = {
    "ControllerRevision": ("AppsV1Api", "controller_revision"),
    "Deployment": ("AppsV1Api", "deployment"),
    "StatefulSet": ("AppsV1Api", "stateful_set"),
    "Event": ("CoreV1Api", "event"),
    "PersistentVolumeClaim": ("CoreV1Api", "persistent_volume_claim"),
    "Pod": ("CoreV1Api", "pod"),
    "Secret": ("CoreV1Api", "secret"),
    "Service": ("CoreV1Api", "service"),
    "EndpointSlice": ("DiscoveryV1Api", "endpoint_slice"),
    "Ingress": ("NetworkingV1Api", "ingress"),
}
"""Kind -> the SDK's class for its API group, and the SDK's word for it."""


class Api:
    """Opens a client at once, and closes it.

    Args:
        kubeconfig: the file; `KUBECONFIG`, ~/.kube/config or the pod's own account if empty.
        context: of the kubeconfig; its current one if empty.

    Raises:
        ConfigurationError: there is no such file or context, or it is not one.
    """

    def __init__(self, kubeconfig: str, context: str, namespace: str) -> None:
        self.namespace = namespace
        configuration = _configuration(kubeconfig, context)
        self._client = client.ApiClient(configuration)
        self._streams = client.ApiClient(configuration)
        self._streams_lock = threading.Lock()
        self.now = datetime.now(UTC)
        """The API server's clock when it answered last."""

    @property
    def host(self) -> str:
        """The API server's address."""
        return str(self._client.configuration.host)

    @property
    def token(self) -> str:
        """The bearer token in use; empty if we are known otherwise. A secret."""
        return str(self._client.configuration.api_key.get("BearerToken", ""))

    def close(self) -> None:
        """Give back the connections."""
        for one in (self._client, self._streams):
            one.close()  # type: ignore[no-untyped-call]

    # Objects --------------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> Json | None:
        """An object; None if it is not there."""
        try:
            return self._json("read", kind, name, self._method("read", kind), name, self.namespace)
        except NotFound:
            return None

    def select(
        self, kind: str, labels: Mapping[str, str] | None = None, fields: str = ""
    ) -> list[Json]:
        """The objects that have these labels."""
        query = {
            "label_selector": ",".join(f"{key}={value}" for key, value in (labels or {}).items()),
            "field_selector": fields,
        }
        method = self._method("list", kind)
        found: list[Json] = self._json("list", kind, "", method, self.namespace, **query)["items"]
        return found

    def apply(self, wanted: Json, *, dry_run: bool = False) -> Json:
        """Have the object as `wanted` says, in the fields that it names and in those that we named
        before (server-side apply). Repeating it changes nothing."""
        options = {"field_manager": MANAGER, "force": True, "_content_type": APPLY}
        if dry_run:
            options["dry_run"] = "All"
        return self.write("patch", wanted["kind"], _name(wanted), wanted, **options)

    def create(self, wanted: Json, *, dry_run: bool = False) -> bool:
        """Create the object; False if one of its name is there already."""
        options = {"field_manager": MANAGER, **({"dry_run": "All"} if dry_run else {})}
        try:
            self.write("create", wanted["kind"], _name(wanted), wanted, **options)
        except Conflict as error:
            if error.retryable:
                raise
            return False
        return True

    def patch(self, kind: str, name: str, change: Json) -> Json:
        """Change some fields of an object."""
        return self.write("patch", kind, name, change, field_manager=MANAGER, _content_type=MERGE)

    def delete(self, kind: str, name: str, *, uid: str = "", foreground: bool = False) -> None:
        """Delete an object, if it is there, and then what it owns.

        Args:
            uid: only if it is this very one.
            foreground: what it owns first, so that once it is gone all of it is.
        """
        options: Json = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.write("delete", kind, name, options)
        except NotFound:
            return

    def write(self, verb: str, kind: str, name: str, body: Json, **options: Any) -> Json:
        """One call that changes something."""
        words = [self.namespace] if verb == "create" else [name, self.namespace]
        return self._json(verb, kind, name, self._method(verb, kind), *words, body=body, **options)

    # Other calls ----------------------------------------------------------------------------------

    def cluster(self, api: str, method: str, *words: Any, doing: str) -> Json:
        """A call that changes nothing, to what is not in a namespace, or about ourselves."""
        function = getattr(getattr(client, api)(self._client), method)
        return self._decoded(self.call(function, *words, doing=doing), doing, True)

    def log(self, pod: str, **options: Any) -> str:
        """What a pod printed."""
        method = client.CoreV1Api(self._client).read_namespaced_pod_log
        doing = f"get pods/log {pod}"
        answer = self.call(method, pod, self.namespace, doing=doing, **options)
        with _translated(doing, True):
            return answer.data.decode(errors="replace")

    def stream(
        self, opened: Callable[..., Any], method: str, pod: str, *, doing: str, **options: Any
    ) -> Any:
        """Open a connection to a pod.

        Args:
            opened: one of `kubernetes.stream`.
        """
        # These functions change the client that they are given while they open the connection.
        with self._streams_lock, _translated(doing, True):
            function = getattr(client.CoreV1Api(self._streams), method)
            return opened(function, pod, self.namespace, **options)

    def call(
        self,
        method: Callable[..., Any],
        *words: Any,
        doing: str,
        reads: bool = True,
        **options: Any,
    ) -> urllib3.BaseHTTPResponse:
        """Call the SDK, and return the answer unread.

        Args:
            doing: verb, resource and name, for error messages.
            reads: it changes nothing.

        Raises:
            HelixError: by the tables of `model.kubernetes_errors`.
        """
        with _translated(doing, reads):
            answer: urllib3.BaseHTTPResponse = method(
                *words, _preload_content=False, **{"_request_timeout": TIMEOUT, **options}
            )
            return answer

    def _json(
        self,
        verb: str,
        kind: str,
        name: str,
        method: Callable[..., Any],
        *words: Any,
        **options: Any,
    ) -> Json:
        doing = f"{verb} {kind} {name}".strip()
        reads = verb in ("read", "list")
        return self._decoded(
            self.call(method, *words, doing=doing, reads=reads, **options), doing, reads
        )

    def _decoded(self, answer: urllib3.BaseHTTPResponse, doing: str, reads: bool) -> Json:
        with _translated(doing, reads):
            data = answer.data
        with suppress(TypeError, ValueError):  # a proxy on the way may have made nonsense of it
            self.now = parsedate_to_datetime(answer.headers.get("date", "")).astimezone(UTC)
        found: Json = json.loads(data)
        return found

    def _method(self, verb: str, kind: str) -> Callable[..., Any]:
        group, noun = KINDS[kind]
        found: Callable[..., Any] = getattr(
            getattr(client, group)(self._client), f"{verb}_namespaced_{noun}"
        )
        return found


@contextmanager
def _translated(doing: str, reads: bool) -> Iterator[None]:
    try:
        yield
    except SDK_ERRORS as error:
        raise translate(error, doing, reads=reads) from None
    except config.ConfigException as error:  # of a plug-in that gives no token any more
        raise AuthExpired(f"{doing}: {error}", hint="log in to the cluster again") from None


def _name(wanted: Json) -> str:
    return str(wanted["metadata"]["name"])


def _configuration(kubeconfig: str, context: str) -> client.Configuration:
    found = client.Configuration()
    path = str(Path(kubeconfig).expanduser()) if kubeconfig else None
    try:
        if not kubeconfig and not context and _in_cluster():
            config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=found
            )
        else:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=path,
                context=context or None,
                client_configuration=found,
                persist_config=False,
            )
    except Exception as error:  # the loader lets through what YAML, files and base64 raise
        raise ConfigurationError(
            f"the kubeconfig {path or 'of this machine'} cannot be used: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}",
            hint="set kubeconfig and context in the instance's table; see: kubectl config "
            "get-contexts",
        ) from None
    found.retries = False
    return found


def _in_cluster() -> bool:
    """Whether only the pod that we are in says who we are."""
    files = os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)
    here = "KUBERNETES_SERVICE_HOST" in os.environ
    return here and not any(Path(one).expanduser().exists() for one in files)
