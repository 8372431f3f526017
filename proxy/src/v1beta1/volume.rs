//! Volumes.

use k8s_openapi::api::core::v1;

use super::types::{
    Claim, EbsDisk, EmptyDir, GcePersistentDisk, GitRepo, HostDir, Nfs, Reference, SecretTarget,
    Volume, VolumeSource,
};
use super::{Refused, said};

/// A volume as v1. One without a source is an empty directory, as it was.
pub fn to_v1(path: &str, volume: &Volume) -> Result<v1::Volume, Refused> {
    let mut out = v1::Volume {
        name: said(volume.name.as_ref()).unwrap_or_default(),
        ..v1::Volume::default()
    };
    let path = format!("{path}.source");
    let source = volume.source.clone().unwrap_or_default();
    let gone = [
        ("iscsi", source.iscsi.is_some()),
        ("glusterfs", source.glusterfs.is_some()),
        ("rbd", source.rbd.is_some()),
    ];
    if let Some((name, _)) = gone.iter().find(|(_, given)| *given) {
        return Err(Refused::at(
            format!("{path}.{name}"),
            "it is not converted; use a persistentVolumeClaim, or send the pod as v1",
        ));
    }
    let mut kinds = 0;
    if let Some(s) = source.host_dir {
        kinds += 1;
        out.host_path = Some(v1::HostPathVolumeSource {
            path: s.path.unwrap_or_default(),
            type_: None,
        });
    }
    if let Some(s) = source.empty_dir {
        kinds += 1;
        out.empty_dir = Some(v1::EmptyDirVolumeSource {
            medium: said(s.medium.as_ref()),
            ..v1::EmptyDirVolumeSource::default()
        });
    }
    if let Some(s) = source.persistent_disk {
        kinds += 1;
        out.gce_persistent_disk = Some(v1::GCEPersistentDiskVolumeSource {
            pd_name: s.pd_name.unwrap_or_default(),
            fs_type: said(s.fs_type.as_ref()),
            partition: s.partition.filter(|p| *p != 0),
            read_only: s.read_only.filter(|r| *r),
        });
    }
    if let Some(s) = source.aws_elastic_block_store {
        kinds += 1;
        out.aws_elastic_block_store = Some(v1::AWSElasticBlockStoreVolumeSource {
            volume_id: s.volume_id.unwrap_or_default(),
            fs_type: said(s.fs_type.as_ref()),
            partition: s.partition.filter(|p| *p != 0),
            read_only: s.read_only.filter(|r| *r),
        });
    }
    if let Some(s) = source.git_repo {
        kinds += 1;
        out.git_repo = Some(v1::GitRepoVolumeSource {
            repository: s.repository.unwrap_or_default(),
            revision: said(s.revision.as_ref()),
            directory: None,
        });
    }
    if let Some(s) = source.secret {
        kinds += 1;
        let target = s.target.unwrap_or_default();
        let name = said(target.name.as_ref()).or_else(|| said(target.id.as_ref()));
        out.secret = Some(v1::SecretVolumeSource {
            secret_name: Some(name.ok_or_else(|| {
                Refused::at(format!("{path}.secret.target.name"), "it is missing")
            })?),
            ..v1::SecretVolumeSource::default()
        });
    }
    if let Some(s) = source.nfs {
        kinds += 1;
        out.nfs = Some(v1::NFSVolumeSource {
            server: s.server.unwrap_or_default(),
            path: s.path.unwrap_or_default(),
            read_only: s.read_only.filter(|r| *r),
        });
    }
    if let Some(s) = source.persistent_volume_claim {
        kinds += 1;
        out.persistent_volume_claim = Some(v1::PersistentVolumeClaimVolumeSource {
            claim_name: s.claim_name.unwrap_or_default(),
            read_only: s.read_only.filter(|r| *r),
        });
    }
    match kinds {
        0 => out.empty_dir = Some(v1::EmptyDirVolumeSource::default()),
        1 => {}
        _ => return Err(Refused::at(path, "a volume has one source")),
    }
    Ok(out)
}

/// A volume as v1beta1; none when v1beta1 has no such volume.
pub fn from_v1(volume: &v1::Volume) -> Option<Volume> {
    let source = VolumeSource {
        host_dir: volume.host_path.as_ref().map(|s| HostDir {
            path: Some(s.path.clone()),
        }),
        empty_dir: volume.empty_dir.as_ref().map(|s| EmptyDir {
            medium: Some(s.medium.clone().unwrap_or_default()),
        }),
        persistent_disk: volume
            .gce_persistent_disk
            .as_ref()
            .map(|s| GcePersistentDisk {
                pd_name: Some(s.pd_name.clone()),
                fs_type: s.fs_type.clone(),
                partition: s.partition,
                read_only: s.read_only,
            }),
        aws_elastic_block_store: volume.aws_elastic_block_store.as_ref().map(|s| EbsDisk {
            volume_id: Some(s.volume_id.clone()),
            fs_type: s.fs_type.clone(),
            partition: s.partition,
            read_only: s.read_only,
        }),
        git_repo: volume.git_repo.as_ref().map(|s| GitRepo {
            repository: Some(s.repository.clone()),
            revision: s.revision.clone(),
        }),
        secret: volume.secret.as_ref().map(|s| SecretTarget {
            target: Some(Reference {
                kind: Some("Secret".to_owned()),
                name: s.secret_name.clone(),
                ..Reference::default()
            }),
        }),
        nfs: volume.nfs.as_ref().map(|s| Nfs {
            server: Some(s.server.clone()),
            path: Some(s.path.clone()),
            read_only: s.read_only,
        }),
        persistent_volume_claim: volume.persistent_volume_claim.as_ref().map(|s| Claim {
            claim_name: Some(s.claim_name.clone()),
            read_only: s.read_only,
        }),
        ..VolumeSource::default()
    };
    (source != VolumeSource::default()).then(|| Volume {
        name: Some(volume.name.clone()),
        source: Some(source),
    })
}
