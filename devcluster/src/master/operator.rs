//! The operator API (v1): what the cluster looks like, and a few things that can be done to it.

use mesos::pb;
use mesos::pb::master::call::Type as CallType;
use mesos::pb::master::response::Type as ResponseType;
use mesos::pb::master::{Call, Response, response};

use super::event::{Answer, Effect, StreamId};
use super::state::{HEARTBEAT, MasterState, Owner, VERSION};
use super::view;
use crate::ids::{AgentId, FrameworkId};
use crate::resources::{Format, Resources};

/// Operators that may listen at a time.
const MAX_OPERATORS: usize = 1000;

fn response(kind: ResponseType) -> Response {
    Response {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

/// Checks an operator's call before anything else looks at it.
pub fn validate(call: &Call) -> Result<(), String> {
    let missing = |what: &str| Err(format!("Expecting '{what}' to be present"));
    if call.r#type.is_none() {
        return missing("type");
    }
    match call.r#type() {
        CallType::Teardown if call.teardown.is_none() => missing("teardown"),
        CallType::MarkAgentGone if call.mark_agent_gone.is_none() => missing("mark_agent_gone"),
        CallType::DeactivateAgent if call.deactivate_agent.is_none() => missing("deactivate_agent"),
        CallType::ReactivateAgent if call.reactivate_agent.is_none() => missing("reactivate_agent"),
        CallType::UpdateQuota if call.update_quota.is_none() => missing("update_quota"),
        CallType::UpdateWeights if call.update_weights.is_none() => missing("update_weights"),
        CallType::DrainAgent if call.drain_agent.is_none() => missing("drain_agent"),
        CallType::UpdateMaintenanceSchedule if call.update_maintenance_schedule.is_none() => {
            missing("update_maintenance_schedule")
        }
        CallType::StartMaintenance if call.start_maintenance.is_none() => {
            missing("start_maintenance")
        }
        CallType::StopMaintenance if call.stop_maintenance.is_none() => missing("stop_maintenance"),
        CallType::GetMetrics if call.get_metrics.is_none() => missing("get_metrics"),
        CallType::SetLoggingLevel if call.set_logging_level.is_none() => {
            missing("set_logging_level")
        }
        CallType::ListFiles if call.list_files.is_none() => missing("list_files"),
        CallType::ReadFile if call.read_file.is_none() => missing("read_file"),
        _ => Ok(()),
    }
}

impl MasterState {
    pub(super) fn subscribe_operator(&mut self, stream: StreamId) -> Answer {
        if self.operators.len() >= MAX_OPERATORS {
            return Answer::error(503, "Too many subscribers");
        }
        self.operators.insert(stream);
        self.streams.insert(stream, Owner::Operator);
        let event = pb::master::Event {
            r#type: Some(pb::master::event::Type::Subscribed as i32),
            subscribed: Some(pb::master::event::Subscribed {
                get_state: Some(view::get_state(self)),
                heartbeat_interval_seconds: Some(HEARTBEAT.as_secs_f64()),
            }),
            ..Default::default()
        };
        self.effects.push(Effect::ToOperator {
            stream,
            event: Box::new(event),
        });
        self.heartbeat(stream, self.now);
        Answer::Stream
    }

