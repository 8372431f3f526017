//! DC/OS' strict mode on devcluster: service accounts with keys of this run, a login whose tokens
//! live shortly, and the flags by which Mesos and Marathon want them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use devcluster::jwt;
use serde_json::{Value, json};

use crate::support::Cluster;

/// How long tokens are good: much shorter than the test, so whoever does not renew is locked out.
const TOKEN_SECONDS: u64 = 20;
/// The path of the framework's service account in Marathon's secrets.
pub const SECRET: &str = "kubernetes/sa";
/// The accounts. Marathon has one as well, under DC/OS' name.
const ACCOUNTS: [&str; 2] = ["kubernetes", "dcos_marathon"];

/// What the framework's may do with secrets: what the documentation names.
const PERMISSIONS: [&str; 2] = [
    "dcos:secrets:default:/kubernetes/* full",
    "dcos:secrets:default:/kubernetes-cp/* full",
];

/// The files of a strict cluster.
pub struct Strict {
    dir: PathBuf,
    secrets: PathBuf,
    /// `http://host:port` of the admin router.
    pub url: String,
    signing: jwt::Key,
}

/// What signs the tokens.
pub fn key(cluster: &Cluster) -> jwt::Key {
    jwt::Key::load(&cluster.dir().join("strict/tokens.pem")).unwrap()
}

