//! `gyrfalcon record`: writes what happens on this host into a file.
//!
//! It is a sensor whose rules ask for everything, or the rules that the recording is for; its alerts go nowhere.

use std::{
    fs::{File, OpenOptions},
    io::BufWriter,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use recording::{End, Head, Kinds, Writer};
use rules::{
    alert::Alert,
    load::{Loader, Options},
};
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::{error, info, warn};

use link::chain;

use crate::{
    active::{Active, collected},
    cli,
    commands::{hostname, print_messages},
    confine::confine,
    driver::Hooks,
    exit::Exit,
    input,
    pipeline::{Origin, Publish, Share},
    recorder::Recorder,
    rules::{Specs, compile},
    sensor::{Failed, Sensor, Setup, Stopping},
    signals,
};

/// How often the bounds are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Takes alerts and does nothing with them: they are made again by whoever plays the recording.
struct Nowhere;

impl Publish for Nowhere {
    fn publish(&self, _: Arc<Alert>, _: &Origin<'_>) {}
}

/// Records until a signal, the time or the size ends it.
pub fn record(args: &cli::Record) -> Exit {
    let options = Options { hostname: hostname(args.hostname.as_deref()).into(), ..Options::default() };
    let active = match args.paths.is_empty() {
        true => everything(&options),
        false => of_rules(args, options.clone()),
    };
    let active = match active {
        Ok(active) => Arc::new(active),
        Err(exit) => return exit,
    };
    let file = match OpenOptions::new().write(true).create_new(true).open(&args.file) {
        Ok(file) => file,
        Err(error) => {
            error!(file = %args.file.display(), error = %error, "cannot make the recording");
            return Exit::System;
        }
    };
    let hooks = Hooks::choose();
    // Before there is any other thread.
    confine(std::slice::from_ref(&args.file));
    let (sender, wakes) = mpsc::channel();
    if let Err(error) = signals::send(&[SIGINT, SIGTERM], sender, |signal| signal) {
        error!(error = %error, "cannot receive signals");
        return Exit::System;
    }
    match run(args, hooks, file, options, active, &wakes) {
        Ok(()) => Exit::Fine,
        Err(failed) => {
            error!(error = %chain(&*failed), "cannot record");
            Exit::System
        }
    }
}

/// One rule that asks for every event that is collected, and for all that records can carry.
fn everything(options: &Options) -> Result<Active, Exit> {
    let names: Vec<_> = collected().iter().map(event::catalogue::EventType::name).collect();
    let rule = format!(
        "- rule: everything\n  desc: Everything that can be recorded.\n  condition: evt.type in ({}) and (proc.env exists or proc.cwd exists)\n  output: recorded\n  priority: DEBUG\n",
        names.join(", ")
    );
    let mut loader = Loader::new(options.clone());
    loader.add("everything", rule.as_bytes());
    let ruleset = loader.finish().ruleset.ok_or(Exit::System)?;
    Ok(Active::new(ruleset, Vec::new(), |_| None))
}

fn of_rules(args: &cli::Record, options: Options) -> Result<Active, Exit> {
    let (files, errors) = input::read(&args.paths);
    let compiled = compile(&files, &errors, &Specs::new(), options, crate::log::colour());
    print_messages(&compiled.messages);
    compiled.active.ok_or(Exit::Input)
}

fn run(
    args: &cli::Record,
    hooks: Hooks,
    file: File,
    options: Options,
    active: Arc<Active>,
    wakes: &Receiver<i32>,
) -> Result<(), Failed> {
    let kernel = nix::sys::utsname::uname()
        .map_or_else(|_| String::new(), |names| names.release().to_string_lossy().into_owned());
    let head = Head {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: options.hostname.to_string(),
        kernel,
        boot_ns: crate::sensor::boot_offset(),
        utc_offset_s: crate::clock::utc_offset_s(),
        complete: args.paths.is_empty(),
        kinds: Kinds::ours(),
    };
    let (recorder, tap) = Recorder::start(Writer::new(BufWriter::new(file), &head)?)?;
    let setup = Setup {
        hooks,
        driver: crate::driver::Options {
            ring_bytes: args.ring_mib << 20,
            data_bytes: args.snaplen,
            ..crate::driver::Options::default()
        },
        options,
        publish: Box::new(Nowhere),
        tap: Some(Box::new(tap)),
        containers: args.containers.clone(),
        drops: cli::Record::drops(),
        names: Arc::default(),
        share: Share::ALL,
    };
    let mut sensor = match Sensor::start(setup, active) {
        Ok(sensor) => sensor,
        Err(failed) => {
            // There is nothing in it yet.
            let _ = std::fs::remove_file(&args.file);
            return Err(failed);
        }
    };
    info!(file = %args.file.display(), "recording; a signal ends it");
    let began = Instant::now();
    let mut looked = began;
    loop {
        if wakes.recv_timeout(TICK).is_ok() || !recorder.alive() {
            break;
        }
        if args.time.is_some_and(|time| began.elapsed() >= time) {
            info!("the time is over");
            break;
        }
        if recorder.written() >> 20 >= args.max_mib {
            warn!(mib = args.max_mib, "the file has reached its size; --max-mib permits more");
            break;
        }
        if looked.elapsed() >= Duration::from_secs(5) {
            looked = Instant::now();
            sensor.tick();
        }
    }
    info!("stopping; a second signal stops at once");
    let Stopping { pipeline, rest } = sensor.stop();
    let panicked = pipeline.join().is_err();
    let lost = rest.losses();
    let (records, dropped) = (recorder.records(), recorder.dropped());
    recorder.end(End { lost: lost.clone(), ..End::default() }).map_err(|error| {
        format!("cannot write {}: {error}; what was written before can be replayed", args.file.display())
    })?;
    for (cause, count) in lost {
        warn!(cause, count, "lost before it could be recorded");
    }
    if dropped > 0 {
        warn!(records = dropped, "missing in the recording: the disk was too slow");
    }
    let bytes = std::fs::metadata(&args.file).map_or(0, |file| file.len());
    info!(file = %args.file.display(), records, bytes, seconds = began.elapsed().as_secs(), "recorded");
    if panicked { Err("the event loop panicked".into()) } else { Ok(()) }
}
