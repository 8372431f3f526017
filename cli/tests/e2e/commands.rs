//! What `kubectl` does with a running pod: logs, exec with input and exit codes, attach, cp both
//! ways, port-forward. All of it goes from the API server through konnectivity to the kubelet.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{BUSYBOX, Cluster, Running};

/// More than one buffer of any of the programs on the way.
const LARGE: usize = 3 << 20;

/// Says something, and repeats what it hears.
const TALK: &str = "
apiVersion: v1
kind: Pod
metadata: {name: talk}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: files, emptyDir: {}}]
  containers:
  - name: echo
    image: IMAGE
    stdin: true
    command: [/bin/busybox, sh, -c, 'echo begun; echo a complaint >&2; while read line; do echo heard $line; done']
    volumeMounts: [{name: files, mountPath: /files}]
  - name: web
    image: IMAGE
    command: [/bin/busybox, httpd, -f, -p, '8000', -h, /files]
    ports: [{containerPort: 8000}]
    volumeMounts: [{name: files, mountPath: /files}]
";

/// All of it, on one pod.
pub fn work_on_a_running_pod(cluster: &Cluster) {
    cluster.apply(&TALK.replace("IMAGE", BUSYBOX));
    cluster.wait_ready("talk", 60);
    logs_are_what_the_container_wrote(cluster);
    exec_carries_input_and_exit_codes(cluster);
    attach_reaches_the_first_process(cluster);
    files_are_copied_both_ways(cluster);
    port_forward_reaches_the_pod(cluster);
    cluster.kubectl(&["delete", "pod", "talk", "--timeout=60s"]);
}

fn logs_are_what_the_container_wrote(cluster: &Cluster) {
    // Two streams, whose order the runtime does not promise.
    let mut lines: Vec<String> = Vec::new();
    cluster.wait("both lines are in the log", 20, || {
        let log = cluster.kubectl(&["logs", "talk", "-c", "echo"]);
        lines = log.lines().map(str::to_owned).collect();
        lines.sort();
        lines.len() >= 2
    });
    assert_eq!(lines, ["a complaint", "begun"]);
    let last = cluster.kubectl(&["logs", "talk", "-c", "echo", "--tail=1"]);
    assert_eq!(last.lines().count(), 1, "{last:?}");
    let error = cluster
        .try_kubectl(&["logs", "talk", "-c", "nobody"])
        .unwrap_err();
    assert!(error.contains("nobody"), "{error}");
}

fn exec_carries_input_and_exit_codes(cluster: &Cluster) {
    let input = vec![b'x'; LARGE];
    let count = [
        "exec",
        "-i",
        "talk",
        "-c",
        "echo",
        "--",
        "/bin/busybox",
        "wc",
        "-c",
    ];
    let output = cluster.kubectl_with_input(&count, &input);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        LARGE.to_string(),
        "bytes that arrived"
    );
    let command = "echo out; echo err >&2; exit 7";
    let fail = ["exec", "talk", "-c", "echo", "--", "/sh", "-c", command];
    let output = cluster.kubectl_with_input(&fail, b"");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(output.stdout, b"out\n");
    assert!(output.stderr.starts_with(b"err\n"), "{output:?}");
}

fn attach_reaches_the_first_process(cluster: &Cluster) {
    let mut attached = Running(
        cluster
            .command(&["kubectl", "attach", "-i", "talk", "-c", "echo"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut input = attached.0.stdin.take().unwrap();
    let output = attached.lines();
    input.write_all(b"a word\n").unwrap();
    output.wait("what the container wrote reaches who is attached", |it| {
        it == "heard a word"
    });
    drop(attached);
    cluster.wait("the log has it too", 20, || {
        let log = cluster.kubectl(&["logs", "talk", "-c", "echo"]);
        log.lines().any(|it| it == "heard a word")
    });
}

fn files_are_copied_both_ways(cluster: &Cluster) {
    let here = cluster.dir().join("copied");
    let nested = here.join("folder/below");
    std::fs::create_dir_all(&nested).unwrap();
    // Every byte, in no order that a text mode would survive.
    let content: Vec<u8> = (0..LARGE).map(|i| (i * 7 + i / 251) as u8).collect();
    std::fs::write(nested.join("bytes"), &content).unwrap();
    std::fs::write(here.join("folder/empty"), b"").unwrap();
    let path = |name: &str| here.join(name).to_string_lossy().into_owned();
    cluster.kubectl(&["cp", "-c", "echo", &path("folder"), "talk:/files/there"]);
    let digest = [
        "exec",
        "talk",
        "-c",
        "web",
        "--",
        "/bin/busybox",
        "wc",
        "-c",
        "/files/there/below/bytes",
    ];
    let size = cluster.kubectl(&digest);
    assert!(size.starts_with(&LARGE.to_string()), "{size}");
    cluster.kubectl(&["cp", "-c", "echo", "talk:/files/there", &path("back")]);
    let back = std::fs::read(here.join("back/below/bytes")).unwrap();
    assert!(back == content, "the same bytes came back");
    assert!(here.join("back/empty").is_file());
}

fn port_forward_reaches_the_pod(cluster: &Cluster) {
    let write = "echo served through a tunnel > /files/index.html";
    cluster.kubectl(&["exec", "talk", "-c", "echo", "--", "/sh", "-c", write]);
    let mut forward =
        cluster.spawn_kubectl(&["port-forward", "pod/talk", ":8000", "--address=127.0.0.1"]);
    let output = forward.lines();
    let line = output.wait("port-forward says where it listens", |it| {
        it.contains("127.0.0.1:")
    });
    let port: u16 = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|it| it.split(' ').next())
        .and_then(|it| it.parse().ok())
        .unwrap_or_else(|| panic!("kubectl port-forward said {line:?}"));
    // Several at a time share the tunnel.
    let streams: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).unwrap();
            stream
                .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
                .unwrap();
            stream
        })
        .collect();
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("served through a tunnel"), "{answer}");
    }
}
