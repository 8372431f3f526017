//! What v1beta1's objects become, and what of v1's they say.

use super::*;

/// The repository's example: the historical file but for its image.
const POD: &str = include_str!("../../../examples/pod.json");
const CONTROLLER: &str = include_str!("../../../examples/v1beta1/controller.json");
const SERVICE: &str = include_str!("../../../examples/v1beta1/service.json");
/// What `GET pods` answered then, as the first README showed it.
const SEED: &str = include_str!("../../tests/data/seed-pod-list.json");

fn pod(text: &str) -> Result<Value, Refused> {
    to_v1(Resource::Pods, text.as_bytes(), Some("default"))
}

/// A pod with one container that holds this.
fn container(fields: &str) -> Result<Value, Refused> {
    let text = format!(
        r#"{{"id": "x", "desiredState": {{"manifest": {{"version": "v1beta1", "containers": [{{"name": "c", "image": "i", {fields}}}]}}}}}}"#
    );
    Ok(pod(&text)?["spec"]["containers"][0].clone())
}

/// A v1 pod as an API server answers it: with everything that v1beta1 never had.
fn stored() -> Value {
    let mut object = pod(POD).unwrap();
    object["kind"] = json!("Pod");
    object["apiVersion"] = json!("v1");
    let metadata = &mut object["metadata"];
    metadata["uid"] = json!("8f3b6a52-6a3f-4d0e-9f5c-2d3b1c0e7a11");
    metadata["creationTimestamp"] = json!("2026-11-21T10:00:00Z");
    metadata["resourceVersion"] = json!("412");
    metadata["managedFields"] = json!([{"manager": "k8sm-proxy"}]);
    let spec = &mut object["spec"];
    spec["nodeName"] = json!("agent-0");
    spec["serviceAccountName"] = json!("default");
    spec["schedulerName"] = json!("default-scheduler");
    spec["tolerations"] = json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]);
    spec["volumes"] = json!([{"name": "kube-api-access-x", "projected": {"sources": []}}]);
    let container = &mut spec["containers"][0];
    container["volumeMounts"] = json!([{"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]);
    container["livenessProbe"]["periodSeconds"] = json!(10);
    container["terminationMessagePolicy"] = json!("File");
    object["status"] = json!({
        "phase": "Running",
        "hostIP": "192.0.2.7",
        "podIP": "10.244.0.9",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [{
            "name": "nginx", "image": "k8s.mesosphere.io/hello:v0.1.0", "imageID": "sha256:0", "ready": true, "restartCount": 0,
            "containerID": "containerd://1", "state": {"running": {"startedAt": "2026-11-21T10:00:01Z"}},
        }],
    });
    object
}

#[test]
fn the_first_readmes_pod_becomes_a_pod_of_today() {
    insta::assert_snapshot!(pretty(&pod(POD).unwrap()));
}

#[test]
fn the_list_has_the_first_readmes_shape() {
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "413"}, "items": [stored()]});
    let answer = list_from_v1(Resource::Pods, &list).unwrap();
    insta::assert_snapshot!(pretty(&answer));
    let mut seed: Value = serde_json::from_str(SEED).unwrap();
    let image = "/items/0/desiredState/manifest/containers/0/image";
    *seed.pointer_mut(image).unwrap() = answer.pointer(image).unwrap().clone();
    assert_contains("", &answer, &seed);
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

/// Everything that `part` says is said by `whole`, at the same places.
fn assert_contains(path: &str, whole: &Value, part: &Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                let found = whole
                    .get(name)
                    .unwrap_or_else(|| panic!("{path}.{name} is missing"));
                assert_contains(&format!("{path}.{name}"), found, value);
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            assert_eq!(whole.len(), part.len(), "{path}");
            for (at, (whole, part)) in whole.iter().zip(part).enumerate() {
                assert_contains(&format!("{path}[{at}]"), whole, part);
            }
        }
        _ => assert_eq!(whole, part, "{path}"),
    }
}

#[test]
fn a_controller_and_a_service_become_those_of_today() {
    let namespace = Some("default");
    let controller = to_v1(
        Resource::ReplicationControllers,
        CONTROLLER.as_bytes(),
        namespace,
    );
    insta::assert_snapshot!(pretty(&controller.unwrap()));
    let service = to_v1(Resource::Services, SERVICE.as_bytes(), namespace);
    insta::assert_snapshot!(pretty(&service.unwrap()));
}

