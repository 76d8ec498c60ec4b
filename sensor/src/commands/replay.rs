//! `gyrfalcon replay`: judges the events of a recording by rules.
//!
//! No kernel, no clock, no rights: alerts have the time and the host of the recording.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use event::value::Arena;
use recording::{Player, ReadError, Step};
use rules::{load::Options, ruleset::Evaluation};
use tracing::{error, info, warn};

use link::chain;

use crate::{
    active::Active,
    cli,
    commands::{compile_options, print_messages},
    exit::Exit,
    input,
    rules::{Specs, compile},
};

/// Replays and reports.
pub fn replay(args: &cli::Replay) -> Exit {
    let (mut player, active) = match prepare(&args.file, &args.paths, &args.compile) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let began = Instant::now();
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let (alerts, ended) = match play(&mut player, &active, args.json, &mut out).and_then(|played| {
        out.flush()?;
        Ok(played)
    }) {
        Ok(played) => played,
        // Whoever read has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Fine,
        Err(error) => {
            error!(error = %error, "cannot print");
            return Exit::System;
        }
    };
    summary(&player, &active, alerts, began);
    let met = expectations(&args.expect, &active);
    match ended {
        Ok(()) if !met => Exit::Input,
        Ok(()) => Exit::Fine,
        Err(error) => {
            error!(error = %chain(&error), "the recording was replayed up to here");
            Exit::Input
        }
    }
}

/// Judges a recording by each rule by itself, and compares matches with what is expected. No alert is printed.
pub fn compare<'e>(file: &Path, paths: &[PathBuf], expected: &'e [(String, u64)]) -> Result<Vec<Compared<'e>>, Exit> {
    let (mut player, active) = prepare(file, paths, &cli::Compile::each_rule())?;
    // Nothing that is thrown away fails to be written.
    let (_, ended) = play(&mut player, &active, false, &mut io::sink()).map_err(|_| Exit::System)?;
    ended.map_err(|error| {
        error!(file = %file.display(), error = %chain(&error), "the recording cannot be read to its end");
        Exit::Input
    })?;
    Ok(compared(expected, &active))
}

/// Opens a recording and compiles the rules for it.
fn prepare(file: &Path, paths: &[PathBuf], how: &cli::Compile) -> Result<(Player<Box<dyn Read>>, Active), Exit> {
    let player = open(file)?;
    let head = player.reader().head().clone();
    let options = Options { hostname: head.hostname.as_str().into(), ..compile_options(how, String::new()) };
    let (files, errors) = input::read(paths);
    let compiled = compile(&files, &errors, &Specs::new(), options, crate::log::colour());
    print_messages(&compiled.messages);
    let active = compiled.active.ok_or(Exit::Input)?;
    if !head.complete {
        info!("the recording has only what the rules needed that it was made for");
    }
    Ok((player, active))
}

/// Begins to read a recording.
fn open(path: &Path) -> Result<Player<Box<dyn Read>>, Exit> {
    let input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        match File::open(path) {
            Ok(file) => Box::new(BufReader::with_capacity(1 << 20, file)),
            Err(error) => {
                error!(file = %path.display(), error = %error, "cannot open the recording");
                return Err(Exit::Input);
            }
        }
    };
    Player::new(input).map_err(|error| {
        error!(file = %path.display(), error = %chain(&error), "cannot replay");
        Exit::Input
    })
}

type Played = (u64, Result<(), ReadError>);

/// Plays to the end. The outer error is that of printing, the inner one that of reading.
fn play<R: Read>(player: &mut Player<R>, active: &Active, json: bool, out: &mut impl Write) -> io::Result<Played> {
    let mut arena = Arena::new();
    let mut evaluation = Evaluation::default();
    let (mut alerts, mut printed) = (0, Ok(()));
    loop {
        let step = player.step(&arena, |event| {
            active.ruleset.matches(event, &mut evaluation, |rule| {
                if active.count(rule.index(), event) && printed.is_ok() {
                    let alert = active.ruleset.alert(rule, event);
                    printed = match json {
                        true => serde_json::to_writer(&mut *out, &alert).map_err(io::Error::from),
                        false => out.write_all(alert.text().as_bytes()),
                    };
                    printed = std::mem::replace(&mut printed, Ok(())).and_then(|()| out.write_all(b"\n"));
                    alerts += 1;
                }
            });
        });
        arena.reset();
        std::mem::replace(&mut printed, Ok(()))?;
        match step {
            Ok(Step::Event | Step::State) => {}
            Ok(Step::End) => return Ok((alerts, Ok(()))),
            Err(error) => return Ok((alerts, Err(error))),
        }
    }
}

/// A rule, how often it was to match, and how often it did.
pub struct Compared<'e> {
    /// The rule.
    pub rule: &'e str,
    /// What was expected.
    pub want: u64,
    /// What happened; none when no such rule is loaded.
    pub got: Option<u64>,
    /// The name of a rule that may be meant, when there is no such rule.
    pub close: Option<String>,
}

impl Compared<'_> {
    /// Whether it is as expected.
    pub fn is_met(&self) -> bool {
        self.got == Some(self.want)
    }
}

fn compared<'e>(expected: &'e [(String, u64)], active: &Active) -> Vec<Compared<'e>> {
    let compare = |(rule, want): &'e (String, u64)| {
        let got = active.hits().find(|(name, _)| name == rule).map(|(_, count)| count);
        let close = || rules::diagnostic::closest(rule, active.hits().map(|(name, _)| name)).map(str::to_owned);
        Compared { rule, want: *want, got, close: if got.is_none() { close() } else { None } }
    };
    expected.iter().map(compare).collect()
}

/// Compares matches with what was expected; whether all is so.
fn expectations(expected: &[(String, u64)], active: &Active) -> bool {
    let compared = compared(expected, active);
    for Compared { rule, want, got, close } in compared.iter().filter(|compared| !compared.is_met()) {
        match got {
            Some(got) => error!(rule, want, got, "matched another number of times"),
            None => error!(rule, did_you_mean = close.as_deref(), "no such rule is loaded"),
        }
    }
    compared.iter().all(Compared::is_met)
}

/// What there is to say behind the alerts.
fn summary<R: Read>(player: &Player<R>, active: &Active, alerts: u64, began: Instant) {
    let mut hits: Vec<_> = active.hits().filter(|(_, count)| *count > 0).collect();
    hits.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (rule, matches) in hits {
        info!(rule, matches, "rule matched");
    }
    let reader = player.reader();
    let end = player.end().cloned().unwrap_or_default();
    let mut missing: BTreeMap<&str, u64> = end.lost.iter().map(|(cause, count)| (cause.as_str(), *count)).collect();
    missing.insert("not written by the recorder", player.lost());
    missing.insert("of kinds that this version does not know", reader.unknown());
    missing.insert("damaged", player.refused());
    for (cause, count) in missing.into_iter().filter(|(_, count)| *count > 0) {
        warn!(cause, count, "missing in the recording");
    }
    let seconds = began.elapsed().as_secs_f64();
    let per_second = player.events() as f64 / seconds.max(f64::EPSILON);
    info!(
        events = player.events(),
        alerts,
        rules = active.ruleset.rules().len(),
        seconds = format!("{seconds:.3}"),
        events_per_second = per_second as u64,
        "replayed"
    );
}
