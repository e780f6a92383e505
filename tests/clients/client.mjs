// A Deployment's life, told and seen by the JavaScript client.
//
// Arguments: the kubeconfig, the namespace (which must exist), an image with the app kubia, and an image with a shell.
// Exits with a failure when anything is not as the API promises.

import assert from "node:assert/strict";
import { PassThrough, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import * as k8s from "@kubernetes/client-node";

const [kubeconfig, namespace, image, shellImage] = process.argv.slice(2);
const PATIENCE = 60_000;

const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

async function until(what, done) {
  const deadline = Date.now() + PATIENCE;
  while (Date.now() < deadline) {
    const found = await done();
    if (found) return found;
    await sleep(50);
  }
  throw new Error(`still waiting for ${what}`);
}

function collected(stream) {
  let text = "";
  stream.on("data", (chunk) => (text += chunk));
  return () => text;
}

/** ADDED, MODIFIED and DELETED of one object, in that order, each with what it was at the time. */
async function checkWatch() {
  const seen = [];
  const { metadata } = await core.listNamespacedConfigMap({ namespace });
  const query = { resourceVersion: metadata.resourceVersion, labelSelector: "watched=js" };
  let ended;
  const end = new Promise((resolve) => (ended = resolve));
  const request = await new k8s.Watch(config).watch(
    `/api/v1/namespaces/${namespace}/configmaps`,
    query,
    (type, object) => {
      seen.push([type, object.data.a]);
      if (type === "DELETED") ended();
    },
    (error) => ended(error),
  );
  const name = "watched-js";
  const body = { metadata: { name, labels: { watched: "js" } }, data: { a: "1" } };
  await core.createNamespacedConfigMap({ namespace, body });
  const patch = [{ op: "replace", path: "/data/a", value: "2" }];
  await core.patchNamespacedConfigMap({ namespace, name, body: patch });
  await core.deleteNamespacedConfigMap({ namespace, name });
  await Promise.race([end, sleep(PATIENCE, undefined, { ref: false })]);
  request.abort();
  assert.deepEqual(seen, [["ADDED", "1"], ["MODIFIED", "2"], ["DELETED", "2"]]);
}

async function checkDeployment() {
  const name = "js";
  const labels = { app: name };
  const body = {
    metadata: { name, labels },
    spec: {
      replicas: 1,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: "main", image }] } },
    },
  };
  const created = await apps.createNamespacedDeployment({ namespace, body });
  assert.equal(created.spec.progressDeadlineSeconds, 600);
  await assert.rejects(apps.createNamespacedDeployment({ namespace, body }), (error) => error.code === 409);
  const status = async () => (await apps.readNamespacedDeployment({ namespace, name })).status;
  await until("one replica", async () => (await status()).readyReplicas === 1);

  const scale = await apps.readNamespacedDeploymentScale({ namespace, name });
  scale.spec.replicas = 3;
  await apps.replaceNamespacedDeploymentScale({ namespace, name, body: scale });
  await until("three replicas", async () => (await status()).readyReplicas === 3);

  const patch = { spec: { template: { metadata: { annotations: { note: "patched" } } } } };
  const options = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.StrategicMergePatch);
  const patched = await apps.patchNamespacedDeployment({ namespace, name, body: patch }, options);
  assert.deepEqual(patched.spec.template.metadata.annotations, { note: "patched" });
  await until("the rollout", async () => {
    const now = await status();
    return now.updatedReplicas === 3 && now.availableReplicas === 3 && now.replicas === 3;
  });

  // Pods of the old template may still be on their way out.
  const pods = await core.listNamespacedPod({ namespace, labelSelector: `app=${name}` });
  const pod = pods.items.find((item) => !item.metadata.deletionTimestamp).metadata.name;
  await until("a log", async () => (await core.readNamespacedPodLog({ namespace, name: pod })).includes("starting"));
  const followed = new PassThrough();
  const text = collected(followed);
  const following = await new k8s.Log(config).log(namespace, pod, "main", followed, { follow: true });
  await until("a followed log", async () => text().includes("starting"));
  following.abort();
  await apps.deleteNamespacedDeployment({ namespace, name });
}

async function checkExec() {
  const name = "shell-js";
  const command = ["sh", "-c", "while true; do sleep 1000; done"];
  const containers = [{ name: "main", image: shellImage, command }];
  const body = { metadata: { name }, spec: { containers, terminationGracePeriodSeconds: 0 } };
  await core.createNamespacedPod({ namespace, body });
  await until("the pod", async () => (await core.readNamespacedPod({ namespace, name })).status.phase === "Running");
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const [out, err] = [collected(stdout), collected(stderr)];
  const script = "read line; echo got $line; echo wrong >&2; exit 3";
  const status = await new Promise((resolve, reject) => {
    new k8s.Exec(config)
      .exec(namespace, name, "main", ["sh", "-c", script], stdout, stderr, Readable.from(["hello\n"]), false, resolve)
      .catch(reject);
  });
  assert.equal(status.status, "Failure");
  assert.deepEqual(status.details.causes, [{ reason: "ExitCode", message: "3" }]);
  await until("all output", async () => out() === "got hello\n" && err() === "wrong\n");
  await core.deleteNamespacedPod({ namespace, name });
}

await checkWatch();
await checkDeployment();
await checkExec();
console.log("the JavaScript client is content");
process.exit(0);
