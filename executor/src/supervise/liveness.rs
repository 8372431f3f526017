//! Sees that a component which runs has stopped working.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::UnixDatagram;

use super::readiness::http;
use crate::component::{Liveness, Sign};
use crate::cri::Cri;

/// So many questions in a row must have gone unanswered, however long that took: after a pause of
/// the whole machine the first one finds everybody silent.
const LEAST_QUESTIONS: u32 = 3;

/// When a component counts as hanging. Pure; times are since it came up.
#[derive(Debug)]
struct Pulse {
    patience: Duration,
    last: Duration,
    unanswered: u32,
}

impl Pulse {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            last: Duration::ZERO,
            unanswered: 0,
        }
    }

    /// It gave a sign of life.
    fn alive(&mut self, now: Duration) {
        self.last = now;
        self.unanswered = 0;
    }

    /// It was asked and gave none. Returns for how long there was none, once that is too long.
    fn silent(&mut self, now: Duration) -> Option<Duration> {
        self.unanswered = self.unanswered.saturating_add(1);
        let since = now.saturating_sub(self.last);
        (since >= self.patience && self.unanswered >= LEAST_QUESTIONS).then_some(since)
    }
}

/// Where a component's notifications arrive.
pub struct Notifications(Option<UnixDatagram>);

impl Notifications {
    /// Makes the socket that the component needs, if it needs one, before the component starts.
    /// What an earlier executor left at its place is replaced: senders name the path each time.
    pub fn of(liveness: Option<&Liveness>) -> io::Result<Self> {
        let Some(Liveness {
            sign: Sign::Notify { socket, .. },
            ..
        }) = liveness
        else {
            return Ok(Self(None));
        };
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let bound = UnixDatagram::bind(socket)?;
        only_for_owner(socket)?;
        Ok(Self(Some(bound)))
    }

    /// Whether a sign of life came, now or within `every`.
    async fn heard(&self, every: Duration) -> Result<(), String> {
        let Some(socket) = &self.0 else {
            return std::future::pending().await;
        };
        let heard = async {
            while !alive(socket).map_err(|error| error.to_string())? {
                socket.readable().await.map_err(|error| error.to_string())?;
            }
            Ok(())
        };
        tokio::time::timeout(every, heard)
            .await
            .unwrap_or_else(|_| Err("it sent no notification".to_owned()))
    }
}

/// Takes all that has arrived, since senders wait when the queue is full, and says whether a sign
/// of life was among it.
fn alive(socket: &UnixDatagram) -> io::Result<bool> {
    let mut datagram = [0; 512];
    let mut alive = false;
    loop {
        match socket.try_recv(&mut datagram) {
            Ok(length) => {
                let text = datagram.get(..length).unwrap_or_default();
                alive |= text
                    .split(|b| *b == b'\n')
                    .any(|line| line == b"WATCHDOG=1");
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(alive),
            Err(error) => return Err(error),
        }
    }
}

fn only_for_owner(socket: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))
}

/// Returns once the component hangs, and says in words what is missing. Never without a liveness.
pub async fn lost(liveness: Option<&Liveness>, notifications: &Notifications) -> String {
    let Some(liveness) = liveness else {
        return std::future::pending().await;
    };
    let Liveness {
        sign,
        every,
        patience,
    } = liveness;
    let began = Instant::now();
    let mut pulse = match sign {
        Sign::Notify { first, .. } => Pulse::new((*first).max(*patience)),
        _ => Pulse::new(*patience),
    };
    loop {
        let asked = Instant::now();
        let answer = match sign {
            Sign::Notify { .. } => notifications.heard(*every).await,
            _ => tokio::time::timeout(*every, ask(sign))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", every.as_secs()))),
        };
        match answer {
            Ok(()) => {
                pulse.patience = *patience;
                pulse.alive(began.elapsed());
            }
            Err(why) => {
                if let Some(silent) = pulse.silent(began.elapsed()) {
                    return format!("it gave no sign of life for {} s ({why})", silent.as_secs());
                }
            }
        }
        tokio::time::sleep(every.saturating_sub(asked.elapsed())).await;
    }
}

