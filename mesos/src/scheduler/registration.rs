//! What a framework subscribes with, kept up to date with what it has changed since.

use crate::pb;
use pb::scheduler::call::{Subscribe, Type, UpdateFramework};

/// The content of the next SUBSCRIBE. A plain value.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    subscribe: Subscribe,
}

impl Registration {
    /// The first one.
    pub fn new(subscribe: Subscribe) -> Self {
        Self { subscribe }
    }

    /// The SUBSCRIBE call.
    pub fn subscribe_call(&self) -> pb::scheduler::Call {
        pb::scheduler::Call {
            // Mesos wants the id in both places.
            framework_id: self.subscribe.framework_info.id.clone(),
            r#type: Some(Type::Subscribe.into()),
            subscribe: Some(self.subscribe.clone()),
            ..Default::default()
        }
    }

    /// The UPDATE_FRAMEWORK call that replaces FrameworkInfo and keeps all the rest.
    pub(super) fn update_call(&self, info: pb::FrameworkInfo) -> pb::scheduler::Call {
        let info = self.with_id(info);
        let mut suppressed_roles = self.subscribe.suppressed_roles.clone();
        let roles = roles_of(&info);
        // Mesos refuses to suppress a role that the framework does not have.
        suppressed_roles.retain(|role| roles.contains(role));
        pb::scheduler::Call {
            r#type: Some(Type::UpdateFramework.into()),
            update_framework: Some(UpdateFramework {
                framework_info: info,
                suppressed_roles,
                offer_constraints: self.subscribe.offer_constraints.clone(),
            }),
            ..Default::default()
        }
    }

    /// The master has given, or confirmed, the framework's id.
    pub(super) fn subscribed(&mut self, id: pb::FrameworkId) {
        self.subscribe.framework_info.id = Some(id);
    }

    /// The master has accepted a call: the next SUBSCRIBE must not undo it.
    pub(super) fn accepted(&mut self, call: pb::scheduler::Call) {
        match call.r#type() {
            Type::Suppress => {
                let roles = call.suppress.unwrap_or_default().roles;
                for role in self.named_or_all(roles) {
                    if !self.subscribe.suppressed_roles.contains(&role) {
                        self.subscribe.suppressed_roles.push(role);
                    }
                }
            }
            Type::Revive => {
                let roles = self.named_or_all(call.revive.unwrap_or_default().roles);
                self.subscribe
                    .suppressed_roles
                    .retain(|role| !roles.contains(role));
            }
            Type::UpdateFramework => {
                if let Some(update) = call.update_framework {
                    self.subscribe.framework_info = self.with_id(update.framework_info);
                    self.subscribe.suppressed_roles = update.suppressed_roles;
                    self.subscribe.offer_constraints = update.offer_constraints;
                }
            }
            _ => {}
        }
    }

    fn named_or_all(&self, roles: Vec<String>) -> Vec<String> {
        if roles.is_empty() {
            roles_of(&self.subscribe.framework_info)
        } else {
            roles
        }
    }

    fn with_id(&self, mut info: pb::FrameworkInfo) -> pb::FrameworkInfo {
        info.id = self.subscribe.framework_info.id.clone().or(info.id);
        info
    }
}

/// The roles of a framework: the list with MULTI_ROLE, the one role without.
fn roles_of(info: &pb::FrameworkInfo) -> Vec<String> {
    let multi_role = info
        .capabilities
        .iter()
        .any(|c| c.r#type() == pb::framework_info::capability::Type::MultiRole);
    if multi_role {
        info.roles.clone()
    } else {
        vec![info.role().to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        Registration::new(Subscribe {
            framework_info: pb::FrameworkInfo {
                roles: vec!["a".to_owned(), "b".to_owned()],
                capabilities: vec![pb::framework_info::Capability {
                    r#type: Some(pb::framework_info::capability::Type::MultiRole.into()),
                }],
                ..Default::default()
            },
            suppressed_roles: vec!["b".to_owned()],
            ..Default::default()
        })
    }

    fn suppress(roles: &[&str]) -> pb::scheduler::Call {
        pb::scheduler::Call {
            r#type: Some(Type::Suppress.into()),
            suppress: Some(pb::scheduler::call::Suppress {
                roles: roles.iter().map(|&role| role.to_owned()).collect(),
            }),
            ..Default::default()
        }
    }

    fn suppressed(registration: &Registration) -> Vec<String> {
        let call = registration.subscribe_call();
        call.subscribe.unwrap_or_default().suppressed_roles
    }

    #[test]
    fn a_revived_role_is_not_suppressed_again_by_the_next_subscription() {
        let mut registration = registration();
        registration.accepted(pb::scheduler::Call {
            r#type: Some(Type::Revive.into()),
            ..Default::default()
        });
        assert_eq!(suppressed(&registration), Vec::<String>::new());
        registration.accepted(suppress(&["a"]));
        assert_eq!(suppressed(&registration), ["a"]);
        registration.accepted(suppress(&[]));
        assert_eq!(suppressed(&registration), ["a", "b"]);
    }

    #[test]
    fn the_id_that_the_master_gave_goes_into_both_places_and_survives_updates() {
        let mut registration = registration();
        let id = pb::FrameworkId {
            value: "f".to_owned(),
        };
        registration.subscribed(id.clone());
        let update = registration.update_call(pb::FrameworkInfo {
            name: "renamed".to_owned(),
            ..Default::default()
        });
        registration.accepted(update);
        let call = registration.subscribe_call();
        assert_eq!(call.framework_id, Some(id.clone()));
        let info = call.subscribe.unwrap_or_default().framework_info;
        assert_eq!((info.id, info.name.as_str()), (Some(id), "renamed"));
        // It has no role `b` any more.
        assert_eq!(suppressed(&registration), Vec::<String>::new());
    }
}
