//! What an image says and what a task says, put together: the tables of Mesos' isolator
//! `docker/runtime`, and what its Docker containerizer tells Docker.

use std::collections::BTreeMap;

use mesos::pb::CommandInfo;
use oci::model::RunConfig;

use super::{Manner, SANDBOX};
use crate::agent::container::start::Line;

/// The command line of a task in an image.
pub fn line(command: &CommandInfo, image: &RunConfig, manner: Manner) -> Result<Line, String> {
    let whole = |mut parts: Vec<String>| {
        if parts.is_empty() {
            // Mesos' words.
            return Err("No executable is found".to_owned());
        }
        let program = parts.remove(0);
        Ok(Line {
            arg0: program.clone(),
            program,
            arguments: parts,
        })
    };
    if command.shell() {
        return Line::of(command);
    }
    match (manner, &command.value) {
        // The image's own command line does not matter.
        (Manner::Mesos, Some(_)) => Line::of(command),
        (Manner::Mesos, None) => {
            let mut parts = image.entrypoint.clone();
            let given = &command.arguments;
            match (parts.is_empty(), given.is_empty()) {
                (false, true) => parts.extend(image.cmd.iter().cloned()),
                (false, false) => parts.extend(given.iter().cloned()),
                (true, true) => parts.clone_from(&image.cmd),
                (true, false) => {
                    parts.extend(image.cmd.first().cloned());
                    if !parts.is_empty() {
                        parts.extend(given.iter().cloned());
                    }
                }
            }
            whole(parts)
        }
        // `docker run IMAGE VALUE ARGUMENTS`.
        (Manner::Docker, value) => {
            let given: Vec<String> = value.iter().chain(&command.arguments).cloned().collect();
            let rest = match given.is_empty() {
                true => image.cmd.clone(),
                false => given,
            };
            whole(image.entrypoint.iter().cloned().chain(rest).collect())
        }
    }
}

/// The environment: what the agent gives, the image's over it, the task's own over both.
pub fn environment(
    agent: impl IntoIterator<Item = (String, String)>,
    image: &RunConfig,
    task: impl IntoIterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = agent.into_iter().collect();
    let pairs = image.env.iter().filter_map(|pair| pair.split_once('='));
    all.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    all.extend(task);
    all.insert("MESOS_SANDBOX".to_owned(), SANDBOX.to_owned());
    all
}

/// The working directory.
pub fn directory(image: &RunConfig, manner: Manner) -> &str {
    match (image.working_dir.as_str(), manner) {
        ("", Manner::Mesos) => SANDBOX,
        ("", Manner::Docker) => "/",
        (dir, _) => dir,
    }
}

/// User and group of an image in Docker's manner: numbers, or names of the image's own
/// `/etc/passwd` and `/etc/group`, whose texts these are.
pub fn user(image: &RunConfig, passwd: &str, group: &str) -> Result<(u32, u32), String> {
    let (user, wanted_group) = match image.user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image.user.as_str(), None),
    };
    let fields = |text: &str, name: &str| -> Option<Vec<String>> {
        let line = text.lines().find(|l| l.split(':').next() == Some(name))?;
        Some(line.split(':').map(str::to_owned).collect())
    };
    let number = |fields: &[String], at: usize| fields.get(at).and_then(|f| f.parse().ok());
    let (uid, own_group) = match (user, user.parse::<u32>()) {
        ("", _) => (0, 0),
        (_, Ok(uid)) => {
            let by_id = passwd
                .lines()
                .find(|l| l.split(':').nth(2) == Some(user))
                .and_then(|l| l.split(':').nth(3)?.parse().ok());
            (uid, by_id.unwrap_or(0))
        }
        (name, Err(_)) => fields(passwd, name)
            .and_then(|f| Some((number(&f, 2)?, number(&f, 3)?)))
            .ok_or_else(|| format!("the image's user `{name}` is not in its /etc/passwd"))?,
    };
    let gid = match wanted_group {
        None | Some("") => own_group,
        Some(name) => match name.parse() {
            Ok(gid) => gid,
            Err(_) => fields(group, name)
                .and_then(|f| number(&f, 2))
                .ok_or_else(|| format!("the image's group `{name}` is not in its /etc/group"))?,
        },
    };
    Ok((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    fn image(entrypoint: &[&str], cmd: &[&str]) -> RunConfig {
        RunConfig {
            entrypoint: strings(entrypoint),
            cmd: strings(cmd),
            ..RunConfig::default()
        }
    }

    fn command(shell: bool, value: Option<&str>, arguments: &[&str]) -> CommandInfo {
        CommandInfo {
            shell: Some(shell),
            value: value.map(str::to_owned),
            arguments: strings(arguments),
            ..CommandInfo::default()
        }
    }

    /// The table of `docker/runtime`, row by row: no entry point and no command, only a command,
    /// only an entry point, both.
    #[test]
    fn a_task_of_mesos_containerizer_runs_what_mesos_table_says() {
        let images = [
            image(&[], &[]),
            image(&[], &["C0", "C1"]),
            image(&["E0", "E1"], &[]),
            image(&["E0", "E1"], &["C0", "C1"]),
        ];
        let mut text = String::new();
        for (name, task) in [
            ("sh=0 value=0 argv=0", command(false, None, &[])),
            ("sh=0 value=0 argv=1", command(false, None, &["a", "b"])),
            ("sh=0 value=1 argv=0", command(false, Some("v"), &[])),
            (
                "sh=0 value=1 argv=1",
                command(false, Some("v"), &["v0", "a"]),
            ),
            ("sh=1 value=0 argv=0", command(true, None, &[])),
            ("sh=1 value=1 argv=1", command(true, Some("v w"), &["a"])),
        ] {
            for manner in [Manner::Mesos, Manner::Docker] {
                text.push_str(&format!("{name} {manner:?}:"));
                for image in &images {
                    match line(&task, image, manner) {
                        Ok(line) => {
                            let rest = line.arguments.join(" ");
                            text.push_str(&format!(" [{} {} {rest}]", line.program, line.arg0));
                        }
                        Err(_) => text.push_str(" Error"),
                    }
                }
                text.push('\n');
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_task_s_variables_go_over_the_image_s_and_these_over_the_agent_s() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let image = RunConfig {
            env: strings(&["PATH=/image", "A=image=1", "B=image", "broken"]),
            ..RunConfig::default()
        };
        let all = environment(
            [
                pair("PATH", "/agent"),
                pair("MESOS_SANDBOX", "/host/path"),
                pair("A", "agent"),
            ],
            &image,
            [pair("B", "task")],
        );
        let text: Vec<String> = all.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text,
            [
                "A=image=1",
                "B=task",
                "MESOS_SANDBOX=/mnt/mesos/sandbox",
                "PATH=/image"
            ]
        );
    }

    #[test]
    fn an_image_s_user_may_be_a_name_of_its_own() {
        let passwd = "root:x:0:0::/:\nweb:x:33:44::/:\n";
        let group = "root:x:0:\nstaff:x:50:\n";
        let of = |text: &str| {
            let image = RunConfig {
                user: text.to_owned(),
                ..RunConfig::default()
            };
            user(&image, passwd, group)
        };
        assert_eq!(of(""), Ok((0, 0)));
        assert_eq!(of("65534:65534"), Ok((65534, 65534)));
        assert_eq!(of("33"), Ok((33, 44)));
        assert_eq!(of("7"), Ok((7, 0)));
        assert_eq!(of("web:staff"), Ok((33, 50)));
        assert!(of("nobody").unwrap_err().contains("`nobody`"));
        assert!(of("web:none").unwrap_err().contains("`none`"));
    }
}
