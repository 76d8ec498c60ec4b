//! Many alerts, and what became of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};

use super::{
    plane::{Place, Plane},
    process::Operator,
    sensor::{Sensor, alert},
    until,
};

/// Those who send alerts, about what.
pub struct Storm<'a> {
    /// Senders.
    pub sensors: &'a [Sensor],
    /// Where each is.
    pub places: &'a [Place],
    /// The rule resource.
    pub uid: &'a str,
    /// Its rules.
    pub rules: &'a [String],
}

impl Storm<'_> {
    /// Alerts on every node, about every pod and by every rule in turn, at so many a second. How many.
    pub async fn send(&self, rate: usize, time: Duration) -> usize {
        let begun = Instant::now();
        let total = (rate as f64 * time.as_secs_f64()) as usize;
        let mut sent = 0;
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while sent < total {
            tick.tick().await;
            let due = ((rate as f64 * begun.elapsed().as_secs_f64()) as usize).min(total);
            (sent..due).for_each(|number| self.one(number));
            sent = due;
        }
        sent
    }

    fn one(&self, number: usize) {
        let (node, turn) = (number % self.sensors.len(), number / self.sensors.len());
        let (Some(sensor), Some(place)) = (self.sensors.get(node), self.places.get(node)) else { return };
        let pod = place.pods.get(turn / self.rules.len() % place.pods.len().max(1));
        if let Some(rule) = self.rules.get(turn % self.rules.len()) {
            sensor.alert(alert(self.uid, rule, pod));
        }
    }

    /// Waits until the operator has acknowledged every alert.
    pub async fn acknowledged(&self, longest: Duration) -> Result<Duration> {
        let none = async || Ok(self.sensors.iter().all(|sensor| sensor.state().waiting() == 0));
        until(longest, "every alert is acknowledged", none).await
    }
}

/// Fails when a pod has more than one Event of a rule; tells how many pods have one. A new day is a new Event by design.
pub async fn single_events(plane: &Plane, reason: &str) -> Result<usize> {
    let selected = ListParams::default().fields(&format!("reason={reason}"));
    let events = Api::<Event>::all(plane.client.clone()).list(&selected).await?.items;
    let mut of_pod: BTreeMap<String, usize> = BTreeMap::new();
    for event in &events {
        let regarding = event.regarding.clone().unwrap_or_default();
        *of_pod.entry(format!("{:?} {:?}", regarding.kind, regarding.name)).or_default() += 1;
    }
    let doubled: Vec<_> = of_pod.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(doubled.is_empty(), "more than one Event: {doubled:?}");
    Ok(of_pod.len())
}

/// What one series cost.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// Alerts that were made.
    pub sent: usize,
    /// Changes of its Event after that was made.
    pub patched: usize,
    /// What the Event counts.
    pub count: i64,
}

/// One rule matches in one pod, so many times a second. The operator is ended in order, so that the count is final, and
/// started again. Fails when there is not exactly one Event.
pub async fn one_series(
    plane: &Plane,
    operator: &Operator,
    storm: &Storm<'_>,
    rate: usize,
    time: Duration,
) -> Result<Series> {
    let rule = storm.rules.first().context("a rule")?;
    let reason: String = rule.split(' ').map(capital).collect();
    let selected = format!("reason={reason}");
    let events = Api::<Event>::all(plane.client.clone());
    let versions: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noted, config) = (Arc::clone(&versions), watcher::Config::default().fields(&selected));
    let follow = watcher(events.clone(), config).applied_objects().try_for_each(move |event| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).extend(event.metadata.resource_version);
        std::future::ready(Ok(()))
    });
    let follow = tokio::spawn(follow);
    let sent = storm.send(rate, time).await;
    storm.acknowledged(Duration::from_secs(120)).await?;
    operator.terminate().await?;
    let there = events.list(&ListParams::default().fields(&selected)).await?.items;
    ensure!(there.len() == 1, "{} Events of {reason}", there.len());
    let event = there.into_iter().next().unwrap_or_default();
    let seen = || versions.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let last = async || Ok(seen().last() == event.metadata.resource_version.as_ref());
    until(Duration::from_secs(10), "the watch has seen the last change", last).await?;
    follow.abort();
    operator.spawn()?;
    operator.ready().await?;
    let count = event.series.map_or(1, |series| i64::from(series.count));
    Ok(Series { sent, patched: seen().len().saturating_sub(1), count })
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}
