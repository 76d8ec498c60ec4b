//! By which of the kernel's two ways the programs are called: what is chosen, and that both tell the same.
//!
//! The other cases run with what the sensor chooses for this kernel; `GYRFALCON_HOOKS=tracepoint cargo xtask kernel-test`
//! runs them all with the other way.

use std::{
    env, fs,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
};

use libtest_mimic::Trial;

use crate::{
    child,
    harness::{self, Helper, LONG, Sensor, keys},
    needs::{Need, trial},
};

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("hooks: both ways of the kernel tell the same", &[Need::Tracing, Need::RegistersOfTask], tell_the_same),
        trial("hooks: a kernel that preempts typed tracepoints gets those of perf", &[Need::Tracing], chosen),
        trial("hooks: without tracefs it says what follows, and goes on", &[Need::Tracing], goes_on),
    ]
}

/// What does things that fail, so that it can do them twice: by names that are whole and that are not, and as a 32-bit
/// program does it.
pub fn play(folder: &str) {
    let place = Path::new(folder);
    drop(fs::File::open(place.join("absent")));
    env::set_current_dir(place).expect("the case's folder");
    drop(fs::File::open("relative"));
    drop(fs::create_dir(place.join("absent/made")));
    drop(UnixStream::connect(place.join("socket")));
    if child::takes_calls32() {
        child::call32_with_text("mkdir", &place.join("absent/wide").display().to_string(), 0o700, 0);
    }
}

/// What a sensor tells of all this that is called in one way.
fn told(hooks: &str, folder: &Path) -> Vec<String> {
    // What the loader of programs opens is left out: /proc/self/maps is another file each time.
    let place = folder.display();
    let calls = format!("evt.type in (mkdir, connect) or evt.type in (open, openat) and fd.name startswith {place}/");
    let rule = |name: &str, condition: &str, output: &str| {
        format!(
            "- rule: {name}\n  desc: For the case.\n  condition: proc.name = gyr-hooked and ({condition})\n  \
             output: type=%evt.type line=%proc.cmdline {output}\n  priority: NOTICE\n"
        )
    };
    let rules = [
        rule("call", &calls, "args=%evt.args file=%fd.name"),
        rule(
            "run",
            "evt.type = execve",
            "filename=%evt.arg.filename path=%proc.exepath parent=%proc.pname folder=%proc.cwd",
        ),
        rule("end", "evt.type = procexit", "args=%evt.args"),
    ];
    let rules = harness::write(folder, "rules.yaml", &rules.concat());
    let sensor = Sensor::start_by(&[&rules], &[], |_| {
        let mut command = child::where_tracefs_is(true, harness::GYRFALCON);
        command.env("GYRFALCON_HOOKS", hooks);
        command
    });
    assert_eq!(driver(&sensor), hooks);
    Helper::start(&mut child::command(folder, "gyr-hooked", &["hooked", &folder.display().to_string()])).finish(LONG);
    sensor.fence();
    let told = sensor.all().iter().map(|alert| outcome(alert.text("output")).to_owned()).collect();
    sensor.stop().is_clean();
    told
}

/// An output without the time in front of it.
fn outcome(output: &str) -> &str {
    output.find("type=").and_then(|at| output.get(at..)).unwrap_or(output)
}

/// The word for the way, as the sensor has logged it.
fn driver(sensor: &Sensor) -> String {
    let line = sensor.expect_log("by which way", |line| line.contains("watching"));
    keys(&line).remove("driver").expect("a key").trim_matches('"').to_owned()
}

fn tell_the_same() {
    let folder = harness::folder();
    let perf = told("tracepoint", folder.path());
    // Where the kernel preempts the other way's programs, some of it may be missing there.
    if !harness::preempts_programs() {
        assert_eq!(told("tp_btf", folder.path()), perf);
    }
    let place = folder.path().display().to_string();
    let mut wanted = vec![
        ("type=execve", "/gyr-hooked".to_owned()),
        ("type=openat", format!("{place}/absent")),
        ("type=openat", format!("{place}/relative")),
        ("type=mkdir", format!("{place}/absent/made")),
        ("type=connect", format!("{place}/socket")),
        ("type=procexit", "gyr-hooked".to_owned()),
    ];
    if child::takes_calls32() {
        wanted.push(("type=mkdir", format!("{place}/absent/wide")));
    }
    for (kind, text) in wanted {
        assert!(perf.iter().any(|line| line.starts_with(kind) && line.contains(&text)), "{kind} {text}: {perf:#?}");
    }
}

fn chosen() {
    let folder = harness::folder();
    let rules = harness::write(folder.path(), "rules.yaml", "[]\n");
    let sensor = Sensor::start_by(&[&rules], &[], |_| {
        let mut command = child::where_tracefs_is(true, harness::GYRFALCON);
        command.env_remove("GYRFALCON_HOOKS");
        command
    });
    assert_eq!(driver(&sensor), if harness::preempts_programs() { "tracepoint" } else { "tp_btf" });
    sensor.stop().is_clean();
}

fn goes_on() {
    let folder = harness::folder();
    let rules = harness::write(folder.path(), "rules.yaml", "[]\n");
    let sensor = Sensor::start_by(&[&rules], &[], |_| {
        let mut command = child::where_tracefs_is(false, harness::GYRFALCON);
        command.env("GYRFALCON_HOOKS", "tracepoint");
        command
    });
    sensor.expect_log("what follows", |line| {
        line.contains("WARN") && line.contains("events can be lost") && line.contains("is tracefs mounted")
    });
    assert_eq!(driver(&sensor), "tp_btf");
    // It tells of a program, as the fence tells of an open file.
    Helper::start(Command::new("/bin/true").stdout(Stdio::null())).finish(LONG);
    sensor.fence();
    assert_eq!(sensor.stop().code, Some(0));
}
