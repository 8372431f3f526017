//! The reference page of all options, `docs/options.md`.

use std::fmt::Write as _;

use super::check::plain;
use super::key::{Key, Schema};

const HEAD: &str = "\
# Options

Every option of a cluster. They are the same for `k8sm install` (`--set etcd.count=1`, `--options file.yaml`) and for the
DC/OS package (`--options=file.json`). In a file the dots are levels:

```yaml
etcd:
  count: 1
kubernetes:
  dns:
    domain: cluster.local
```

Later files and `--set` go over earlier ones; lists replace each other. No option holds a secret: secrets are named, by their
path in a secret store or by a file. *Fixed* options cannot change once the cluster exists; *advanced* ones are for
unusual installations. What the historical package called otherwise is in [from-k8sm.md](from-k8sm.md).

Made by `K8SM_UPDATE_DOCS=1 cargo test -p packaging --lib page`; do not edit.
";

/// The page, Markdown.
pub fn page(schema: &Schema) -> String {
    let mut page = HEAD.to_owned();
    for (group, about) in &schema.groups {
        let _ = write!(page, "\n## `{group}`\n\n{about}\n\n");
        page.push_str("| option | default | allowed | what |\n|---|---|---|---|\n");
        let prefix = format!("{group}.");
        let keys = schema.keys.iter().filter(|key| {
            key.path
                .strip_prefix(&prefix)
                .is_some_and(|name| !name.contains('.'))
        });
        for key in keys {
            page.push_str(&row(key));
        }
    }
    page
}

fn row(key: &Key) -> String {
    let marks: Vec<&str> = [(key.fixed, "*fixed*"), (key.advanced, "*advanced*")]
        .into_iter()
        .filter_map(|(is, mark)| is.then_some(mark))
        .collect();
    let mut what = key.description.clone();
    if !marks.is_empty() {
        let _ = write!(what, " ({})", marks.join(", "));
    }
    let default = match plain(&key.default) {
        empty if empty.is_empty() => String::new(),
        text => format!("`{text}`"),
    };
    let cells = [format!("`{}`", key.path), default, key.allows(), what];
    // A bar would end the cell, in code too.
    let cells: Vec<String> = cells.iter().map(|c| c.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}