#[test]
fn a_controller_a_service_and_a_minion_of_today_are_said() {
    let controller = json!({
        "metadata": {"name": "c", "namespace": "default", "resourceVersion": "1"},
        "spec": {"replicas": 2, "selector": {"a": "b"}, "template": {
            "metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}},
            "spec": {"restartPolicy": "Always", "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}}}]},
        }},
        "status": {"replicas": 1},
    });
    insta::assert_snapshot!(pretty(
        &from_v1(Resource::ReplicationControllers, &controller).unwrap()
    ));
    let service = json!({
        "metadata": {"name": "s", "namespace": "default", "resourceVersion": "not a number"},
        "spec": {"clusterIP": "10.96.0.9", "type": "LoadBalancer", "sessionAffinity": "None", "selector": {"a": "b"},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web", "nodePort": 30080}, {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53}]},
    });
    insta::assert_snapshot!(pretty(&from_v1(Resource::Services, &service).unwrap()));
    let node = json!({
        "metadata": {"name": "agent-0", "labels": {"zone": "a"}},
        "spec": {"podCIDR": "10.244.0.0/24", "unschedulable": true},
        "status": {
            "capacity": {"cpu": "3500m", "memory": "8Gi", "pods": "110"},
            "addresses": [{"type": "Hostname", "address": "agent-0"}, {"type": "InternalIP", "address": "192.0.2.7"}],
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}],
        },
    });
    let list = json!({"items": [node], "metadata": {"resourceVersion": "9"}});
    insta::assert_snapshot!(pretty(&list_from_v1(Resource::Minions, &list).unwrap()));
}

