//! The walk-throughs of docs/ that happen in a container, as they are written: the rules as they are shipped, the command of the
//! page in a pod, and what the page shows of the alert. The one about the audit log is in operator/tests/audit.rs.

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, image, try_wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::{LONG, case};
use crate::steps::{installed, root};

pub fn trials() -> Vec<Trial> {
    vec![
        case("the_walk_through_of_cve_2020_8557_is_as_it_is_written", |cluster| {
            walk(cluster, "cve-2020-8557", "HostsFileWrittenInAContainerCVE20208557")
        }),
        case("the_walk_through_of_cve_2020_14386_is_as_it_is_written", |cluster| {
            walk(cluster, "cve-2020-14386", "PacketSocketAskedForInAContainerCVE202014386")
        }),
    ]
}

/// The block of a page that stands behind a mark.
fn block(page: &str, mark: &str) -> Result<String> {
    let behind = page.split_once(&format!("<!-- {mark} -->")).map(|(_, behind)| behind);
    let block = behind.and_then(|behind| behind.split("```").nth(1)).and_then(|block| block.split_once('\n'));
    Ok(block.with_context(|| format!("the page has no block `{mark}`"))?.1.to_owned())
}

fn walk(cluster: &Cluster, name: &str, reason: &str) -> Result<()> {
    installed(cluster)?;
    let read = |path: String| {
        let path = root().join(path);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let page = read(format!("docs/walkthroughs/{name}.md"))?;
    let (command, shown) = (block(&page, "command: container")?, block(&page, "alerts")?);
    cluster.kubectl_apply(&read(format!("config/rules/{name}.yaml"))?)?;
    let ready = try_wait_for(LONG, &format!("{name} is Ready"), || {
        let rule = cluster.kubectl_json(["get", "clusterfalcorule", name])?;
        let conditions = rule["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(()))
    });
    ready?;
    let space = cluster.namespace("walk")?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "victim"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "app", "image": image::BUSYBOX, "imagePullPolicy": "Never",
                // What the command comes to is its own business: the attempt is what is told.
                "command": ["sh", "-c", format!("{command}\nsleep 3600")],
            }],
        },
    });
    space.apply(&pod.to_string())?;
    let mut seen: Vec<Value> = Vec::new();
    let about = "--field-selector=reportingComponent=gyrfalcon.dev/sensor,involvedObject.name=victim";
    let event = try_wait_for(LONG, &format!("an Event {reason} on the pod"), || {
        seen = space.kubectl_json(["get", "events", about])?["items"].as_array().cloned().unwrap_or_default();
        Ok(seen.iter().find(|event| event["reason"] == reason).cloned())
    });
    let event = event.with_context(|| format!("there are {seen:#?}"))?;
    let message = event["message"].as_str().unwrap_or_default();
    ensure!(message.starts_with(shown.trim_end()), "the page shows\n{shown}the Event says\n{message}");
    cluster.kubectl(["delete", "clusterfalcorule", name, "--wait=false"])?.success().map(drop)
}
