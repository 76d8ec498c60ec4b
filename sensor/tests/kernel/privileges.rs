//! What a running sensor may still do: as the kernel has it, for each of its threads.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use libtest_mimic::Trial;

use crate::{
    agent::Node,
    harness::{self, Sensor},
    needs::{Need, trial},
};

const NEEDS: &[Need] = &[Need::Tracing];

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("privileges: run keeps only what it uses, and cannot execute", NEEDS, run_is_confined),
        trial("privileges: agent keeps only what it uses, and cannot execute", NEEDS, agent_is_confined),
        trial("privileges: a sink that is added where nothing may be written is refused", NEEDS, refuses_new_places),
    ]
}

/// CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF (`include/uapi/linux/capability.h`).
const KEPT: u64 = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39;

/// Every thread has the kept capabilities at most, no way to get others, and refused system calls.
#[track_caller]
fn is_confined(pid: u32, writable: &Path) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running sensor").flatten();
    let mut seen = 0;
    for thread in threads {
        let status = fs::read_to_string(thread.path().join("status")).expect("a running thread");
        let status: BTreeMap<_, _> = status.lines().filter_map(|line| line.split_once(":\t")).collect();
        let name = status["Name"];
        let capabilities = |set| u64::from_str_radix(status[set], 16).expect("a number");
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(capabilities(set) & !KEPT, 0, "{set} of thread {name}");
        }
        assert_eq!((capabilities("CapInh"), capabilities("CapAmb")), (0, 0), "thread {name}");
        assert_eq!((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"), "thread {name}");
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} threads");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("a running sensor");
    for line in mounts.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let (point, options) = (words[4], words[5]);
        let has = |option| options.split(',').any(|have| have == option);
        assert!(has("noexec"), "{line}");
        assert!(has("ro") || Path::new(point).starts_with(writable), "{line}");
    }
}

fn run_is_confined() {
    let folder = harness::folder();
    let output = folder.path().join("out");
    let rules = harness::write(folder.path(), "rule.yaml", &rule("openat"));
    let sensor = Sensor::start(&[&rules], &["--writable", &output.display().to_string()]);
    is_confined(sensor.pid(), &output);
    // Programs of other system calls are still loaded.
    fs::write(&rules, rule("mkdirat")).expect("a file of ours");
    sensor.expect_log("the new rules", |line| line.contains("ruleset replaced"));
    is_confined(sensor.pid(), &output);
    sensor.stop().is_clean();
}

fn rule(call: &str) -> String {
    format!(
        "- rule: something\n  desc: Never.\n  condition: evt.type = {call} and proc.name = nobody-is-called-so\n  \
         output: never\n  priority: NOTICE\n"
    )
}

fn agent_is_confined() {
    let node = Node::new();
    // Nobody answers there: an agent without its operator has every thread that it ever has.
    let agent = node.agent(SocketAddr::from(([127, 0, 0, 1], 1)));
    agent.expect_log("no link to the operator");
    is_confined(agent.pid(), &node.state());
}

fn refuses_new_places() {
    let folder = harness::folder();
    let rules = harness::write(folder.path(), "rule.yaml", &rule("openat"));
    let sinks = folder.path().join("sinks");
    fs::create_dir(&sinks).expect("a folder in a temporary folder");
    let sensor = Sensor::start(&[&rules, &sinks], &[]);
    let manifest = format!(
        "apiVersion: gyrfalcon.dev/v1alpha1\nkind: ClusterAlertSink\nmetadata:\n  name: late\nspec:\n  file:\n    \
         path: {}/late.jsonl\n",
        folder.path().display()
    );
    harness::write(&sinks, "late.yaml", &manifest);
    sensor.expect_log("why the sink is refused", |line| line.contains("late") && line.contains("--writable"));
    sensor.stop().is_clean();
}
