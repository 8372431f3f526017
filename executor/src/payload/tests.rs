use std::io::Write;

use sha2::{Digest, Sha256};

use super::*;

fn archive(entries: &[(&str, &[u8], u32)], gzip: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        // `append_data` refuses climbing names, which a hostile archive has.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    if !gzip {
        return tar;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    encoder.finish().unwrap()
}

fn source(bytes: &[u8], urls: Vec<String>) -> Source {
    Source {
        urls,
        sha256: Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
        size: bytes.len() as u64,
        ca: String::new(),
    }
}

const GOOD: &[(&str, &[u8], u32)] = &[
    ("payload.json", b"{\"version\": 1}", 0o600),
    ("bin/kubelet", b"#!", 0o4755),
];

struct Place {
    dir: tempfile::TempDir,
    paths: Paths,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("data"), dir.path().join("run"));
        Self { dir, paths }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        format!("file://{}", path.display())
    }
}

#[tokio::test]
async fn a_payload_is_unpacked_plain_or_gzipped_with_tame_modes() {
    use std::os::unix::fs::PermissionsExt;
    for gzip in [false, true] {
        let place = Place::new();
        let bytes = archive(GOOD, gzip);
        let url = place.put("p.tar", &bytes);
        let payload = provide(&place.paths, &source(&bytes, vec![url]))
            .await
            .unwrap();
        let mode = fs::metadata(payload.dir.bin("kubelet"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755);
    }
}

#[tokio::test]
async fn a_place_with_the_wrong_bytes_is_passed_over() {
    let place = Place::new();
    let bytes = archive(GOOD, false);
    let wrong = place.put("wrong.tar", &vec![0; bytes.len()]);
    let short = place.put("short.tar", &bytes[..100]);
    let right = place.put("right.tar", &bytes);
    let missing = "file:///nonexistent/p.tar".to_owned();
    let source = source(&bytes, vec![missing, wrong, short, right]);
    provide(&place.paths, &source).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wrong_digest_names_the_place_and_both_digests() {
    let place = Place::new();
    let bytes = archive(GOOD, false);
    let mut other = bytes.clone();
    other[600] ^= 1;
    let url = place.put("p.tar", &other);
    let source = source(&bytes, vec![url.clone()]);
    let error = provide(&place.paths, &source).await.unwrap_err();
    assert!(error.retryable());
    let text = error.to_string();
    assert!(
        text.contains(&url) && text.contains("wrong digest"),
        "{text}"
    );
    assert!(text.contains(&source.sha256), "{text}");
    let left: Vec<_> = fs::read_dir(place.paths.payloads())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left.len(), 1, "only the lock stays: {left:?}");
}

#[tokio::test]
async fn an_archive_that_climbs_out_is_refused() {
    let place = Place::new();
    let bytes = archive(&[("../evil", b"x", 0o644)], false);
    let url = place.put("p.tar", &bytes);
    let error = provide(&place.paths, &source(&bytes, vec![url]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("leads out"), "{error}");
    assert!(!error.retryable());
    assert!(!place.paths.payloads().join("evil").exists());
}

#[tokio::test]
async fn bytes_that_are_no_archive_are_refused() {
    let place = Place::new();
    let bytes = b"no archive at all".repeat(100);
    let url = place.put("p.tar", &bytes);
    let error = provide(&place.paths, &source(&bytes, vec![url]))
        .await
        .unwrap_err();
    assert!(matches!(error, PayloadError::BadArchive { .. }), "{error}");
}

#[tokio::test]
async fn a_payload_beyond_the_free_space_is_refused_before_it_is_fetched() {
    let place = Place::new();
    let source = Source {
        urls: vec!["file:///nonexistent".to_owned()],
        sha256: "0".repeat(64),
        size: SIZE_MAX,
        ca: String::new(),
    };
    // Four times 8 GiB; where that much is free the fetch fails instead.
    let error = provide(&place.paths, &source).await.unwrap_err();
    assert!(
        matches!(
            error,
            PayloadError::NoSpace { .. } | PayloadError::Fetch { .. }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_digest_that_is_none_never_becomes_a_path() {
    let place = Place::new();
    let source = Source {
        urls: vec![],
        sha256: "../../etc".to_owned(),
        size: 1,
        ca: String::new(),
    };
    let error = provide(&place.paths, &source).await.unwrap_err();
    assert!(matches!(error, PayloadError::BadDigest(_)));
}

#[tokio::test]
async fn two_executors_fetch_once_and_an_unused_payload_goes() {
    let place = Place::new();
    let bytes = archive(GOOD, true);
    let url = place.put("p.tar", &bytes);
    let source = source(&bytes, vec![url]);
    let (a, b) = tokio::join!(
        provide(&place.paths, &source),
        provide(&place.paths, &source)
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.dir, b.dir);
    remove_unused(&place.paths, "another");
    assert!(a.dir.0.exists(), "in use");
    drop((a, b));
    remove_unused(&place.paths, &source.sha256);
    assert!(place.paths.payload(&source.sha256).exists(), "to be kept");
    remove_unused(&place.paths, "another");
    assert!(!place.paths.payload(&source.sha256).exists());
}

/// Serves the bytes by HTTPS; returns the place and the certificate of the authority.
async fn https(bytes: Vec<u8>) -> (String, String) {
    // Another test may have been faster.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let names = vec!["127.0.0.1".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/p.tar", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us ends here.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, cert.pem())
}

#[tokio::test]
async fn an_https_place_is_checked_against_the_given_authority() {
    let place = Place::new();
    let bytes = archive(GOOD, true);
    let (url, ca) = https(bytes.clone()).await;
    let mut source = source(&bytes, vec![url]);
    source.ca = ca;
    let payload = provide(&place.paths, &source).await.unwrap();
    assert!(payload.dir.bin("kubelet").exists());
}

#[tokio::test]
async fn an_https_place_of_another_authority_is_refused_with_the_reason() {
    let place = Place::new();
    let bytes = archive(GOOD, true);
    let (url, _) = https(bytes.clone()).await;
    let (_, ca) = https(Vec::new()).await;
    let mut source = source(&bytes, vec![url]);
    source.ca = ca;
    let error = provide(&place.paths, &source)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
}

#[tokio::test]
async fn certificates_that_are_none_are_refused_and_not_tried_again() {
    // As the executor's main does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let place = Place::new();
    for ca in [
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n",
    ] {
        let mut source = source(b"x", vec!["https://127.0.0.1:1/p.tar".to_owned()]);
        source.ca = ca.to_owned();
        let error = provide(&place.paths, &source).await.unwrap_err();
        assert!(error.to_string().contains("CA certificates"), "{error}");
        assert!(!error.retryable());
    }
}

#[tokio::test]
async fn a_disk_that_gets_full_is_named_and_worth_another_try() {
    let place = Place::new();
    let bytes = archive(GOOD, false);
    let url = place.put("p.tar", &bytes);
    // Each write to it is refused for want of space.
    let full = Path::new("/dev/full");
    let error = fetch::fetch(&source(&bytes, vec![url]), full)
        .await
        .unwrap_err();
    assert!(error.retryable(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("/dev/full") && text.contains("make room"),
        "{text}"
    );
}

#[tokio::test]
async fn a_program_is_fetched_whole_or_not_at_all() {
    let place = Place::new();
    let path = place.dir.path().join("program");
    let url = place.put("p", b"bytes");
    let good = source(b"bytes", vec![url.clone()]);
    fetch_file(&place.paths, &good, &path).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"bytes");
    let mut bad = source(b"other", vec![url]);
    bad.size = 5;
    tokio::time::pause();
    fetch_file(&place.paths, &bad, &path).await.unwrap_err();
    assert!(!path.exists());
}
