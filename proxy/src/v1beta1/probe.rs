//! Probes and hooks.
//!
//! A probe of v1beta1 named its port as it is on the host; one of v1 as it is in the container.
//! So a number that is one of the container's host ports becomes the container port behind it.
//! What was written is kept in an annotation ([`PROBE_PORTS`]) and read back as long as it still
//! fits, since v1's number alone does not say it.

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::meta::PROBE_PORTS;
use super::types::{
    Enabled, ExecAction, Handler, HttpGetAction, Lifecycle, LivenessProbe, TcpSocketAction, Words,
};
use super::{Refused, said};

/// Ports of probes as they were written: `<container> <probe>` to the text or number.
#[derive(Debug, Default)]
pub struct Written(serde_json::Map<String, Value>);

impl Written {
    /// From an object's annotations.
    pub fn read(annotations: Option<&Words>) -> Self {
        let text = annotations.and_then(|a| a.get(PROBE_PORTS));
        Self(
            text.and_then(|t| serde_json::from_str(t).ok())
                .unwrap_or_default(),
        )
    }

    /// Into an object's annotations.
    pub fn write(self, annotations: &mut Option<Words>) {
        if !self.0.is_empty() {
            annotations
                .get_or_insert_default()
                .insert(PROBE_PORTS.to_owned(), Value::Object(self.0).to_string());
        }
    }

    /// The port that was written, if it means what v1 says now.
    fn port(&self, key: &str, now: &IntOrString, ports: &[v1::ContainerPort]) -> IntOrString {
        let written = self
            .0
            .get(key)
            .and_then(|v| serde_json::from_value::<IntOrString>(v.clone()).ok());
        match written {
            Some(written) if target("", &written, ports).is_ok_and(|t| t == *now) => written,
            _ => now.clone(),
        }
    }
}

/// A port that v1 means by what v1beta1 says.
fn target(
    path: &str,
    port: &IntOrString,
    ports: &[v1::ContainerPort],
) -> Result<IntOrString, Refused> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => match text.parse() {
            Ok(number) => number,
            Err(_) if ports.iter().any(|p| p.name.as_ref() == Some(text)) => {
                return Ok(port.clone());
            }
            Err(_) => {
                return Err(Refused::at(
                    path,
                    format!(
                        "{text:?} is neither a number nor the name of a port of this container"
                    ),
                ));
            }
        },
    };
    let mut behind: Vec<i32> = ports
        .iter()
        .filter(|p| p.host_port == Some(number))
        .map(|p| p.container_port)
        .collect();
    behind.dedup();
    let own = ports.iter().any(|p| p.container_port == number);
    match behind.as_slice() {
        [] => Ok(IntOrString::Int(number)),
        [one] if !own || *one == number => Ok(IntOrString::Int(*one)),
        _ => Err(Refused::at(
            path,
            format!(
                "{number} is a host port of this container and stands for more than one of its ports; give the port a name and write that"
            ),
        )),
    }
}

/// A probe as v1. `None`: it is switched off. `key` names it in `written`.
pub fn to_v1(
    path: &str,
    key: &str,
    probe: &LivenessProbe,
    ports: &[v1::ContainerPort],
    written: &mut Written,
) -> Result<Option<v1::Probe>, Refused> {
    match &probe.enabled {
        None | Some(Enabled::Truth(true)) => {}
        Some(Enabled::Truth(false)) => return Ok(None),
        Some(Enabled::Text(text)) if text.is_empty() || text == "true" => {}
        Some(Enabled::Text(text)) if text == "false" => return Ok(None),
        Some(Enabled::Text(text)) => {
            return Err(Refused::at(
                format!("{path}.enabled"),
                format!("{text:?} is neither true nor false"),
            ));
        }
    }
    let mut keep = |port: &IntOrString, now: &IntOrString| {
        if port != now
            && let Ok(value) = serde_json::to_value(port)
        {
            written.0.insert(key.to_owned(), value);
        }
    };
    let handlers = (&probe.http_get, &probe.tcp_socket, &probe.exec);
    let (kind, http_get, tcp_socket, exec) = match handlers {
        (Some(http), None, None) => {
            let action = http_to_v1(&format!("{path}.httpGet"), http, ports)?;
            if let Some(port) = &http.port {
                keep(port, &action.port);
            }
            ("http", Some(action), None, None)
        }
        (None, Some(tcp), None) => {
            let action = tcp_to_v1(&format!("{path}.tcpSocket"), tcp, ports)?;
            if let Some(port) = &tcp.port {
                keep(port, &action.port);
            }
            ("tcp", None, Some(action), None)
        }
        (None, None, Some(exec)) => ("exec", None, None, Some(exec_to_v1(exec))),
        _ => {
            return Err(Refused::at(
                path,
                "it should hold exactly one of httpGet, tcpSocket and exec",
            ));
        }
    };
    if let Some(other) = said(probe.kind.as_ref()).filter(|k| k != kind) {
        return Err(Refused::at(
            format!("{path}.type"),
            format!("{other:?}, but the probe holds one of type {kind:?}"),
        ));
    }
    Ok(Some(v1::Probe {
        http_get,
        tcp_socket,
        exec,
        initial_delay_seconds: probe.initial_delay_seconds.filter(|s| *s != 0),
        // v1beta1's default, written: v1's is the same today.
        timeout_seconds: Some(probe.timeout_seconds.filter(|s| *s != 0).unwrap_or(1)),
        ..v1::Probe::default()
    }))
}

