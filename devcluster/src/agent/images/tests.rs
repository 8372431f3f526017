use super::*;
use crate::agent::volumes::VolumeKey;

fn config() -> ImagesConfig {
    ImagesConfig {
        origin: Origin::Directory("/images".into()),
        store_dir: "/store".into(),
        store_bytes: 1,
        credentials: Credentials::default(),
        authority: None,
        docker_containerizer: false,
    }
}

fn mesos(image: pb::Image) -> pb::ContainerInfo {
    pb::ContainerInfo {
        r#type: pb::container_info::Type::Mesos as i32,
        mesos: Some(pb::container_info::MesosInfo { image: Some(image) }),
        ..Default::default()
    }
}

fn docker_image(name: &str) -> pb::Image {
    pb::Image {
        r#type: pb::image::Type::Docker as i32,
        docker: Some(pb::image::Docker {
            name: name.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn docker(change: impl FnOnce(&mut pb::container_info::DockerInfo)) -> pb::ContainerInfo {
    let mut info = pb::container_info::DockerInfo {
        image: "a:1".to_owned(),
        ..Default::default()
    };
    change(&mut info);
    pb::ContainerInfo {
        r#type: pb::container_info::Type::Docker as i32,
        docker: Some(info),
        ..Default::default()
    }
}

#[test]
fn an_origin_is_a_directory_or_a_registry() {
    for (text, shown) in [
        ("/var/images", "/var/images"),
        ("https://registry-1.docker.io", "https://docker.io"),
        ("http://r.example.org:5000/", "http://r.example.org:5000"),
    ] {
        assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
    }
    for bad in ["", "images", "hdfs://x", "https://", "https://r/path"] {
        assert!(bad.parse::<Origin>().is_err(), "{bad}");
    }
}

#[test]
fn what_this_agent_cannot_do_is_refused_by_name() {
    let secrets = Secrets::default();
    let refused = |container: &pb::ContainerInfo, config: Option<&ImagesConfig>| {
        wanted(Some(container), config, &secrets).unwrap_err()
    };
    let (off, mut on) = (None, config());
    let appc = mesos(pb::Image {
        r#type: pb::image::Type::Appc as i32,
        ..Default::default()
    });
    assert!(refused(&appc, Some(&on)).contains("Appc"));
    let plain = mesos(docker_image("a:1"));
    assert!(refused(&plain, off).contains("--image-providers=docker"));
    let bad = mesos(docker_image("a:b:c"));
    assert!(refused(&bad, Some(&on)).contains("`a:b:c`"));
    let words = refused(&docker(|_| {}), Some(&on));
    assert!(
        words.starts_with("None of the enabled containerizers"),
        "{words}"
    );
    on.docker_containerizer = true;
    use pb::container_info::docker_info::Network;
    let bridge = docker(|d| d.network = Some(Network::Bridge as i32));
    assert!(refused(&bridge, Some(&on)).contains("BRIDGE"));
    let parameter = docker(|d| {
        d.parameters = vec![pb::Parameter {
            key: "cap-add".to_owned(),
            value: "ALL".to_owned(),
        }];
    });
    assert!(refused(&parameter, Some(&on)).contains("`cap-add`"));
    let none = pb::ContainerInfo {
        r#type: pb::container_info::Type::Mesos as i32,
        ..Default::default()
    };
    assert!(wanted(Some(&none), off, &secrets).unwrap().is_none());
    assert!(wanted(None, off, &secrets).unwrap().is_none());
}

#[test]
fn volumes_are_seen_where_they_are_wanted() {
    let volume = |host: &str, inside: &str| pb::Volume {
        mode: pb::volume::Mode::Ro as i32,
        host_path: Some(host.to_owned()),
        container_path: inside.to_owned(),
        ..Default::default()
    };
    let seen = binds(&[
        volume("/etc", "/inside/etc"),
        volume("/etc/passwd", "users"),
    ])
    .unwrap();
    assert_eq!(seen[0].target, PathBuf::from("/inside/etc"));
    assert_eq!(seen[1].target, PathBuf::from("/mnt/mesos/sandbox/users"));
    assert!(seen[0].read_only);
    for (host, inside, why) in [
        ("/no/such/path", "/x", "does not exist"),
        ("relative", "/x", "only absolute ones"),
        ("/etc", "../x", "no place for a volume"),
    ] {
        let error = binds(&[volume(host, inside)]).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let layout = crate::agent::paths::Layout::below(std::path::Path::new("/w"));
    let mount = |path: &str| Mount {
        volume: VolumeKey {
            role: "r".to_owned(),
            id: "v".to_owned(),
        },
        container_path: path.to_owned(),
    };
    let bind = persistent(&layout, &[mount("data")]).unwrap().remove(0);
    assert_eq!(bind.target, PathBuf::from("/mnt/mesos/sandbox/data"));
    assert_eq!(bind.source, PathBuf::from("/w/work/volumes/roles/r/v"));
    assert!(persistent(&layout, &[mount("/data")]).is_err());
}
