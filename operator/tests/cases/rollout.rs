//! Staged rollouts on twenty nodes: step by step, and back when a node refuses the change or alerts come too fast.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    LONG, World,
    common::{sensor::alert, until},
};

/// The name of the resource.
const NAME: &str = "staged";

fn manifest(words: &str, rollout: &Value) -> Value {
    json!({
        "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "ClusterFalcoRule", "metadata": {"name": NAME},
        "spec": {
            "rules": format!(
                "- rule: Staged\n  desc: d\n  condition: evt.type = execve and proc.name = {words}\n  output: x\n  priority: INFO\n"
            ),
            "rollout": rollout,
        },
    })
}

/// How many sensors run this generation.
fn running(world: &World, uid: &str, generation: i64) -> usize {
    world.sensors.iter().filter(|sensor| sensor.state().generation(uid) == Some(generation)).count()
}

fn resource(world: &World) -> Result<Value> {
    world.plane.cluster.kubectl_json(["get", "clusterfalcorule", NAME])
}

/// Waits until the rollout is in this phase, and returns its status.
async fn phase(world: &World, wanted: &str, generation: i64) -> Result<Value> {
    let mut seen = Value::Null;
    let there = async || {
        seen = resource(world)?["status"].take();
        Ok(seen["observedGeneration"] == generation && seen["rollout"]["phase"] == wanted)
    };
    let waited = until(LONG, &format!("the rollout is {wanted}"), there).await;
    waited.with_context(|| format!("{seen:#}"))?;
    Ok(seen)
}

pub async fn a_rollout_goes_step_by_step_and_back_on_harm(world: &World) -> Result<()> {
    let all = world.sensors.len();
    let steps = json!({"strategy": "Staged", "steps": [30, 100], "interval": "3s"});
    world.kubectl_apply(&manifest("first", &steps)).await?;
    let uid = resource(world)?["metadata"]["uid"].as_str().context("a uid")?.to_owned();
    phase(world, "Progressing", 1).await?;
    until(LONG, "some nodes run it", async || Ok(running(world, &uid, 1) > 0)).await?;
    let some = running(world, &uid, 1);
    ensure!(some < all, "all at once");
    phase(world, "Completed", 1).await?;
    until(LONG, "all nodes run it", async || Ok(running(world, &uid, 1) == all)).await?;
    world.plane.rule_ready(NAME, LONG).await?;
    println!("{some} of {all} nodes first, then all");

    // A node that has it refuses it: everybody goes back.
    world.sensors.iter().for_each(|sensor| sensor.state().refuse(&uid, 2));
    world.kubectl_apply(&manifest("second", &steps)).await?;
    let status = phase(world, "RolledBack", 2).await?;
    until(LONG, "all nodes run what they ran before", async || Ok(running(world, &uid, 1) == all)).await?;
    let ready = status["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Ready").cloned();
    let ready = ready.context("it has a condition")?;
    ensure!(ready["status"] == "False" && ready["reason"] == "RolledBack", "{status:#}");
    let reason = status["rollout"]["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("rolled back at 30 %") && reason.contains("cannot run this"), "{reason}");
    println!("{reason}");

    // Alerts come too fast from a node that has it: the same.
    let steps = json!({
        "strategy": "Staged", "steps": [30, 100], "interval": "1h", "rollback": {"maxAlertsPerNodePerMinute": 20},
    });
    world.kubectl_apply(&manifest("third", &steps)).await?;
    phase(world, "Progressing", 3).await?;
    until(LONG, "some nodes run it", async || Ok(running(world, &uid, 3) > 0)).await?;
    let one = world.sensors.iter().find(|sensor| sensor.state().generation(&uid) == Some(3)).context("a sensor")?;
    (0..50).for_each(|_| one.alert(alert(&uid, "Staged", None)));
    let status = phase(world, "RolledBack", 3).await?;
    until(LONG, "all nodes run what they ran before", async || Ok(running(world, &uid, 1) == all)).await?;
    let reason = status["rollout"]["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("more than 20 alerts in a minute"), "{reason}");
    println!("{reason}");
    // An operator that takes over does not try it again.
    world.operator.kill()?;
    world.operator.spawn()?;
    world.operator.ready().await?;
    let connected = async || Ok(world.sensors.iter().all(|sensor| sensor.state().connected));
    until(LONG, "all sensors are connected again", connected).await?;
    let again = phase(world, "RolledBack", 3).await?;
    ensure!(running(world, &uid, 3) == 0, "{again:#}");
    Ok(())
}