    #[allow(deprecated, reason = "old calls are refused by name")]
    pub(super) fn operator_call(&mut self, call: Call) -> Answer {
        let out = match call.r#type() {
            CallType::Unknown => return Answer::error(501, ""),
            // Handled where the response stream is made.
            CallType::Subscribe => return Answer::error(501, ""),
            CallType::GetHealth => Response {
                get_health: Some(response::GetHealth { healthy: true }),
                ..response(ResponseType::GetHealth)
            },
            CallType::GetFlags => Response {
                get_flags: Some(response::GetFlags {
                    flags: self
                        .flags()
                        .into_iter()
                        .map(|(name, value)| pb::Flag {
                            name: name.to_owned(),
                            value: Some(value),
                        })
                        .collect(),
                }),
                ..response(ResponseType::GetFlags)
            },
            CallType::GetVersion => Response {
                get_version: Some(response::GetVersion {
                    version_info: version_info(),
                }),
                ..response(ResponseType::GetVersion)
            },
            CallType::GetMetrics => Response {
                get_metrics: Some(response::GetMetrics {
                    metrics: self
                        .metrics_snapshot()
                        .into_iter()
                        .map(|(name, value)| pb::Metric {
                            name: name.to_owned(),
                            value: Some(value),
                        })
                        .collect(),
                }),
                ..response(ResponseType::GetMetrics)
            },
            CallType::GetLoggingLevel => Response {
                get_logging_level: Some(response::GetLoggingLevel { level: 0 }),
                ..response(ResponseType::GetLoggingLevel)
            },
            // Levels are set by the environment of the process.
            CallType::SetLoggingLevel => return Answer::Ok,
            // No files are attached: the log goes to standard error.
            CallType::ListFiles | CallType::ReadFile => return Answer::error(404, ""),
            CallType::GetState => Response {
                get_state: Some(view::get_state(self)),
                ..response(ResponseType::GetState)
            },
            CallType::GetAgents => Response {
                get_agents: Some(view::get_agents(self)),
                ..response(ResponseType::GetAgents)
            },
            CallType::GetFrameworks => Response {
                get_frameworks: Some(view::get_frameworks(self)),
                ..response(ResponseType::GetFrameworks)
            },
            CallType::GetExecutors => Response {
                get_executors: Some(view::get_executors(self)),
                ..response(ResponseType::GetExecutors)
            },
            CallType::GetOperations => Response {
                get_operations: Some(response::GetOperations::default()),
                ..response(ResponseType::GetOperations)
            },
            CallType::GetTasks => Response {
                get_tasks: Some(view::get_tasks(self)),
                ..response(ResponseType::GetTasks)
            },
            CallType::GetRoles => Response {
                get_roles: Some(response::GetRoles {
                    roles: self.roles().into_iter().map(|(role, _)| role).collect(),
                }),
                ..response(ResponseType::GetRoles)
            },
            CallType::GetWeights => {
                let weights = &self.allocator.config().weights;
                Response {
                    get_weights: (!weights.is_empty()).then(|| response::GetWeights {
                        weight_infos: weights
                            .iter()
                            .map(|(role, weight)| pb::WeightInfo {
                                weight: *weight,
                                role: Some(role.clone()),
                            })
                            .collect(),
                    }),
                    ..response(ResponseType::GetWeights)
                }
            }
            CallType::GetMaster => Response {
                get_master: Some(response::GetMaster {
                    master_info: Some(self.info.clone()),
                    start_time: Some(self.started.as_secs_f64()),
                    elected_time: Some(self.started.as_secs_f64()),
                }),
                ..response(ResponseType::GetMaster)
            },
            CallType::GetMaintenanceStatus => Response {
                get_maintenance_status: Some(response::GetMaintenanceStatus {
                    status: self.maintenance_status(),
                }),
                ..response(ResponseType::GetMaintenanceStatus)
            },
            CallType::GetMaintenanceSchedule => Response {
                get_maintenance_schedule: Some(response::GetMaintenanceSchedule {
                    schedule: self.registry.schedule.clone(),
                }),
                ..response(ResponseType::GetMaintenanceSchedule)
            },
            CallType::GetQuota => Response {
                get_quota: Some(response::GetQuota {
                    status: self.quota_status(),
                }),
                ..response(ResponseType::GetQuota)
            },
            CallType::Teardown => {
                let id = call.teardown.map(|t| t.framework_id).unwrap_or_default();
                return self.teardown(&FrameworkId::from(&id));
            }
            CallType::MarkAgentGone => {
                let id = call.mark_agent_gone.map(|m| m.agent_id).unwrap_or_default();
                return self.mark_gone(&AgentId::from(&id));
            }
            CallType::DeactivateAgent => {
                let id = call
                    .deactivate_agent
                    .map(|d| d.agent_id)
                    .unwrap_or_default();
                return self.deactivate_agent(&AgentId::from(&id));
            }
            CallType::ReactivateAgent => {
                let id = call
                    .reactivate_agent
                    .map(|d| d.agent_id)
                    .unwrap_or_default();
                return self.reactivate_agent(&AgentId::from(&id));
            }
            CallType::DrainAgent => {
                return self.drain_agent(&call.drain_agent.unwrap_or_default());
            }
            CallType::UpdateMaintenanceSchedule => {
                let call = call.update_maintenance_schedule.unwrap_or_default();
                return self.update_schedule(call.schedule);
            }
            CallType::StartMaintenance => {
                let machines = call.start_maintenance.unwrap_or_default().machines;
                return self.machines_down(&machines);
            }
            CallType::StopMaintenance => {
                let machines = call.stop_maintenance.unwrap_or_default().machines;
                return self.machines_up(&machines);
            }
            CallType::ReserveResources
            | CallType::UnreserveResources
            | CallType::CreateVolumes
            | CallType::DestroyVolumes => return self.operator_operation(call),
            CallType::UpdateQuota => {
                return self.update_quota(&call.update_quota.unwrap_or_default());
            }
            CallType::UpdateWeights => {
                let infos = call.update_weights.unwrap_or_default().weight_infos;
                return self.update_weights(&infos);
            }
            CallType::SetQuota => {
                let call = call.set_quota.unwrap_or_default();
                return self.set_quota(&call.quota_request);
            }
            CallType::RemoveQuota => {
                return self.remove_quota(&call.remove_quota.unwrap_or_default().role);
            }
            kind @ (CallType::GrowVolume | CallType::ShrinkVolume) => {
                return Answer::error(
                    501,
                    format!(
                        "{} is not supported by this master (devcluster)",
                        kind.as_str_name()
                    ),
                );
            }
        };
        Answer::Response(Box::new(out))
    }

    fn operator_operation(&mut self, call: pb::master::Call) -> Answer {
        use pb::offer::operation as op;
        let operation = |kind: op::Type| pb::offer::Operation {
            r#type: Some(kind as i32),
            ..Default::default()
        };
        let (agent, operation) = if let Some(call) = call.reserve_resources {
            let reserve = op::Reserve {
                resources: call.resources,
                ..Default::default()
            };
            let operation = pb::offer::Operation {
                reserve: Some(reserve),
                ..operation(op::Type::Reserve)
            };
            (call.agent_id, operation)
        } else if let Some(call) = call.unreserve_resources {
            let unreserve = op::Unreserve {
                resources: call.resources,
            };
            let operation = pb::offer::Operation {
                unreserve: Some(unreserve),
                ..operation(op::Type::Unreserve)
            };
            (call.agent_id, operation)
        } else if let Some(call) = call.create_volumes {
            let create = op::Create {
                volumes: call.volumes,
            };
            let operation = pb::offer::Operation {
                create: Some(create),
                ..operation(op::Type::Create)
            };
            (call.agent_id, operation)
        } else {
            let call = call.destroy_volumes.unwrap_or_default();
            let destroy = op::Destroy {
                volumes: call.volumes,
            };
            let operation = pb::offer::Operation {
                destroy: Some(destroy),
                ..operation(op::Type::Destroy)
            };
            (call.agent_id, operation)
        };
        self.operator_conversion(&agent, &operation)
    }

    /// Ends a framework on an operator's word.
    pub(super) fn teardown(&mut self, id: &FrameworkId) -> Answer {
        if self.frameworks.contains_key(id) {
            self.remove_framework(id);
            Answer::Ok
        } else {
            Answer::bad_request("No framework found with specified ID")
        }
    }

    /// Roles that are in use, with what they hold.
    pub(super) fn roles(&self) -> Vec<(pb::Role, Resources)> {
        let mut out = Vec::new();
        for name in self.allocator.known_roles() {
            let mut holds = Resources::default();
            let mut members = Vec::new();
            for (id, framework) in &self.frameworks {
                if framework.roles.contains(&name) {
                    members.push(id.to_pb());
                }
                let (used, offered) = view::used_and_offered(self, id);
                for resource in used.iter().chain(offered.iter()) {
                    if resource.allocation() == Some(name.as_str()) {
                        holds.add(resource);
                    }
                }
            }
            if members.is_empty() && holds.is_empty() {
                continue;
            }
            let scalars = holds
                .unallocated()
                .filter(|r| matches!(r.value(), crate::resources::Value::Scalar(_)));
            let mut resources = scalars.to_pb(Format::PostRefinement);
            resources.sort_by(|a, b| a.name.cmp(&b.name));
            let role = pb::Role {
                weight: self.allocator.weight(&name),
                name,
                frameworks: members,
                resources,
            };
            out.push((role, holds));
        }
        out
    }

    /// The settings by the names of Mesos' flags.
    pub(super) fn flags(&self) -> Vec<(&'static str, String)> {
        let s = &self.settings;
        let secs = as_flag;
        let mut out = vec![
            ("agent_ping_timeout", secs(s.agent_ping_timeout)),
            ("agent_reregister_timeout", secs(s.agent_reregister_timeout)),
            ("allocation_interval", secs(s.allocator.interval)),
            ("allocator", "hierarchical".to_owned()),
            ("authenticate_agents", "false".to_owned()),
            ("authenticate_frameworks", "false".to_owned()),
            ("authenticate_http_frameworks", "false".to_owned()),
            (
                "filter_gpu_resources",
                s.allocator.filter_gpu_resources.to_string(),
            ),
            ("framework_sorter", "drf".to_owned()),
            (
                "max_agent_ping_timeouts",
                s.max_agent_ping_timeouts.to_string(),
            ),
            (
                "max_completed_frameworks",
                s.max_completed_frameworks.to_string(),
            ),
            (
                "max_completed_tasks_per_framework",
                s.max_completed_tasks.to_string(),
            ),
            (
                "max_unreachable_tasks_per_framework",
                s.max_unreachable_tasks.to_string(),
            ),
            ("registry", "devcluster".to_owned()),
            ("role_sorter", "drf".to_owned()),
            ("version", "false".to_owned()),
        ];
        if let Some(timeout) = s.offer_timeout {
            out.push(("offer_timeout", secs(timeout)));
        }
        if !s.roles.is_empty() {
            let roles: Vec<_> = s.roles.iter().map(String::as_str).collect();
            out.push(("roles", roles.join(",")));
        }
        if !s.allocator.weights.is_empty() {
            let weights: Vec<_> = s
                .allocator
                .weights
                .iter()
                .map(|(r, w)| format!("{r}={w}"))
                .collect();
            out.push(("weights", weights.join(",")));
        }
        out.sort_unstable();
        out
    }

    /// Numbers by the names of Mesos' metrics.
    pub(super) fn metrics_snapshot(&self) -> Vec<(&'static str, f64)> {
        let count = |n: usize| n as f64;
        let mut out: Vec<_> = self.metrics.iter().map(|(k, v)| (*k, *v as f64)).collect();
        let agents = || self.agents.values();
        let frameworks = || self.frameworks.values();
        let connected = frameworks().filter(|f| f.connected()).count();
        let in_state = |state: pb::TaskState| {
            frameworks()
                .flat_map(|f| f.tasks.values())
                .filter(|t| t.pb.state == state as i32)
                .count()
        };
        let (mut total, mut used) = (Resources::default(), Resources::default());
        for agent in agents() {
            total.add_all(&agent.total);
            used.add_all(&view::agent_used_and_offered(self, agent).0);
        }
        let amount = |r: &Resources, name| r.scalar(name).unwrap_or_default().to_f64();
        let share = |name| match amount(&total, name) {
            0.0 => 0.0,
            all => amount(&used, name) / all,
        };
        out.extend([
            ("master/elected", 1.0),
            (
                "master/uptime_secs",
                self.now.since(self.started).as_secs_f64(),
            ),
            (
                "master/slaves_connected",
                count(agents().filter(|a| a.stream.is_some()).count()),
            ),
            (
                "master/slaves_disconnected",
                count(agents().filter(|a| a.stream.is_none()).count()),
            ),
            (
                "master/slaves_active",
                count(agents().filter(|a| a.active()).count()),
            ),
            (
                "master/slaves_inactive",
                count(agents().filter(|a| !a.active()).count()),
            ),
            (
                "master/slaves_unreachable",
                count(self.registry.unreachable.len()),
            ),
            ("master/frameworks_connected", count(connected)),
            ("master/frameworks_active", count(connected)),
            (
                "master/frameworks_disconnected",
                count(self.frameworks.len() - connected),
            ),
            (
                "master/frameworks_inactive",
                count(self.frameworks.len() - connected),
            ),
            ("master/outstanding_offers", count(self.offers.len())),
            (
                "master/tasks_staging",
                count(in_state(pb::TaskState::TaskStaging)),
            ),
            (
                "master/tasks_starting",
                count(in_state(pb::TaskState::TaskStarting)),
            ),
            (
                "master/tasks_running",
                count(in_state(pb::TaskState::TaskRunning)),
            ),
            (
                "master/tasks_killing",
                count(in_state(pb::TaskState::TaskKilling)),
            ),
            (
                "master/tasks_unreachable",
                count(frameworks().map(|f| f.unreachable.len()).sum()),
            ),
            ("master/cpus_total", amount(&total, "cpus")),
            ("master/cpus_used", amount(&used, "cpus")),
            ("master/cpus_percent", share("cpus")),
            ("master/mem_total", amount(&total, "mem")),
            ("master/mem_used", amount(&used, "mem")),
            ("master/mem_percent", share("mem")),
            ("master/disk_total", amount(&total, "disk")),
            ("master/disk_used", amount(&used, "disk")),
            ("master/disk_percent", share("disk")),
            ("master/gpus_total", amount(&total, "gpus")),
            ("master/gpus_used", amount(&used, "gpus")),
        ]);
        out.sort_by_key(|(name, _)| *name);
        out
    }
}

/// A duration as Mesos writes it: in the largest unit in which it is whole.
fn as_flag(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, length) in [
        ("weeks", 604_800_000_000_000),
        ("days", 86_400_000_000_000),
        ("hrs", 3_600_000_000_000),
        ("mins", 60_000_000_000),
        ("secs", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ] {
        if nanos > 0 && nanos.is_multiple_of(length) {
            return format!("{}{unit}", nanos / length);
        }
    }
    format!("{nanos}ns")
}

/// The version whose behaviour is implemented, and who implements it.
pub(super) fn version_info() -> pb::VersionInfo {
    pb::VersionInfo {
        version: VERSION.to_owned(),
        build_user: Some("devcluster".to_owned()),
        git_tag: Some(format!("devcluster-{}", env!("CARGO_PKG_VERSION"))),
        ..Default::default()
    }
}
