//! The sentence of `FailedScheduling`: how many nodes were refused for which reason.

use std::collections::BTreeMap;

use super::filter::{Capacity, Rejection};
use crate::resources::demand::PodDemand;

/// Rejections of one pod, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    candidates: usize,
    reasons: BTreeMap<Rejection, usize>,
    largest: Capacity,
}

impl Diagnosis {
    /// Counts one refused candidate.
    pub fn add(&mut self, rejections: Vec<Rejection>, capacity: &Capacity) {
        self.candidates += 1;
        for rejection in rejections {
            *self.reasons.entry(rejection).or_default() += 1;
        }
        let largest = &mut self.largest;
        largest.cpu_millis = largest.cpu_millis.max(capacity.cpu_millis);
        largest.memory_bytes = largest.memory_bytes.max(capacity.memory_bytes);
        largest.disk_bytes = largest.disk_bytes.max(capacity.disk_bytes);
        largest.gpus = largest.gpus.max(capacity.gpus);
    }

    /// How many candidates were refused for this reason.
    pub fn count(&self, reason: &Rejection) -> usize {
        self.reasons.get(reason).copied().unwrap_or(0)
    }

    /// The sentence, in upstream's form, and what helps where we know it.
    pub fn message(&self, demand: &PodDemand) -> String {
        let mut message = format!("0/{0} nodes are available:", self.candidates);
        if self.candidates == 0 {
            message.push_str(" no Mesos agent has offered resources.");
            return message;
        }
        let mut reasons: Vec<String> = self
            .reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        reasons.sort();
        message.push_str(&format!(" {}.", reasons.join(", ")));
        for hint in self.hints(demand) {
            message.push(' ');
            message.push_str(&hint);
        }
        message
    }

    fn hints(&self, demand: &PodDemand) -> Vec<String> {
        let mut hints = Vec::new();
        let largest = &self.largest;
        let mut too_large = |wanted: u64, most: u64, wanted_text: String, most_text: String| {
            if most > 0 && wanted > most {
                hints.push(format!(
                    "The pod needs {wanted_text}, the largest agent has {most_text}: ask for less or add a larger agent."
                ));
            }
        };
        too_large(
            demand.cpu_millis,
            largest.cpu_millis,
            format!("{} of cpu", cpus(demand.cpu_millis)),
            cpus(largest.cpu_millis),
        );
        too_large(
            demand.memory_bytes,
            largest.memory_bytes,
            format!("{} of memory", mib(demand.memory_bytes)),
            mib(largest.memory_bytes),
        );
        too_large(
            demand.disk_bytes,
            largest.disk_bytes,
            format!("{} of ephemeral-storage", mib(demand.disk_bytes)),
            mib(largest.disk_bytes),
        );
        if self.count(&Rejection::PortNotOffered) > 0 {
            let ports: Vec<String> = demand.host_ports.iter().map(ToString::to_string).collect();
            hints.push(format!(
                "Host ports must be in the `ports` resource of a Mesos agent: {}.",
                ports.join(", ")
            ));
        }
        hints
    }
}

fn cpus(millis: u64) -> String {
    if millis.is_multiple_of(1_000) {
        (millis / 1_000).to_string()
    } else {
        format!("{millis}m")
    }
}

fn mib(bytes: u64) -> String {
    format!("{}Mi", bytes.div_ceil(crate::resources::MIB))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::MIB;

    const AGENT: Capacity = Capacity {
        cpu_millis: 8_000,
        memory_bytes: 16 * 1024 * MIB,
        disk_bytes: 100 * 1024 * MIB,
        gpus: 0,
    };

    #[test]
    fn the_message_counts_reasons_as_people_know_them() {
        let mut diagnosis = Diagnosis::default();
        for _ in 0..2 {
            diagnosis.add(
                vec![
                    Rejection::Insufficient("memory".into()),
                    Rejection::Insufficient("cpu".into()),
                ],
                &AGENT,
            );
        }
        diagnosis.add(vec![Rejection::Taint], &AGENT);
        let demand = PodDemand {
            cpu_millis: 500,
            ..PodDemand::default()
        };
        assert_eq!(
            diagnosis.message(&demand),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu, 2 Insufficient memory."
        );
    }

    #[test]
    fn a_pod_that_can_never_fit_is_told_so() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.add(vec![Rejection::Insufficient("cpu".into())], &AGENT);
        let demand = PodDemand {
            cpu_millis: 64_500,
            ..PodDemand::default()
        };
        assert_eq!(
            diagnosis.message(&demand),
            "0/1 nodes are available: 1 Insufficient cpu. \
             The pod needs 64500m of cpu, the largest agent has 8: ask for less or add a larger agent."
        );
    }

    #[test]
    fn without_offers_the_message_says_so() {
        assert_eq!(
            Diagnosis::default().message(&PodDemand::default()),
            "0/0 nodes are available: no Mesos agent has offered resources."
        );
    }
}
