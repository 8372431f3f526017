use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use axum::routing::post;
use axum::{Json, Router};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::*;

/// An RSA key of this run, by openssl: ring makes none, and keys are not committed.
struct Key {
    /// PKCS #8 in PEM, as DC/OS' secrets hold it.
    private: String,
    /// PKCS #1 in DER.
    public: Vec<u8>,
    /// As an account is registered with.
    public_pem: String,
}

static KEY: LazyLock<Key> = LazyLock::new(|| {
    let private = openssl(
        &[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ],
        b"",
    );
    let public = openssl(&["rsa", "-RSAPublicKey_out", "-outform", "DER"], &private);
    let public_pem = openssl(&["rsa", "-pubout"], &private);
    Key {
        private: String::from_utf8(private).unwrap(),
        public,
        public_pem: String::from_utf8(public_pem).unwrap(),
    }
});

fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl, which `scripts/setup check` installs");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

fn secret(endpoint: &str) -> String {
    json!({
        "uid": "kubernetes", "scheme": "RS256", "private_key": KEY.private, "login_endpoint": endpoint,
    })
    .to_string()
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn dcos_is_where_the_login_is() {
    for endpoint in [
        "https://master.mesos/acs/api/v1/auth/login",
        "https://master.mesos",
    ] {
        let account = Account::parse(&secret(endpoint)).unwrap().unwrap();
        assert_eq!(account.dcos(), "https://master.mesos");
    }
}

#[test]
fn a_login_is_signed_by_the_accounts_key() {
    let account = Account::parse(&secret("https://leader.mesos/acs/api/v1/auth/login"));
    let token = account.unwrap().unwrap().assertion(1000).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(decoded(parts[0])["alg"], "RS256");
    assert_eq!(decoded(parts[1]), json!({"uid": "kubernetes", "exp": 1300}));
    let signed = format!("{}.{}", parts[0], parts[1]);
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &KEY.public)
        .verify(
            signed.as_bytes(),
            &URL_SAFE_NO_PAD.decode(parts[2]).unwrap(),
        )
        .unwrap();
}

