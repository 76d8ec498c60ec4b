//! An API server that refuses, a replica that is cut off from it, and a leader that is killed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    LONG, SENSORS, World,
    common::{
        process::{Operator, sum},
        storm::{Storm, one_series, single_events},
        throttle::{Refuse, Throttle},
        until,
    },
};

/// Longest time until another replica leads.
const FAILOVER: Duration = Duration::from_secs(20);

impl World {
    /// All sensors, with one rule of a resource.
    fn storm<'a>(&'a self, uid: &'a str, rules: &'a [String]) -> Storm<'a> {
        Storm { sensors: &self.sensors, places: &self.places, uid, rules }
    }

    /// Another replica, with a folder of its own.
    fn replica(&self, name: &str, kubeconfig: std::path::PathBuf) -> Result<Operator> {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder)?;
        Operator::through(kubeconfig, name, folder, &["--durable"])
    }

    /// Ends all replicas but the first, which leads again.
    async fn home(&self, others: &[&Operator]) -> Result<()> {
        for other in others {
            other.terminate().await?;
        }
        self.dial.use_only(&[self.operator.link]);
        self.operator.revive()?;
        self.operator.ready().await?;
        leads(&self.operator).await?;
        self.connected().await
    }

    async fn connected(&self) -> Result<()> {
        let all = async || Ok(self.sensors.iter().all(|sensor| sensor.state().connected));
        until(LONG, "every sensor is connected", all).await.map(drop)
    }
}

async fn leads(operator: &Operator) -> Result<Duration> {
    let leading = async || {
        let metrics = operator.metrics().await;
        Ok(metrics.is_ok_and(|metrics| sum(&metrics, "gyrfalcon_leading") == 1.0))
    };
    until(LONG, "the replica leads", leading).await.with_context(|| operator.log())
}

pub async fn a_series_is_one_event_with_an_exact_count_and_few_changes(world: &World) -> Result<()> {
    let uid = world.apply("series", "One series").await?;
    let rules = ["One series".to_owned()];
    let storm = Storm {
        sensors: world.sensors.get(..1).unwrap_or_default(),
        places: world.places.get(..1).unwrap_or_default(),
        uid: &uid,
        rules: &rules,
    };
    let series = one_series(&world.plane, &world.operator, &storm, 2000, Duration::from_secs(12)).await?;
    ensure!(series.count == i64::try_from(series.sent)?, "{series:?}");
    ensure!(series.patched <= 4, "{series:?}");
    world.hits("series", i64::try_from(series.sent)?).await
}

pub async fn an_api_server_that_refuses_writes_costs_no_alert_and_doubles_no_event(world: &World) -> Result<()> {
    let uid = world.apply("refused", "Refused rule").await?;
    let throttle = Throttle::start(world.plane.client.clone(), world.folder.path()).await?;
    world.operator.terminate().await?;
    let narrow = world.replica("operator-narrow", throttle.kubeconfig.clone())?;
    world.dial.use_only(&[narrow.link]);
    narrow.ready().await?;
    leads(&narrow).await?;
    world.connected().await?;
    throttle.set(Refuse::Writes);
    let rules = ["Refused rule".to_owned()];
    let sent = world.storm(&uid, &rules).send(400, Duration::from_secs(15)).await;
    let refused = throttle.refused();
    throttle.set(Refuse::Nothing);
    // Events once a second, as asked, and each status ever more seldom: not hot.
    ensure!((1..200).contains(&refused), "{refused} requests were refused");
    world.storm(&uid, &rules).acknowledged(LONG).await?;
    world.hits("refused", i64::try_from(sent)?).await?;
    let all = async || Ok(single_events(&world.plane, "RefusedRule").await? == SENSORS);
    until(LONG, "every pod has its Event", all).await?;
    world.home(&[&narrow]).await
}

pub async fn a_leader_that_is_cut_off_delivers_until_it_sees_that_another_leads(world: &World) -> Result<()> {
    let uid = world.apply("split", "Split rule").await?;
    let throttle = Throttle::start(world.plane.client.clone(), world.folder.path()).await?;
    world.operator.terminate().await?;
    let cut = world.replica("operator-cut", throttle.kubeconfig.clone())?;
    world.dial.use_only(&[cut.link]);
    cut.ready().await?;
    leads(&cut).await?;
    world.connected().await?;
    let other = world.replica("operator-other", world.plane.cluster.kubeconfig())?;
    other.ready().await?;
    world.dial.use_only(&[cut.link, other.link]);

    let rules = ["Split rule".to_owned()];
    let mut sent = world.storm(&uid, &rules).send(100, Duration::from_secs(1)).await;
    throttle.set(Refuse::Everything);
    leads(&other).await?;
    // Two replicas have sensors, or could have: the one that is cut off still takes alerts.
    sent += world.storm(&uid, &rules).send(100, Duration::from_secs(3)).await;
    world.storm(&uid, &rules).acknowledged(Duration::from_secs(2)).await?;
    ensure!(cut.readiness().await?.contains("the API server does not answer"), "{}", cut.readiness().await?);
    ensure!(!cut.ended()?, "the replica that is cut off has ended");
    throttle.set(Refuse::Nothing);
    until(Duration::from_secs(10), "the one that was cut off ends", async || cut.ended()).await?;
    let with_other = async || {
        let metrics = other.metrics().await?;
        Ok(sum(&metrics, "gyrfalcon_sensors_connected") == SENSORS as f64)
    };
    until(LONG, "every sensor is with the other", with_other).await?;
    sent += world.storm(&uid, &rules).send(100, Duration::from_secs(1)).await;
    world.storm(&uid, &rules).acknowledged(LONG).await?;
    world.hits("split", i64::try_from(sent)?).await?;
    ensure!(single_events(&world.plane, "SplitRule").await? == SENSORS, "not every pod has an Event");
    world.home(&[&other]).await
}

pub async fn another_replica_takes_over_from_one_that_is_killed(world: &World) -> Result<()> {
    let uid = world.apply("failover", "Failover rule").await?;
    let standby = world.replica("operator-standby", world.plane.cluster.kubeconfig())?;
    standby.ready().await?;
    world.dial.use_only(&[world.operator.link, standby.link]);
    let rules = ["Failover rule".to_owned()];
    let mut sent = world.storm(&uid, &rules).send(200, Duration::from_secs(2)).await;
    world.operator.kill()?;
    let killed = Instant::now();
    sent += world.storm(&uid, &rules).send(200, Duration::from_secs(5)).await;
    leads(&standby).await?;
    let took = killed.elapsed();
    ensure!(took <= FAILOVER, "it took {took:?}");
    world.storm(&uid, &rules).acknowledged(LONG).await?;
    world.hits("failover", i64::try_from(sent)?).await?;
    ensure!(single_events(&world.plane, "FailoverRule").await? == SENSORS, "not every pod has an Event");
    world.home(&[&standby]).await
}
