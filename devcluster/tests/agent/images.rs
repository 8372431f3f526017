//! Tasks from images: what they see, run as, leave behind, and why they do not start.

use std::path::Path;

use mesos::pb;
use packaging::image::{Content, File, Image};
use pb::TaskState as S;
use pb::task_status::Reason;

use super::support::{
    Cluster, EXECUTOR, Framework, PATIENCE, Target, command_task, eventually, executor_task,
    is_root, sandbox,
};

/// The image of these tests: the tests' own program as its entry point.
const IMAGE: &str = "r.example.org/test/app:1";

fn image() -> Image {
    let mut image = Image::of_program(IMAGE, "app", EXECUTOR);
    image.entrypoint = vec!["/app".to_owned(), "look".to_owned()];
    image.working_dir = String::new();
    image.user = 1234;
    image.files.push(File {
        path: "/etc/passwd".to_owned(),
        mode: 0o644,
        content: Content::Bytes(b"root:x:0:0::/:\n".to_vec()),
    });
    image
}

/// Writes an image where an agent with this directory as its registry looks for it.
fn put(dir: &Path, image: &Image) -> std::path::PathBuf {
    let path = dir.join(format!("{}.tar", image.reference));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.write(std::fs::File::create(&path).unwrap()).unwrap();
    path
}

