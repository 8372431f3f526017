//! Agents in network namespaces of their own. These need root, `ip` and `nft`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use devcluster::netns::{self, Netns};

use super::support::is_root;

fn inside(netns: &Netns, program: &str, arguments: &[&str]) -> std::process::Output {
    Command::new("ip")
        .args(["netns", "exec", &netns.name(), program])
        .args(arguments)
        .output()
        .unwrap()
}

struct Swept(String);

impl Drop for Swept {
    fn drop(&mut self) {
        netns::sweep(&self.0).unwrap();
    }
}

#[test]
fn agents_reach_each_other_and_the_machine_and_a_sweep_leaves_nothing() {
    if !is_root("agents_reach_each_other_and_the_machine_and_a_sweep_leaves_nothing") {
        return;
    }
    let prefix = format!("ht{:04x}", std::process::id() & 0xffff);
    let subnet = netns::free_subnet(std::process::id()).unwrap();
    let swept = Swept(prefix.clone());
    let agents = [0, 1].map(|number| {
        let netns = Netns::new(&prefix, number, subnet).unwrap();
        netns.make().unwrap();
        // Safe to repeat.
        netns.make().unwrap();
        netns
    });
    let listener = TcpListener::bind((agents[0].gateway(), 0)).unwrap();
    let machine = listener.local_addr().unwrap();
    let connect = |to: SocketAddr| {
        let script = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
        inside(&agents[1], "timeout", &["5", "bash", "-c", &script]).status
    };
    assert!(connect(machine).success(), "the machine is not reached");

    // A server in the first namespace, until the sweep.
    let port = "31999";
    let script = format!(
        "import socket\ns = socket.create_server(('{}', {port}))\nwhile True: s.accept()[0].close()",
        agents[0].address()
    );
    let mut server = match Command::new("ip")
        .args(["netns", "exec", &agents[0].name(), "python3", "-c", &script])
        .spawn()
    {
        Ok(server) => server,
        Err(error) => panic!("{error}"),
    };
    let address = SocketAddr::new(agents[0].address().into(), port.parse().unwrap());
    let deadline = std::time::Instant::now() + super::support::PATIENCE;
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        assert!(
            std::time::Instant::now() < deadline,
            "the first agent is not reached"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(connect(address).success(), "the other agent is not reached");

    drop(swept);
    assert!(
        !server.wait().unwrap().success(),
        "the sweep ends what runs inside"
    );
    let left = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&prefix)
    };
    assert!(!left("ip", &["link"]));
    assert!(!left("ip", &["netns"]));
    assert!(!left("nft", &["list", "tables"]));
}
