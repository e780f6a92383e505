"""A Deployment's life, told and seen by the Python client.

Arguments: the kubeconfig, the namespace (which must exist), an image with the app kubia, and an image with a shell.
Exits with a failure when anything is not as the API promises.
"""

import sys
import threading
import time

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

KUBECONFIG, NAMESPACE, IMAGE, SHELL_IMAGE = sys.argv[1:5]
PATIENCE = 60


def until(what, done):
    """Polls until `done` gives something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = done()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"still waiting for {what}")


def deployment():
    labels = {"app": "py"}
    container = client.V1Container(name="main", image=IMAGE, ports=[client.V1ContainerPort(container_port=8080)])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(
        replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template
    )
    return client.V1Deployment(metadata=client.V1ObjectMeta(name="py", labels=labels), spec=spec)


def check_watch(core):
    """ADDED, MODIFIED and DELETED of one object, in that order, each with what it was at the time."""
    seen = []
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    watching = watch.Watch()

    def follow():
        events = watching.stream(
            core.list_namespaced_config_map,
            NAMESPACE,
            resource_version=version,
            label_selector="watched=yes",
            timeout_seconds=PATIENCE,
        )
        for event in events:
            seen.append((event["type"], (event["object"].data or {}).get("a")))
            if event["type"] == "DELETED":
                watching.stop()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    metadata = client.V1ObjectMeta(name="watched", labels={"watched": "yes"})
    core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=metadata, data={"a": "1"}))
    core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"a": "2"}})
    core.delete_namespaced_config_map("watched", NAMESPACE)
    thread.join(PATIENCE)
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], seen


def check_deployment(apps, core):
    created = apps.create_namespaced_deployment(NAMESPACE, deployment())
    assert created.metadata.uid and created.spec.progress_deadline_seconds == 600, created
    try:
        apps.create_namespaced_deployment(NAMESPACE, deployment())
        raise AssertionError("a second one of the same name was created")
    except ApiException as error:
        assert error.status == 409, error
    ready = until("one replica", lambda: apps.read_namespaced_deployment("py", NAMESPACE).status.ready_replicas == 1)
    assert ready

    apps.patch_namespaced_deployment_scale("py", NAMESPACE, {"spec": {"replicas": 3}})
    scale = apps.read_namespaced_deployment_scale("py", NAMESPACE)
    assert scale.spec.replicas == 3, scale
    until("three replicas", lambda: apps.read_namespaced_deployment_status("py", NAMESPACE).status.ready_replicas == 3)

    patch = {"spec": {"template": {"metadata": {"annotations": {"note": "patched"}}}}}
    patched = apps.patch_namespaced_deployment("py", NAMESPACE, patch)
    assert patched.spec.template.metadata.annotations == {"note": "patched"}, patched

    def rolled():
        status = apps.read_namespaced_deployment("py", NAMESPACE).status
        return status.updated_replicas == 3 and status.available_replicas == 3 and status.replicas == 3

    until("the rollout", rolled)
    # Pods of the old template may still be on their way out.
    pods = core.list_namespaced_pod(NAMESPACE, label_selector="app=py").items
    pod = next(pod for pod in pods if pod.metadata.deletion_timestamp is None)
    until("a log", lambda: "Kubia server starting" in core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE, tail_lines=10))
    apps.delete_namespaced_deployment("py", NAMESPACE)


def check_exec(core):
    container = client.V1Container(name="main", image=SHELL_IMAGE, command=["sh", "-c", "while true; do sleep 1000; done"])
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
    core.create_namespaced_pod(NAMESPACE, client.V1Pod(metadata=client.V1ObjectMeta(name="shell"), spec=spec))
    until("the pod", lambda: core.read_namespaced_pod("shell", NAMESPACE).status.phase == "Running")
    command = ["sh", "-c", "read line; echo got $line; echo wrong >&2; exit 3"]
    session = stream(
        core.connect_get_namespaced_pod_exec,
        "shell",
        NAMESPACE,
        command=command,
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        _preload_content=False,
    )
    session.write_stdin("hello\n")
    session.run_forever(timeout=PATIENCE)
    assert session.read_stdout() == "got hello\n"
    assert session.read_stderr() == "wrong\n"
    assert session.returncode == 3, session.returncode
    core.delete_namespaced_pod("shell", NAMESPACE)


def main():
    config.load_kube_config(KUBECONFIG)
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    check_watch(core)
    check_deployment(apps, core)
    check_exec(core)
    print("the Python client is content")


main()