#[test]
fn a_probe_that_names_the_host_port_asks_the_container_port() {
    let probe = |ports: &str, port: &str| {
        container(&format!(
            r#""ports": {ports}, "livenessProbe": {{"httpGet": {{"port": {port}}}}}"#
        ))
        .map(|c| c["livenessProbe"]["httpGet"]["port"].clone())
    };
    let mapped = r#"[{"containerPort": 80, "hostPort": 8080, "name": "web"}]"#;
    assert_eq!(probe(mapped, r#""8080""#).unwrap(), 80);
    assert_eq!(probe(mapped, "8080").unwrap(), 80);
    assert_eq!(probe(mapped, "80").unwrap(), 80);
    assert_eq!(probe(mapped, "9000").unwrap(), 9000);
    assert_eq!(probe(mapped, r#""web""#).unwrap(), "web");
    assert_eq!(
        probe(r#"[{"containerPort": 80, "hostPort": 80}]"#, "80").unwrap(),
        80
    );
    let two = r#"[{"containerPort": 80, "hostPort": 8080}, {"containerPort": 8080}]"#;
    let error = probe(two, "8080").unwrap_err();
    assert!(
        error.path.ends_with("livenessProbe.httpGet.port"),
        "{error}"
    );
    assert!(probe(mapped, r#""nowhere""#).is_err());
    // What was written is read again, also from a probe in a template.
    let back = from_v1(Resource::Pods, &stored()).unwrap();
    let back = &back["desiredState"]["manifest"]["containers"][0];
    assert_eq!(back["livenessProbe"]["httpGet"]["port"], "8080");
    // But not when somebody has changed the port since.
    let mut changed = stored();
    changed["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"] = json!(81);
    let back = from_v1(Resource::Pods, &changed).unwrap();
    let back = &back["desiredState"]["manifest"]["containers"][0];
    assert_eq!(back["livenessProbe"]["httpGet"]["port"], 81);
}

#[test]
fn a_probe_can_be_off_and_says_one_thing() {
    assert!(
        container(r#""livenessProbe": {"enabled": "false", "exec": {"command": ["a"]}}"#).unwrap()
            ["livenessProbe"]
            .is_null()
    );
    for bad in [
        r#"{"enabled": "perhaps", "exec": {}}"#,
        r#"{}"#,
        r#"{"exec": {}, "tcpSocket": {"port": 1}}"#,
        r#"{"type": "tcp", "exec": {}}"#,
        r#"{"httpGet": {"path": "/"}}"#,
    ] {
        assert!(
            container(&format!(r#""livenessProbe": {bad}"#)).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn resources_have_one_meaning() {
    let c = container(r#""cpu": 100, "memory": 1024"#).unwrap();
    assert_eq!(
        c["resources"]["limits"],
        json!({"cpu": "100m", "memory": "1024"})
    );
    let c = container(r#""cpu": 100, "resources": {"limits": {"cpu": "0.1"}}"#).unwrap();
    assert_eq!(c["resources"]["limits"]["cpu"], "100m");
    let error = container(r#""cpu": 100, "resources": {"limits": {"cpu": 1}}"#).unwrap_err();
    assert_eq!(error.path, "desiredState.manifest.containers[0].cpu");
    assert!(container(r#""cpu": -1"#).is_err());
}

#[test]
fn what_v1_cannot_say_is_refused_with_its_place() {
    let refused = |resource, text: &str| {
        to_v1(resource, text.as_bytes(), Some("default"))
            .unwrap_err()
            .to_string()
    };
    let manifest = |fields: &str| {
        refused(
            Resource::Pods,
            &format!(r#"{{"id": "x", "desiredState": {{"manifest": {{{fields}}}}}}}"#),
        )
    };
    let all = [
        refused(Resource::Pods, "{"),
        refused(Resource::Pods, r#"{"id": "x"} more"#),
        refused(Resource::Pods, r#"{"id": 7}"#),
        refused(Resource::Pods, r#"{"id": "x", "spec": {}}"#),
        refused(Resource::Pods, r#"{"id": "x", "kind": "Service"}"#),
        refused(Resource::Pods, r#"{"id": "x", "apiVersion": "v1"}"#),
        refused(Resource::Pods, r#"{"id": "x", "namespace": "other"}"#),
        manifest(r#""version": "v1""#),
        manifest(r#""containers": [{"nam": "c"}]"#),
        manifest(r#""containers": [{"ports": [{"containerPort": 99999999999}]}]"#),
        manifest(r#""containers": [{"imagePullPolicy": "Always"}]"#),
        manifest(
            r#""containers": [{"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec"}}}]}]"#,
        ),
        manifest(r#""containers": [{"volumeMounts": [{"name": "a", "mountType": "HOST"}]}]"#),
        manifest(r#""containers": [{"lifecycle": {"preStop": {"tcpSocket": {"port": 1}}}}]"#),
        manifest(
            r#""containers": [{"privileged": true, "capabilities": {"add": ["A"]}, "securityContext": {"capabilities": {"add": ["B"]}}}]"#,
        ),
        manifest(r#""volumes": [{"name": "a", "source": {"iscsi": {}}}]"#),
        manifest(r#""volumes": [{"name": "a", "source": {"hostDir": {}, "emptyDir": {}}}]"#),
        manifest(r#""restartPolicy": {"always": {}, "never": {}}"#),
        refused(
            Resource::Services,
            r#"{"id": "s", "port": 80, "selector": {"a": "b"}}"#,
        ),
        refused(
            Resource::Services,
            r#"{"id": "s", "port": 80, "containerPort": 80, "selector": {}}"#,
        ),
        refused(
            Resource::Minions,
            r#"{"id": "m", "resources": {"capacity": {"cpu": "100m"}}}"#,
        ),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn old_names_of_fields_are_understood() {
    let c = container(
        r#""env": [{"key": "A", "value": "1"}], "volumeMounts": [{"name": "v", "path": "/v"}], "entrypoint": ["/bin/a"], "command": ["b"]"#,
    )
    .unwrap();
    assert_eq!(c["env"], json!([{"name": "A", "value": "1"}]));
    assert_eq!(c["volumeMounts"], json!([{"name": "v", "mountPath": "/v"}]));
    assert_eq!(c["command"], json!(["/bin/a"]));
    assert_eq!(c["args"], json!(["b"]));
    assert_eq!(c["imagePullPolicy"], "IfNotPresent");
}

#[test]
fn an_update_of_what_was_read_changes_nothing() {
    let current = stored();
    let read = from_v1(Resource::Pods, &current).unwrap();
    let seen = pod(&read.to_string()).unwrap();
    assert_eq!(merge::merge(&seen, &seen, &current), current);
    let mut wish = read;
    wish["desiredState"]["manifest"]["containers"][0]["image"] = json!("other");
    wish["labels"] = json!({"name": "bar"});
    let merged = merge::merge(&seen, &pod(&wish.to_string()).unwrap(), &current);
    let mut expected = current;
    expected["spec"]["containers"][0]["image"] = json!("other");
    expected["metadata"]["labels"] = json!({"name": "bar"});
    assert_eq!(merged, expected);
}

#[test]
fn statuses_are_said_as_they_were() {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "pods \"php\" not found",
        "reason": "NotFound", "details": {"name": "php", "kind": "pods"}, "code": 404,
    });
    insta::assert_snapshot!(pretty(&super::status::from_v1(&status)));
}

proptest::proptest! {
    #[test]
    fn whatever_is_read_can_be_read_back_and_means_the_same(
        image in "[a-z]{1,5}(:latest)?", cpu in 0i64..100_000, memory in 0i64..(1 << 50),
        ports in proptest::collection::btree_map(1i32..5, 0i32..5, 0..4), probe in 1i32..6, text in proptest::bool::ANY, delay in 0i32..3,
    ) {
        let ports: Vec<Value> = ports.iter().map(|(c, h)| json!({"containerPort": c, "hostPort": h})).collect();
        let port = if text { json!(probe.to_string()) } else { json!(probe) };
        let object = json!({"id": "x", "desiredState": {"manifest": {"version": "v1beta1", "containers": [{
            "name": "c", "image": image, "cpu": cpu, "memory": memory, "ports": ports,
            "livenessProbe": {"tcpSocket": {"port": port}, "initialDelaySeconds": delay},
        }]}}});
        if let Ok(first) = pod(&object.to_string()) {
            let said = from_v1(Resource::Pods, &first).unwrap();
            let second = pod(&said.to_string()).unwrap();
            proptest::prop_assert_eq!(&first, &second);
            let port = said.pointer("/desiredState/manifest/containers/0/livenessProbe/tcpSocket/port");
            proptest::prop_assert_eq!(port.is_some(), true);
        }
    }
}
