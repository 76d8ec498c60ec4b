//! `gyrfalcon doctor`: what this kernel permits, what would be used, and why.

use link::chain;

use crate::{
    cli,
    containers::{self, sockets::sockets},
    driver::{self, Driver, Hooks, Host, Rings, Rows},
    exit::Exit,
    out,
    procfs::Reader,
};

/// Probes and prints. Loading is tried for real where we may.
pub fn doctor(args: &cli::Containers) -> Exit {
    let (exit, mut lines) = examine(args);
    lines.extend(runtimes(args));
    let printed = out::print(&(lines.join("\n") + "\n"));
    if exit == Exit::Fine { printed } else { exit }
}

fn examine(args: &cli::Containers) -> (Exit, Vec<String>) {
    let host = match Host::probe() {
        Ok(host) => host,
        Err(error) => return (Exit::System, vec![format!("no   BTF: {}", chain(&error))]),
    };
    let mark = |present| if present { "yes" } else { "no" };
    let features = host.features();
    let mut lines: Vec<_> = features.iter().map(|f| format!("{:4} {}: {}", mark(f.present), f.name, f.note)).collect();
    lines.push(format!("     processes in /proc: {}", Reader::new(host.cgroups, &args.host_root).all().len()));
    let hooks = Hooks::choose();
    let way = hooks.name();
    match try_all(&host, hooks) {
        Ok((rows, rings)) => {
            lines.push(format!("yes  kernel programs: exec, fork, exit and {rows} system calls load and attach"));
            let hook = "sys_exit with a tail call per system call; an untraced call costs an empty slot";
            lines.push(format!("     hook in use: {way} {hook}"));
            let said = match rings {
                Rings::Functions => "files that it opens, connections and sockets are events",
                Rings::Tracepoint => {
                    "events when it is completed: functions cannot be hooked; what asks for no completion is not seen"
                }
                Rings::Unseen => "not seen, only that there is a ring",
            };
            lines.push(format!("{:4} what an io_uring does: {said}", mark(rings != Rings::Unseen)));
            (Exit::Fine, lines)
        }
        Err(error) => {
            lines.push(format!("no   kernel programs: {}", chain(&error)));
            (Exit::System, lines)
        }
    }
}

/// Where facts about containers would come from.
fn runtimes(args: &cli::Containers) -> Vec<String> {
    let sockets = sockets(&args.cri, &args.host_root);
    let looked = sockets.iter().map(|socket| socket.path.display().to_string()).collect::<Vec<_>>().join(", ");
    let present: Vec<_> = sockets.into_iter().filter(|socket| socket.named || socket.path.exists()).collect();
    if present.is_empty() {
        return vec![format!("no   container runtime: containers are known by their ids only; looked for {looked}")];
    }
    let lines = present.iter().map(|socket| match containers::probe(&socket.path) {
        Ok(runtime) => format!("yes  container runtime: {runtime} at {}", socket.path.display()),
        Err(error) => format!("no   container runtime: {}", chain(&*error)),
    });
    lines.collect()
}

/// Loads and attaches everything once, for a moment. How many system calls there are, and how rings are seen.
fn try_all(host: &Host, hooks: Hooks) -> Result<(usize, Rings), driver::DriverError> {
    let small = 1 << 16;
    let options = driver::Options {
        ring_bytes: small,
        state_ring_bytes: small,
        urgent_ring_bytes: small,
        ..driver::Options::default()
    };
    let (mut driver, _consumer) = Driver::load(host, hooks, driver::object(), options)?;
    driver.trace(Rows::all_programs())?;
    Ok((driver::names().count(), driver.sees_rings()))
}