async fn start(flags: &[&str]) -> Cluster {
    Cluster::start_with(|dir| {
        let images = dir.join("images");
        std::fs::create_dir(&images).unwrap();
        put(&images, &image());
        let mut all = vec![
            format!("--docker-registry={}", images.display()),
            "--containerizers=mesos,docker".to_owned(),
        ];
        all.extend(flags.iter().map(|f| (*f).to_owned()));
        all
    })
    .await
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// A task of the Mesos containerizer from an image, with arguments for its entry point.
fn image_task(id: &str, name: &str, arguments: &[&str]) -> pb::TaskInfo {
    pb::TaskInfo {
        command: Some(pb::CommandInfo {
            shell: Some(false),
            arguments: strings(arguments),
            ..Default::default()
        }),
        container: Some(pb::ContainerInfo {
            r#type: pb::container_info::Type::Mesos as i32,
            mesos: Some(pb::container_info::MesosInfo {
                image: Some(pb::Image {
                    r#type: pb::image::Type::Docker as i32,
                    docker: Some(pb::image::Docker {
                        name: name.to_owned(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }),
        ..command_task(id, "")
    }
}

fn docker_task(id: &str, arguments: &[&str]) -> pb::TaskInfo {
    let mut task = image_task(id, IMAGE, arguments);
    task.container = Some(pb::ContainerInfo {
        r#type: pb::container_info::Type::Docker as i32,
        docker: Some(pb::container_info::DockerInfo {
            image: IMAGE.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    });
    task
}

/// What a task that has ended printed.
fn said(cluster: &Cluster, task: &str) -> String {
    std::fs::read_to_string(sandbox(cluster, task).join("stdout")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_sees_its_image_its_sandbox_and_nothing_of_the_agent() {
    if !is_root("a_task_sees_its_image_its_sandbox_and_nothing_of_the_agent") {
        return;
    }
    let cluster = start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let host = cluster.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "of the agent").unwrap();
    let hidden = format!("cat={}", host.join("file").display());
    let mut task = image_task(
        "t1",
        IMAGE,
        &[
            "cwd",
            "id",
            "env=MESOS_SANDBOX",
            "env=PATH",
            "env=MINE",
            "ls=/",
            "ls=/host",
            "write=/host/x",
            "write=/mnt/mesos/sandbox/result",
            "write=/new",
            "cat=/etc/passwd",
            "cat=/dev/null",
            "write=/proc/sys/kernel/hostname",
            "ls=/dev",
            "exit=3",
            &hidden,
        ],
    );
    task.command.as_mut().unwrap().environment = Some(pb::Environment {
        variables: vec![pb::environment::Variable {
            name: "MINE".to_owned(),
            value: Some("yes".to_owned()),
            ..Default::default()
        }],
    });
    task.container.as_mut().unwrap().volumes = vec![pb::Volume {
        mode: pb::volume::Mode::Ro as i32,
        host_path: Some(host.display().to_string()),
        container_path: "/host".to_owned(),
        ..Default::default()
    }];
    framework.launch(task).await;
    let failed = loop {
        let status = framework.update().await;
        if status.state() == S::TaskFailed {
            break status;
        }
    };
    let text = said(&cluster, "t1");
    assert_eq!(failed.message(), "Command exited with status 3", "{text}");
    insta::assert_snapshot!(text);
    let result = sandbox(&cluster, "t1").join("result");
    assert_eq!(std::fs::read_to_string(result).unwrap(), "written");
    // Nothing of the container stays.
    let containers = cluster.work_dir().join("run/containers");
    eventually("the container's directory goes", || {
        std::fs::read_dir(&containers).map_or(0, Iterator::count) == 0
    })
    .await;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let dir = cluster.dir.path().display().to_string();
    assert!(!mounts.contains(&dir), "{mounts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_docker_task_runs_in_docker_s_manner() {
    if !is_root("a_docker_task_runs_in_docker_s_manner") {
        return;
    }
    let cluster = start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let task = docker_task("d1", &["id", "cwd", "env=MESOS_SANDBOX", "ls=/"]);
    framework.launch(task).await;
    framework.update_to(S::TaskFinished).await;
    insta::assert_snapshot!(said(&cluster, "d1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_runs_from_an_image_through_a_restart_of_the_agent() {
    if !is_root("an_executor_runs_from_an_image_through_a_restart_of_the_agent") {
        return;
    }
    let mut cluster = start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let mut task = executor_task("t1", "e1", &[]);
    let executor = task.executor.as_mut().unwrap();
    executor.container = image_task("x", IMAGE, &[]).container;
    executor.command.as_mut().unwrap().value = Some("/app".to_owned());
    framework.launch(task).await;
    let target = Target::of(&framework.update_to(S::TaskRunning).await, "e1");
    let children = format!("/proc/{0}/task/{0}/children", target.pid);
    let pid = std::fs::read_to_string(children).unwrap();
    let root = format!("/proc/{}/root", pid.trim());
    assert!(Path::new(&root).join("app").is_file());
    assert!(!Path::new(&root).join("home").exists());
    cluster.kill_agent();
    cluster.start_agent();
    // It is back; messages to an agent that is away are lost.
    framework.wait("offer", |e| e.offers).await;
    framework.ask(&target, "echo").await;
    framework.message(&target, "exit 0").await;
    framework.failure().await;
    assert!(!Path::new(&root).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_check_s_command_runs_where_the_task_is() {
    if !is_root("a_health_check_s_command_runs_where_the_task_is") {
        return;
    }
    let cluster = start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let mut task = image_task("h1", IMAGE, &["write=/ready", "wait"]);
    task.health_check = Some(pb::HealthCheck {
        r#type: Some(pb::health_check::Type::Command as i32),
        // No such program on the agent, and its answer is in the task's own file system.
        command: Some(pb::CommandInfo {
            shell: Some(false),
            value: Some("/app".to_owned()),
            arguments: strings(&[
                "/app",
                "look",
                "cat=/ready",
                "write=/mnt/mesos/sandbox/checked",
            ]),
            ..Default::default()
        }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.1),
        grace_period_seconds: Some(PATIENCE.as_secs_f64()),
        ..Default::default()
    });
    framework.launch(task).await;
    loop {
        let status = framework.update_to(S::TaskRunning).await;
        if status.healthy == Some(true) {
            break;
        }
    }
    let checked = sandbox(&cluster, "h1").join("checked");
    eventually("the check has run", || checked.is_file()).await;
    framework.kill("h1").await;
    framework.update_to(S::TaskKilled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_be_had_fails_the_task_with_the_reason() {
    if !is_root("an_image_that_cannot_be_had_fails_the_task_with_the_reason") {
        return;
    }
    let cluster = start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let images = cluster.dir.path().join("images");
    let mut other = image();
    other.reference = "r.example.org/test/cut:1".to_owned();
    let path = put(&images, &other);
    let whole = std::fs::metadata(&path).unwrap().len();
    let cut = std::fs::File::options().write(true).open(&path).unwrap();
    cut.set_len(whole / 2).unwrap();
    let mut flipped = image();
    flipped.reference = "r.example.org/test/flipped:1".to_owned();
    let path = put(&images, &flipped);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for (id, name, why) in [
        (
            "gone",
            "r.example.org/test/gone:1",
            "Failed to find archive for image",
        ),
        ("cut", "r.example.org/test/cut:1", "is damaged"),
        (
            "flipped",
            "r.example.org/test/flipped:1",
            "is damaged: its content has the digest",
        ),
        ("name", "Bad Name", "Failed to parse docker image"),
    ] {
        framework.launch(image_task(id, name, &["cwd"])).await;
        let failed = framework.update().await;
        assert_eq!(failed.state(), S::TaskFailed, "{id}");
        assert_eq!(failed.reason(), Reason::ContainerLaunchFailed, "{id}");
        let words = failed.message();
        assert!(words.starts_with("Failed to launch container: "), "{words}");
        assert!(words.contains(why), "{words}");
    }
}
