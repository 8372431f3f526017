//! Keeps a file with an account's token good while the process lives: whoever reads it for each
//! call never sends one that has ended.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use packaging::files::{SECRET, write_atomic};
use rand::Rng as _;

use super::{Account, Error, Token};

/// Pauses between attempts to log in: the first, doubled each time up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long the first login may take with all its attempts; whoever started this starts it again.
const FIRST: Duration = Duration::from_secs(120);
/// Between two logins at least, whatever a token says of its life.
const LEAST: Duration = Duration::from_secs(1);

/// Logs in once and writes the token. From then on a task renews it until the runtime ends.
pub async fn begin(account: Account, path: PathBuf) -> Result<(), Error> {
    let token = account.login().await?;
    write(&path, &token)?;
    tokio::spawn(renew(account, token.renew_at, path));
    Ok(())
}

/// The same with several attempts at the first login.
pub async fn keep(account: Account, path: PathBuf) -> Result<(), Error> {
    let token = tokio::time::timeout(FIRST, login(&account)).await;
    let token = match token {
        Ok(token) => token,
        // What stands in the way, once more.
        Err(_) => account.login().await?,
    };
    write(&path, &token)?;
    tokio::spawn(renew(account, token.renew_at, path));
    Ok(())
}

/// The same for an account whose secret lies in a file.
pub async fn keep_of_file(secret: PathBuf, path: PathBuf) -> Result<(), Error> {
    let text = tokio::fs::read_to_string(&secret)
        .await
        .map_err(|e| Error::Secret(format!("read {}: {e}", secret.display())))?;
    let none = || Error::Secret(format!("{} holds no account", secret.display()));
    keep(Account::parse(&text).ok_or_else(none)??, path).await
}

async fn renew(account: Account, mut due: SystemTime, path: PathBuf) {
    loop {
        let left = due.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::time::sleep(left.max(LEAST)).await;
        let token = login(&account).await;
        due = match write(&path, &token) {
            Ok(()) => token.renew_at,
            Err(error) => {
                tracing::warn!("{error}");
                SystemTime::now() + PAUSES.1
            }
        };
    }
}

/// Attempts until one succeeds.
async fn login(account: &Account) -> Token {
    let (mut pause, longest) = PAUSES;
    loop {
        match account.login().await {
            Ok(token) => return token,
            Err(error) => tracing::warn!("{error}"),
        }
        let jitter = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(longest);
    }
}

fn write(path: &Path, token: &Token) -> Result<(), Error> {
    write_atomic(path, token.value.as_bytes(), SECRET).map_err(|source| Error::Write {
        path: path.to_owned(),
        reason: crate::error::chain(&source),
    })
}