fn openssl(args: &[&str], input: Option<&Path>) -> String {
    let mut command = Command::new("openssl");
    command.args(args).stderr(Stdio::null());
    if let Some(file) = input {
        command.arg("-in").arg(file);
    }
    let output = command.output().expect("openssl is there");
    assert!(output.status.success(), "openssl {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Strict {
    /// Keys of accounts and tokens, and the secret that the framework's app gets.
    pub fn new(cluster: &Cluster, url: String) -> Self {
        let dir = cluster.dir().join("strict");
        std::fs::create_dir_all(&dir).unwrap();
        let pair = |name: &str| {
            let bits = ["-pkeyopt", "rsa_keygen_bits:2048"];
            let private = openssl(
                &[&["genpkey", "-algorithm", "RSA"], &bits[..]].concat(),
                None,
            );
            let file = dir.join(format!("{name}.pem"));
            std::fs::write(&file, &private).unwrap();
            let public = openssl(&["rsa", "-pubout"], Some(&file));
            std::fs::write(dir.join(format!("{name}.pub")), &public).unwrap();
            (private, public)
        };
        let mut accounts = json!({});
        for uid in ACCOUNTS {
            let (private, public) = pair(uid);
            accounts[uid] = public.into();
            let secret = json!({
                "uid": uid, "scheme": "RS256", "private_key": private,
                "login_endpoint": format!("{url}/acs/api/v1/auth/login"),
            });
            std::fs::write(dir.join(format!("{uid}.json")), secret.to_string()).unwrap();
        }
        std::fs::write(dir.join("accounts.json"), accounts.to_string()).unwrap();
        let permissions = json!({ACCOUNTS[0]: PERMISSIONS});
        std::fs::write(dir.join("permissions.json"), permissions.to_string()).unwrap();
        pair("tokens");
        std::fs::write(dir.join("executors"), "e".repeat(48)).unwrap();
        let secrets = cluster.dir().join("secrets");
        let secret = secrets.join(SECRET);
        std::fs::create_dir_all(secret.parent().unwrap()).unwrap();
        std::fs::copy(dir.join("kubernetes.json"), secret).unwrap();
        Self {
            signing: key(cluster),
            dir,
            secrets,
            url,
        }
    }

    fn file(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.dir.join(name).display())
    }

    /// Flags of the master: nobody without a token.
    pub fn master(&self) -> Vec<String> {
        let guards = ["frameworks", "readonly", "readwrite"];
        let mut flags = vec![self.file("dcos-token-key", "tokens.pub")];
        flags.extend(guards.map(|g| format!("--authenticate-http-{g}")));
        flags
    }

    /// Flags of an agent: executors have the token that it gave them.
    pub fn agent(&self) -> Vec<String> {
        vec![
            "--authenticate-http-executors".to_owned(),
            self.file("executor-secret-key", "executors"),
        ]
    }

    /// Flags of Marathon.
    pub fn marathon(&self) -> Vec<String> {
        vec![
            "--mesos-principal=dcos_marathon".to_owned(),
            self.file("dcos-service-account", "dcos_marathon.json"),
            self.file("dcos-token-key", "tokens.pub"),
        ]
    }

    /// Flags of DC/OS itself.
    pub fn dcos(&self) -> Vec<String> {
        vec![
            "--strict".to_owned(),
            self.file("service-accounts", "accounts.json"),
            self.file("token-key", "tokens.pem"),
            self.file("secret-permissions", "permissions.json"),
            format!("--secrets-dir={}", self.secrets.display()),
            format!("--token-life={TOKEN_SECONDS}"),
        ]
    }

    /// A token of an operator's, whose life is that of a test.
    pub fn operator(&self) -> String {
        let claims = json!({"uid": "operator", "exp": jwt::now() + 3600});
        self.signing.sign(&claims).unwrap()
    }

    /// A token of the framework's account that has ended.
    pub fn ended(&self) -> String {
        let claims = json!({"uid": "kubernetes", "exp": jwt::now() - 1});
        self.signing.sign(&claims).unwrap()
    }

    /// Every door is shut without a good token, and who subscribes is who the token names.
    pub fn shut(&self, master: &str, marathon: &str) {
        let mesos = format!("http://{master}/api/v1");
        let scheduler = format!("{mesos}/scheduler");
        let agents = json!({"type": "GET_AGENTS"});
        let subscribe = |principal: &str| {
            let info = json!({"user": "root", "name": "liar", "principal": principal});
            json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}})
        };
        let subscription = subscribe("kubernetes");
        let ended = self.ended();
        for token in [None, Some(ended.as_str())] {
            for (url, body) in [
                (self.url.clone() + "/marathon/v2/apps", None),
                (
                    self.url.clone() + "/service/kubernetes/v1/plans/deploy",
                    None,
                ),
                (self.url.clone() + "/mesos/state", None),
                (format!("{marathon}/v2/apps"), None),
                (format!("http://{master}/state"), None),
                (mesos.clone(), Some(&agents)),
                (scheduler.clone(), Some(&subscription)),
            ] {
                let (code, challenge, said) = asked(&url, token, body);
                assert_eq!(code, "401", "{url}: {said}");
                assert_eq!(challenge, "acsjwt", "{url}");
            }
        }
        let operator = self.operator();
        assert_eq!(asked(&mesos, Some(&operator), Some(&agents)).0, "200");
        // In the words and with the code of the recorded Mesos.
        let (code, _, said) = asked(&scheduler, Some(&operator), Some(&subscription));
        assert_eq!(code, "400", "{said}");
        assert!(
            said.contains("does not match principal 'kubernetes'"),
            "{said}"
        );
    }
}

/// The code of an answer, the scheme that it wants, and what it says.
fn asked(url: &str, token: Option<&str>, body: Option<&Value>) -> (String, String, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10"]);
    command.args(["-w", "\n%{http_code} %header{www-authenticate}"]);
    if let Some(token) = token {
        command.arg(format!("-HAuthorization: token={token}"));
    }
    if let Some(body) = body {
        command.arg("-HContent-Type: application/json");
        command.args(["-HAccept: application/json", &format!("-d{body}")]);
    }
    let output = command.arg(url).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (said, last) = text.rsplit_once('\n').unwrap_or_default();
    let (code, challenge) = last.split_once(' ').unwrap_or_default();
    (code.to_owned(), challenge.to_owned(), said.to_owned())
}
