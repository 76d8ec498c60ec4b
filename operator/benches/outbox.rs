//! How many alerts a second the outbox takes and gives up again, in the shape of many sensors and few sinks.
//!
//! `cargo bench -p gyrfalcon-operator --bench outbox [-- SECONDS]`. Numbers are for this disk: each commit waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use api::sink::Overflow;
use operator::outbox::{Counters, Entry, Limits, Options, Outbox, Outcome, Registration};

const SENSORS: usize = 16;
const BATCH: u64 = 200;
const ALERT_BYTES: usize = 900;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let Ok(runtime) = runtime else { return };
    for sinks in [0, 1, 3] {
        runtime.block_on(run(sinks, Duration::from_secs(seconds)));
    }
}

async fn run(sinks: usize, time: Duration) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let options = Options { folder: folder.path().into(), durable: true, max_bytes: Options::MAX_BYTES };
    let outbox = Outbox::open(&options).expect("an outbox");
    let bells: Vec<_> = (0..sinks).map(|_| Arc::default()).collect();
    let registrations = bells.iter().enumerate().map(|(at, bell)| Registration {
        uid: at.to_string().into(),
        limits: Limits { capacity: 1_000_000, overflow: Overflow::DropLowestPriority },
        at_least: Counters::default(),
        bell: Arc::clone(bell),
    });
    let numbers = outbox.register(registrations.collect()).await.expect("registered");
    // Sinks that deliver at once.
    for (number, bell) in numbers.iter().copied().zip(bells) {
        let outbox = outbox.clone();
        std::thread::spawn(move || {
            let (mut cursor, mut quiet) = (0, 0);
            while quiet < 3 {
                let rows = outbox.read(number, cursor, 64, 1 << 20).expect("read");
                for row in &rows {
                    cursor = row.key.order;
                    outbox.settle(number, row.key, Outcome::Sent);
                }
                if rows.is_empty() {
                    quiet += u32::from(!bell.wait(Some(Instant::now() + Duration::from_secs(1))));
                }
            }
        });
    }
    let committed = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let sensors = (0..SENSORS).map(|sensor| {
        let (outbox, numbers, committed) = (outbox.clone(), numbers.clone(), Arc::clone(&committed));
        tokio::spawn(async move {
            let spool: Arc<str> = sensor.to_string().into();
            let mut seq = 0;
            while start.elapsed() < time {
                let batch = (1..=BATCH).map(|at| Entry {
                    spool: Arc::clone(&spool),
                    seq: seq + at,
                    class: (at % 8) as u8,
                    payload: if numbers.is_empty() { Vec::new() } else { vec![b'x'; ALERT_BYTES] },
                    wanted: numbers.clone(),
                    filtered: Vec::new(),
                });
                outbox.commit(batch.collect()).await.expect("committed");
                seq += BATCH;
                committed.fetch_add(BATCH, Relaxed);
            }
        })
    });
    for sensor in sensors.collect::<Vec<_>>() {
        sensor.await.expect("ended");
    }
    let (alerts, seconds) = (committed.load(Relaxed), start.elapsed().as_secs_f64());
    let waiting: u64 = numbers.iter().filter_map(|number| outbox.view(*number)).map(|view| view.depth).sum();
    println!("{sinks} sinks: {:.0} alerts/s committed, {waiting} rows not settled yet", alerts as f64 / seconds);
}