#[test]
fn what_is_no_service_account_is_told_from_one_that_is_damaged() {
    assert!(Account::parse("a password").is_none());
    assert!(Account::parse(r#"{"principal": "p", "secret": "s"}"#).is_none());
    let damaged = Account::parse(r#"{"login_endpoint": "https://x", "private_key": 5}"#);
    assert!(
        damaged
            .unwrap()
            .unwrap_err()
            .to_string()
            .contains("private_key")
    );
    let other = json!({"uid": "u", "private_key": "k", "login_endpoint": "l", "scheme": "HS256"});
    assert!(Account::parse(&other.to_string()).unwrap().is_err());
    let account = Account::parse(&secret("x")).unwrap().unwrap();
    assert!(!format!("{account:?}").contains("PRIVATE"));
    let no_key = json!({"uid": "u", "private_key": "no PEM", "login_endpoint": "l"});
    let error = Account::parse(&no_key.to_string())
        .unwrap()
        .unwrap()
        .assertion(0);
    assert!(matches!(error, Err(Error::Key { .. })));
}

async fn endpoint(answer: Result<Value, axum::http::StatusCode>) -> String {
    endpoint_of(move || answer.clone()).await
}

async fn endpoint_of<F>(answer: F) -> String
where
    F: Fn() -> Result<Value, axum::http::StatusCode> + Clone + Send + Sync + 'static,
{
    let router = Router::new().route(
        "/login",
        post(move |Json(body): Json<Value>| async move {
            assert_eq!(body["uid"], "kubernetes");
            answer().map(Json)
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/login")
}

#[tokio::test]
async fn a_token_is_renewed_well_before_it_ends() {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let body = URL_SAFE_NO_PAD.encode(json!({"exp": now + 4000}).to_string());
    let endpoint = endpoint(Ok(json!({"token": format!("h.{body}.s")}))).await;
    let account = Account::parse(&secret(&endpoint)).unwrap().unwrap();
    let token = account.login().await.unwrap();
    let left = token
        .renew_at
        .duration_since(SystemTime::now())
        .unwrap()
        .as_secs();
    assert!((2900..=3000).contains(&left), "{left}");
    assert!(!format!("{token:?}").contains(&body));
}

#[tokio::test]
async fn the_file_with_the_token_has_the_next_one_before_the_first_ends() {
    let logins = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&logins);
    let endpoint = endpoint_of(move || {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let body = json!({"exp": now.as_secs() + 3, "number": number}).to_string();
        // The second login fails, and is tried again.
        match number {
            1 => Err(axum::http::StatusCode::SERVICE_UNAVAILABLE),
            _ => Ok(json!({"token": format!("h.{}.s", URL_SAFE_NO_PAD.encode(body))})),
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let account = Account::parse(&secret(&endpoint)).unwrap().unwrap();
    keep(account, path.clone()).await.unwrap();
    let first = std::fs::read_to_string(&path).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let replaced = async {
        while std::fs::read_to_string(&path).unwrap() == first {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), replaced)
        .await
        .expect("the token is renewed");
    assert!(logins.load(std::sync::atomic::Ordering::SeqCst) >= 3);
}

#[tokio::test]
async fn a_refused_login_says_who_and_where() {
    let endpoint = endpoint(Err(axum::http::StatusCode::UNAUTHORIZED)).await;
    let account = Account::parse(&secret(&endpoint)).unwrap().unwrap();
    let error = account.login().await.unwrap_err().to_string();
    assert!(
        error.contains("log in as kubernetes") && error.contains("401"),
        "{error}"
    );
}

/// DC/OS for one process: its login, and its secret store.
pub(crate) struct Dcos {
    pub base: String,
    /// Its secrets.
    pub dir: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl Dcos {
    /// With the account `kubernetes`, which has these permissions.
    pub async fn start(permissions: &[&str], marathon: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let accounts = [("kubernetes".to_owned(), KEY.public_pem.clone())].into();
        let lines = permissions.iter().map(|p| (*p).to_owned()).collect();
        let permissions = [("kubernetes".to_owned(), lines)].into();
        let secrets = dir.path().join("secrets");
        let config = devcluster::dcos::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            marathon: marathon.to_owned(),
            mesos: "http://127.0.0.1:1".to_owned(),
            release: "2.1".to_owned(),
            work_dir: dir.path().to_owned(),
            accounts: devcluster::dcos::auth::Accounts::new(&accounts, Duration::from_secs(1000))
                .unwrap(),
            secrets: devcluster::dcos::secrets::Secrets::new(Some(secrets), &permissions).unwrap(),
            poll: Duration::from_secs(1),
        };
        let running = devcluster::dcos::start(config, stop.clone()).await.unwrap();
        Self {
            base: format!("http://{}", running.address()),
            dir,
            _stop: stop.drop_guard(),
        }
    }

    /// The account, with its token.
    pub async fn account(&self) -> (Account, Token) {
        let login = format!("{}/acs/api/v1/auth/login", self.base);
        let account = Account::parse(&secret(&login)).unwrap().unwrap();
        let token = account.login().await.unwrap();
        (account, token)
    }
}

#[tokio::test]
async fn dcos_lets_in_who_logs_in_with_the_accounts_key_and_nobody_else() {
    let dcos = Dcos::start(&[], "http://127.0.0.1:1").await;
    let url = |path: &str| format!("{}{path}", dcos.base);
    let login = url("/acs/api/v1/auth/login");
    let (_, token) = dcos.account().await;
    let client = crate::http::client(None, Duration::from_secs(10)).unwrap();
    let ask = |authorization: String| {
        let request = client
            .get(url("/capabilities"))
            .header("authorization", authorization);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask(format!("token={}", token.value)).await, 200);
    assert_eq!(ask(format!("token={}x", token.value)).await, 401);
    let other = secret(&login).replace("\"kubernetes\"", "\"somebody\"");
    let error = Account::parse(&other)
        .unwrap()
        .unwrap()
        .login()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("somebody"), "{error}");
}