fn http_to_v1(
    path: &str,
    action: &HttpGetAction,
    ports: &[v1::ContainerPort],
) -> Result<v1::HTTPGetAction, Refused> {
    let port = action
        .port
        .as_ref()
        .ok_or_else(|| Refused::at(format!("{path}.port"), "it is missing"))?;
    Ok(v1::HTTPGetAction {
        path: Some(said(action.path.as_ref()).unwrap_or_else(|| "/".to_owned())),
        port: target(&format!("{path}.port"), port, ports)?,
        host: said(action.host.as_ref()),
        ..v1::HTTPGetAction::default()
    })
}

fn tcp_to_v1(
    path: &str,
    action: &TcpSocketAction,
    ports: &[v1::ContainerPort],
) -> Result<v1::TCPSocketAction, Refused> {
    let port = action
        .port
        .as_ref()
        .ok_or_else(|| Refused::at(format!("{path}.port"), "it is missing"))?;
    Ok(v1::TCPSocketAction {
        port: target(&format!("{path}.port"), port, ports)?,
        host: None,
    })
}

fn exec_to_v1(action: &ExecAction) -> v1::ExecAction {
    v1::ExecAction {
        command: action.command.clone(),
    }
}

/// A probe as v1beta1; none when v1beta1 cannot say it: gRPC, and a port whose number v1beta1 would
/// take for a host port.
pub fn from_v1(
    key: &str,
    probe: &v1::Probe,
    ports: &[v1::ContainerPort],
    written: &Written,
) -> Option<LivenessProbe> {
    let mut out = LivenessProbe {
        enabled: Some(Enabled::Truth(true)),
        initial_delay_seconds: probe.initial_delay_seconds.filter(|s| *s != 0),
        timeout_seconds: probe.timeout_seconds,
        ..LivenessProbe::default()
    };
    let port = |now: &IntOrString| {
        let port = written.port(key, now, ports);
        target("", &port, ports)
            .is_ok_and(|t| t == *now)
            .then_some(port)
    };
    let kind = if let Some(http) = &probe.http_get {
        let mut action = http_from_v1(http);
        action.port = Some(port(&http.port)?);
        out.http_get = Some(action);
        "http"
    } else if let Some(tcp) = &probe.tcp_socket {
        out.tcp_socket = Some(TcpSocketAction {
            port: Some(port(&tcp.port)?),
        });
        "tcp"
    } else {
        out.exec = Some(exec_from_v1(probe.exec.as_ref()?));
        "exec"
    };
    out.kind = Some(kind.to_owned());
    Some(out)
}

fn http_from_v1(action: &v1::HTTPGetAction) -> HttpGetAction {
    HttpGetAction {
        path: action.path.clone(),
        port: Some(action.port.clone()),
        host: action.host.clone(),
    }
}

fn exec_from_v1(action: &v1::ExecAction) -> ExecAction {
    ExecAction {
        command: action.command.clone(),
    }
}

/// Hooks as v1.
pub fn lifecycle_to_v1(
    path: &str,
    lifecycle: &Lifecycle,
    ports: &[v1::ContainerPort],
) -> Result<Option<v1::Lifecycle>, Refused> {
    let hook = |name: &str, hook: &Option<Handler>| {
        let Some(hook) = hook else { return Ok(None) };
        let path = format!("{path}.{name}");
        let (exec, http_get) = match (&hook.exec, &hook.http_get, &hook.tcp_socket) {
            (Some(exec), None, None) => (Some(exec_to_v1(exec)), None),
            (None, Some(http), None) => (
                None,
                Some(http_to_v1(&format!("{path}.httpGet"), http, ports)?),
            ),
            (None, None, Some(_)) => {
                return Err(Refused::at(path, "tcpSocket never was a hook that works"));
            }
            _ => {
                return Err(Refused::at(
                    path,
                    "it should hold exactly one of exec and httpGet",
                ));
            }
        };
        Ok(Some(v1::LifecycleHandler {
            exec,
            http_get,
            ..v1::LifecycleHandler::default()
        }))
    };
    let out = v1::Lifecycle {
        post_start: hook("postStart", &lifecycle.post_start)?,
        pre_stop: hook("preStop", &lifecycle.pre_stop)?,
        ..v1::Lifecycle::default()
    };
    Ok((out != v1::Lifecycle::default()).then_some(out))
}

/// Hooks as v1beta1.
pub fn lifecycle_from_v1(lifecycle: &v1::Lifecycle) -> Option<Lifecycle> {
    let hook = |hook: &Option<v1::LifecycleHandler>| {
        let hook = hook.as_ref()?;
        let out = Handler {
            exec: hook.exec.as_ref().map(exec_from_v1),
            http_get: hook.http_get.as_ref().map(http_from_v1),
            tcp_socket: None,
        };
        (out != Handler::default()).then_some(out)
    };
    let out = Lifecycle {
        post_start: hook(&lifecycle.post_start),
        pre_stop: hook(&lifecycle.pre_stop),
    };
    (out != Lifecycle::default()).then_some(out)
}
