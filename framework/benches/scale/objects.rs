//! Objects as large as real ones: what the API server adds to a Deployment's pod, with managed
//! fields, and what kubelet and controllers write later.

use serde_json::{Value, json};

/// Pods of one template.
const REPLICAS: usize = 1000;

/// A Deployment's pod as it is once it was created.
pub fn pod(number: usize) -> Value {
    let set = number / REPLICAS;
    let app = format!("app-{set}");
    let name = format!("{app}-7c9f8d5b4-{number:05}");
    let uid = format!("3f2b8c1e-5a4d-4e6f-9b7a-{number:012x}");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "generateName": format!("{app}-7c9f8d5b4-"), "namespace": "default", "uid": uid, "generation": 1,
            "creationTimestamp": "2026-11-21T10:00:00Z",
            "labels": {"app": app, "pod-template-hash": "7c9f8d5b4"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-7c9f8d5b4"),
                "uid": "0d9c7a52-44c5-4f5a-8d46-0b7f0f3c9a11", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [managed("kube-controller-manager", json!({
                "f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:app": {}, "f:pod-template-hash": {}},
                    "f:ownerReferences": {".": {}, "k:{\"uid\":\"0d9c7a52-44c5-4f5a-8d46-0b7f0f3c9a11\"}": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {".": {}, "f:env": {".": {}, "k:{\"name\":\"POD_NAME\"}": {".": {}, "f:name": {}, "f:valueFrom": {".": {}, "f:fieldRef": {}}}},
                    "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:ports": {".": {}, "k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:name": {}, "f:protocol": {}}},
                    "f:readinessProbe": {".": {}, "f:failureThreshold": {}, "f:httpGet": {".": {}, "f:path": {}, "f:port": {}, "f:scheme": {}}, "f:periodSeconds": {}, "f:successThreshold": {}, "f:timeoutSeconds": {}},
                    "f:resources": {".": {}, "f:limits": {".": {}, "f:memory": {}}, "f:requests": {".": {}, "f:cpu": {}, "f:memory": {}}}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
                    "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}}}))],
        },
        "spec": {
            "volumes": [{"name": "kube-api-access-x2x9p", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
            "containers": [{
                "name": "main", "image": format!("registry.example.org/team/{app}:1.2.3"), "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": format!("{}m", 100 + set), "memory": "128Mi"}},
                "volumeMounts": [{"name": "kube-api-access-x2x9p", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 2, "successThreshold": 1, "failureThreshold": 3},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "serviceAccount": "default", "securityContext": {}, "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    })
}

fn managed(manager: &str, fields: Value) -> Value {
    json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-11-21T10:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "observedGeneration": 1, "lastProbeTime": null, "lastTransitionTime": "2026-11-21T10:00:01Z"})
}

/// What the Binding does.
pub fn bind(pod: &mut Value, binding: &Value) {
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    pod["metadata"]["annotations"] = binding["metadata"]["annotations"].clone();
    pod["status"]["conditions"] = json!([condition("PodScheduled", "True")]);
}

/// kubelet has the pod.
pub fn accepted(pod: &mut Value) {
    pod["status"]["conditions"] = json!([
        condition("PodReadyToStartContainers", "False"),
        condition("Initialized", "True"),
        condition("Ready", "False"),
        condition("ContainersReady", "False"),
        condition("PodScheduled", "True"),
    ]);
    pod["status"]["hostIP"] = json!("10.1.2.3");
    pod["status"]["startTime"] = json!("2026-11-21T10:00:01Z");
    let status = managed(
        "kubelet",
        json!({"f:status": {"f:conditions": {
        "k:{\"type\":\"ContainersReady\"}": {".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:observedGeneration": {}, "f:status": {}, "f:type": {}},
        "k:{\"type\":\"Initialized\"}": {".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:observedGeneration": {}, "f:status": {}, "f:type": {}},
        "k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:observedGeneration": {}, "f:status": {}, "f:type": {}}},
        "f:containerStatuses": {}, "f:hostIP": {}, "f:hostIPs": {}, "f:phase": {}, "f:podIP": {}, "f:podIPs": {}, "f:startTime": {}}}),
    );
    if let Some(fields) = pod["metadata"]["managedFields"].as_array_mut() {
        fields.push(status);
    }
}

/// Its container runs and is ready.
pub fn running(pod: &mut Value) {
    accepted(pod);
    pod["status"]["phase"] = json!("Running");
    pod["status"]["podIP"] = json!("10.244.7.8");
    pod["status"]["podIPs"] = json!([{"ip": "10.244.7.8"}]);
    pod["status"]["containerStatuses"] = json!([{
        "name": "main", "state": {"running": {"startedAt": "2026-11-21T10:00:02Z"}}, "lastState": {}, "ready": true, "restartCount": 0,
        "image": "registry.example.org/team/app:1.2.3", "started": true,
        "imageID": "registry.example.org/team/app@sha256:5f0c1c9f7f4c2d7a0f8f8e0b3a7d1c6e9a5b4c3d2e1f00112233445566778899",
        "containerID": "containerd://1b2c3d4e5f60718293a4b5c6d7e8f90123456789abcdef0123456789abcdef01",
    }]);
}

/// What the controller manager and kubelet write on a new node.
pub fn node_comes_up(node: &mut Value, number: usize) {
    node["spec"]["podCIDR"] = json!(format!("10.{}.{}.0/24", number / 250, number % 250));
    node["spec"]["podCIDRs"] = json!([node["spec"]["podCIDR"]]);
    let amounts = json!({"cpu": "15700m", "memory": "66584576Ki", "ephemeral-storage": "191Gi", "pods": "110", "hugepages-2Mi": "0"});
    node["status"] = json!({
        "capacity": amounts, "allocatable": amounts,
        "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("PIDPressure", "False"), condition("Ready", "True")],
        "addresses": [{"type": "InternalIP", "address": "10.1.2.3"}, {"type": "Hostname", "address": node["metadata"]["name"]}],
        "nodeInfo": {"kubeletVersion": "v1.37.1", "containerRuntimeVersion": "containerd://2.2.0", "osImage": "Linux", "kernelVersion": "6.18.0", "architecture": "amd64"},
        "images": (0..20).map(|it| json!({"names": [format!("registry.example.org/team/app-{it}:1.2.3")], "sizeBytes": 123_456_789})).collect::<Vec<_>>(),
    });
}