async fn ask(sign: &Sign) -> Result<(), String> {
    match sign {
        Sign::Http { address, path } => match http(*address, path).await {
            Some(status) if status < 400 => Ok(()),
            Some(status) => Err(format!("http://{address}{path} answers status {status}")),
            None => Err(format!("http://{address}{path} does not answer")),
        },
        Sign::ContainerRuntime(socket) => {
            let asked = async { Cri::connect(socket).await?.version().await };
            asked.await.map(drop).map_err(|error| error.to_string())
        }
        Sign::Notify { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_component_hangs_when_it_was_silent_for_long_and_was_asked_often() {
        let mut pulse = Pulse::new(60 * SECOND);
        assert_eq!(pulse.silent(10 * SECOND), None);
        assert_eq!(pulse.silent(20 * SECOND), None);
        assert_eq!(pulse.silent(30 * SECOND), None);
        assert_eq!(pulse.silent(60 * SECOND), Some(60 * SECOND));
    }

    #[test]
    fn one_answer_makes_up_for_all_silence_before() {
        let mut pulse = Pulse::new(60 * SECOND);
        for at in [10, 30, 50] {
            assert_eq!(pulse.silent(at * SECOND), None);
        }
        pulse.alive(55 * SECOND);
        assert_eq!(pulse.silent(60 * SECOND), None);
        assert_eq!(pulse.silent(100 * SECOND), None);
        assert_eq!(pulse.silent(115 * SECOND), Some(60 * SECOND));
    }

    #[test]
    fn a_machine_that_slept_is_no_hang() {
        let mut pulse = Pulse::new(60 * SECOND);
        pulse.alive(10 * SECOND);
        assert_eq!(pulse.silent(8 * 3600 * SECOND), None);
        pulse.alive(8 * 3600 * SECOND + SECOND);
        assert_eq!(pulse.silent(8 * 3600 * SECOND + 2 * SECOND), None);
    }

    fn notify(socket: &Path) -> Liveness {
        Liveness {
            sign: Sign::Notify {
                socket: socket.to_owned(),
                first: SECOND / 5,
            },
            every: Duration::from_millis(20),
            patience: Duration::from_millis(100),
        }
    }

    #[tokio::test]
    async fn notifications_are_signs_of_life_until_they_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        // Left by an executor that was killed.
        drop(UnixDatagram::bind(&path).unwrap());
        let liveness = notify(&path);
        let notifications = Notifications::of(Some(&liveness)).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let mut lost = Box::pin(lost(Some(&liveness), &notifications));
        for _ in 0..30 {
            sender.send_to(b"WATCHDOG=1", &path).await.unwrap();
            let early = tokio::time::timeout(Duration::from_millis(10), &mut lost).await;
            assert!(early.is_err(), "{early:?}");
        }
        let why = tokio::time::timeout(5 * SECOND, lost).await.unwrap();
        assert!(why.contains("no notification"), "{why}");
    }

    #[tokio::test]
    async fn other_notifications_are_no_signs_of_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let liveness = notify(&path);
        let notifications = Notifications::of(Some(&liveness)).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1\nSTATUS=x", &path).await.unwrap();
        assert!(notifications.heard(SECOND / 20).await.is_err());
        sender
            .send_to(b"STATUS=y\nWATCHDOG=1", &path)
            .await
            .unwrap();
        assert!(notifications.heard(SECOND).await.is_ok());
    }

    #[tokio::test]
    async fn who_takes_connections_and_does_not_answer_hangs() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let liveness = Liveness {
            sign: Sign::Http {
                address: listener.local_addr().unwrap(),
                path: "/livez".to_owned(),
            },
            every: Duration::from_millis(20),
            patience: Duration::from_millis(100),
        };
        let none = Notifications::of(Some(&liveness)).unwrap();
        let why = tokio::time::timeout(5 * SECOND, lost(Some(&liveness), &none))
            .await
            .unwrap();
        assert!(why.contains("no answer within"), "{why}");
    }
}
