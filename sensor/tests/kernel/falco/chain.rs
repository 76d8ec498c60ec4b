//! The processes of a case: each starts the next under that one's name, the last takes the steps.
//!
//! What a process has to do it finds in a file that its environment names, so that its arguments are those of the case.

use std::{
    env, fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::steps;
use crate::child;

/// The variable that names the plan.
pub const PLAN: &str = "GYR_PLAN";
/// The variable that makes this program stand in for one that this machine lacks.
pub const STAND_IN: &str = "GYR_STAND_IN";

/// Plays a link of the chain when the environment says so.
pub fn play() -> Option<ExitCode> {
    let path = env::var_os(PLAN)?;
    let plan: Value = serde_json::from_str(&fs::read_to_string(path).expect("a plan")).expect("JSON");
    let at: usize = env::var("GYR_AT").ok().and_then(|at| at.parse().ok()).expect("a place in the chain");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match &plan["chain"][at + 1] {
        Value::Null => {
            if let Some(seconds) = text(&plan["before"]).strip_prefix("sleep ").and_then(|rest| rest.parse().ok()) {
                std::thread::sleep(Duration::from_secs(seconds));
            }
            steps::play(&plan);
        }
        next => {
            let status = start(next, &plan, at + 1).wait().expect("it is our child");
            assert!(status.success(), "{} failed: {status}", text(&next["name"]));
        }
    }
    Some(ExitCode::SUCCESS)
}

/// Starts the next process of the chain.
fn start(link: &Value, plan: &Value, at: usize) -> std::process::Child {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&link["name"]);
    let agent = text(&plan["agent"]);
    let exe = text(&link["exe"]);
    let program = if exe.is_empty() {
        let path = Path::new(&text(&plan["links"])).join(&name);
        if !path.exists() {
            symlink(&agent, &path).expect("a link in the folder of the case");
        }
        path
    } else {
        // A new file, as the case wants it.
        let path = PathBuf::from(&exe);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for a program");
        fs::copy(&agent, &path).expect("a new program");
        path
    };
    let mut command = Command::new(program);
    command.arg0(if exe.is_empty() { &name } else { &exe }).args(text(&link["args"]).split_whitespace());
    command.env("GYR_AT", at.to_string()).stdin(Stdio::null());
    become_user(&mut command, &link["user"]);
    if plan["keeps"] == true && link["user"].is_string() {
        child::keep_capabilities(&mut command);
    }
    command.spawn().expect("a process of the chain")
}

/// Has a command run as the user of a case.
pub fn become_user(command: &mut Command, user: &Value) {
    let Some(name) = user.as_str() else { return };
    let users = fs::read_to_string("/etc/passwd").expect("a table of users");
    let entry: Vec<&str> =
        users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|row| row[0] == name).expect("a user");
    command.uid(entry[2].parse().expect("a number")).gid(entry[3].parse().expect("a number"));
}

/// Plays a program that this machine lacks: does the one call that matters, or nothing.
pub fn stand_in() -> Option<ExitCode> {
    env::var_os(STAND_IN)?;
    let args: Vec<String> = env::args().collect();
    let name = Path::new(&args[0]).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let "nc" | "ncat" | "ssh" = name.as_str() {
        let place = args[1..].iter().position(|arg| arg.contains('.') && !arg.starts_with('/')).map(|at| at + 1);
        if let Some(at) = place {
            let host = args[at].rsplit('@').next().unwrap_or_default();
            let port = args.iter().position(|arg| arg == "-p").map_or(at + 1, |flag| flag + 1);
            let port = args.get(port).cloned().unwrap_or_default();
            steps::connect(&format!("{host}:{port}"), args.iter().any(|arg| arg == "-u"));
        }
    }
    Some(ExitCode::SUCCESS)
}
