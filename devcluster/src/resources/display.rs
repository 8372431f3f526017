//! Resources as Mesos prints them; the texts appear in error messages.

use std::fmt;

use super::{Resource, Resources};

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.meta.name)?;
        if let Some(role) = &self.meta.allocation {
            write!(f, "(allocated: {role})")?;
        }
        if !self.meta.reservations.is_empty() {
            f.write_str("(reservations: [")?;
            for (i, r) in self.meta.reservations.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                let kind = r.r#type().as_str_name();
                write!(f, "{comma}({kind},{}", r.role.as_deref().unwrap_or(""))?;
                if let Some(principal) = &r.principal {
                    write!(f, ",{principal}")?;
                }
                if let Some(labels) = &r.labels {
                    f.write_str(",{")?;
                    for (j, label) in labels.labels.iter().enumerate() {
                        let comma = if j > 0 { ", " } else { "" };
                        write!(f, "{comma}{}", label.key)?;
                        if let Some(value) = &label.value {
                            write!(f, ": {value}")?;
                        }
                    }
                    f.write_str("}")?;
                }
                f.write_str(")")?;
            }
            f.write_str("])")?;
        }
        if let Some(rare) = &self.meta.rare {
            if let Some(disk) = &rare.disk {
                f.write_str("[")?;
                if let Some(p) = &disk.persistence {
                    f.write_str(&p.id)?;
                }
                if let Some(v) = &disk.volume {
                    write!(f, ":{}", v.container_path)?;
                }
                f.write_str("]")?;
            }
            if rare.revocable {
                f.write_str("{REV}")?;
            }
            if rare.shared {
                f.write_str("<SHARED>")?;
            }
        }
        write!(f, ":{}", self.value)
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("{}");
        }
        for (i, resource) in self.0.iter().enumerate() {
            let semicolon = if i > 0 { "; " } else { "" };
            write!(f, "{semicolon}{resource}")?;
        }
        Ok(())
    }
}
