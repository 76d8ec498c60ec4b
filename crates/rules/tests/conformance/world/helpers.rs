//! Events that cases make through helpers of Falco's tests, and its tree of processes.

use event::{catalogue::EventType, testing::Encoder};
use serde_json::Value as Json;

use super::{
    Played, World,
    fds::Open,
    given::Given,
    tasks::{NO_FACTS, Task},
};

/// Threads of Falco's tree: process and thread numbers, tid, process, number of the parent process, id in its namespace.
const TREE: [(u32, u32, i64, i64, i64, i64); 12] = [
    (1, 1, 2, 2, 1, 2),
    (1, 2, 6, 2, 1, 6),
    (2, 1, 25, 25, 1, 25),
    (2, 2, 23, 25, 1, 23),
    (2, 3, 24, 25, 1, 24),
    (3, 1, 72, 72, 25, 72),
    (4, 1, 76, 76, 72, 1),
    (4, 2, 79, 76, 72, 2),
    (5, 1, 82, 82, 76, 10),
    (5, 2, 84, 82, 76, 12),
    (6, 1, 87, 87, 82, 17),
    (6, 2, 88, 87, 82, 18),
];

impl World {
    /// Falco's `DEFAULT_TREE`, below init.
    pub(super) fn tree(&mut self) {
        for (process, thread, tid, pid, ppid, vtid) in TREE {
            let key = format!("p{process}_t{thread}");
            let vpid = self.tasks.get(&pid).map_or(vtid, |main| main.vpid);
            for (what, number) in [("tid", tid), ("pid", pid), ("ptid", ppid), ("vtid", vtid), ("vpid", vpid)] {
                self.names.insert(format!("{key}_{what}"), number);
            }
            let parent = self.task(ppid);
            let task =
                Task { tid, pid, ppid, vtid, vpid, comm: b"bash".to_vec(), exe: b"bash".to_vec(), ..parent.clone() };
            self.born(task, tid == pid);
        }
    }

    /// A new thread or process.
    pub(super) fn born(&mut self, task: Task, is_process: bool) {
        if is_process {
            let table = self.tables.get(&task.ppid).cloned().unwrap_or_default();
            self.tables.insert(task.pid, table);
            let record = self.who(Encoder::fork(), &task);
            let bytes = record.encode();
            self.state.apply(&event::decode::Record::decode(&bytes).expect("the encoder makes valid records"));
        }
        self.tasks.insert(task.tid, task);
    }

    fn arg(&self, args: &Json, index: usize) -> Given {
        args.get(index).map_or(Given::Nothing, |arg| Given::of(arg, &self.names))
    }

    fn number_arg(&self, args: &Json, index: usize, default: i64) -> i64 {
        self.arg(args, index).number().unwrap_or(default)
    }

    /// Plays what a helper makes.
    pub(super) fn helper(&mut self, helper: &str, args: &Json) -> Option<Played> {
        let unstated = (0..16).any(|index| self.arg(args, index) == Given::Unstated);
        match helper {
            "generate_getcwd_failed_entry_event" => {
                let step = serde_json::json!({
                    "tid": self.number_arg(args, 0, 1), "params": {"res": -1, "path": "/test/dir"},
                });
                self.event("getcwd", &step)
            }
            "generate_random_event" => {
                let step = serde_json::json!({"tid": self.number_arg(args, 0, 1), "params": {}});
                self.event("getsockname", &step)
            }
            "generate_socket_exit_event" => {
                let expr = args[0]["expr"].as_str().unwrap_or_default();
                let inner = expr.split_once('(').map_or("", |(_, inner)| inner.trim_end_matches(')'));
                let mut symbols = inner.split(',').filter_map(|name| super::given::symbol(name.trim()));
                let (domain, sock_type) = (symbols.next().unwrap_or(2), symbols.next().unwrap_or(1));
                let step = serde_json::json!({
                    "tid": 1, "params": {"fd": 4, "domain": domain, "type": sock_type, "proto": 0, "flags": 0},
                });
                self.event("socket", &step)
            }
            "generate_connect_exit_event" => {
                let server = serde_json::json!({"sockaddr": [443, "142.251.111.147"]});
                let client = serde_json::json!({"sockaddr": [54321, "172.40.111.222"]});
                let step = serde_json::json!({"tid": 1, "params": {
                    "res": 0, "fd": 4, "tuple": {"packed_socktuple": [client, server]}, "addr": {"packed_sockaddr": [server]},
                }});
                let socket = Open::Socket { family: 2, sock_type: 1, protocol: 6, local: None, remote: None };
                self.tables.entry(1).or_default().entry(4).or_insert(socket);
                self.event("connect", &step)
            }
            "generate_proc_exit_event" => {
                let step = serde_json::json!({"tid": self.number_arg(args, 0, 1), "params": {"status": 0}});
                self.event("procexit", &step)
            }
            "generate_open_x_event" => {
                let step = serde_json::json!({"tid": 1, "params": {
                    "fd": 4, "name": "/home/file.txt", "flags": 0, "mode": 0, "dev": 0, "ino": 0,
                }});
                let played = self.event("open", &step)?;
                Some(Played {
                    is_unstated: played.is_unstated || args.as_array().is_some_and(|args| !args.is_empty()),
                    ..played
                })
            }
            "generate_clone_x_event" => {
                let number = |index, default| self.number_arg(args, index, default);
                let (result, tid, pid, ptid) = (number(0, 0), number(1, 1), number(2, 1), number(3, 1));
                let step = serde_json::json!({"tid": tid, "params": {
                    "res": result, "exe": "bash", "tid": tid, "pid": pid, "ptid": ptid, "comm": "bash", "flags": number(4, 0),
                    "vtid": number(5, tid), "vpid": number(6, pid), "uid": 0, "gid": 0,
                }});
                self.event("clone", &step)
            }
            "generate_execve_enter_and_exit_event" => {
                let text = |index, default: &str| match self.arg(args, index) {
                    Given::Text(text) => text,
                    _ => default.as_bytes().to_vec(),
                };
                let (pathname, comm) = (text(5, "/bin/test-exe"), text(6, "test-exe"));
                let exepath = text(7, "/bin/test-exe");
                let tid = self.number_arg(args, 2, 1);
                let mut task = self.task(tid);
                task.take("trusted_exepath", None, Some(&exepath));
                let pid = self.number_arg(args, 3, tid);
                let ppid = self.pid_of(self.number_arg(args, 4, 0));
                // A thread that executes something becomes its process.
                let task = Task {
                    tid: pid,
                    pid,
                    ppid: if ppid == pid { 0 } else { ppid },
                    comm,
                    exe: pathname,
                    args: Vec::new(),
                    env: Vec::new(),
                    pgid: self.number_arg(args, 9, 0),
                    facts: NO_FACTS,
                    is_unstated: unstated,
                    ..task
                };
                self.executed(task)
            }
            "generate_execve_exit_event_with_default_params" | "generate_execve_exit_event_with_empty_params" => {
                let text = |index| self.arg(args, index).bytes().map(<[u8]>::to_vec).unwrap_or_default();
                let pid = self.number_arg(args, 0, 1);
                let task = Task {
                    pid,
                    ppid: 0,
                    exe: text(1),
                    comm: text(2),
                    uid: 0,
                    gid: 0,
                    loginuid: 0,
                    pgid: 0,
                    vpgid: 0,
                    args: Vec::new(),
                    env: Vec::new(),
                    exepath: Vec::new(),
                    facts: NO_FACTS,
                    is_unstated: unstated,
                    ..self.task(pid)
                };
                let mut played = self.executed(task)?;
                if helper.ends_with("empty_params") {
                    played.empty.extend(18..=29);
                }
                Some(played)
            }
            _ => {
                self.is_unstated = true;
                None
            }
        }
    }

    /// An exec whose every parameter from `first` to `last` arrived without content.
    pub fn empty_exec(
        &mut self,
        pid: i64,
        exe: &str,
        comm: &str,
        empty: std::ops::RangeInclusive<usize>,
    ) -> Option<Played> {
        let args = serde_json::json!([pid, exe, comm]);
        let mut played = self.helper("generate_execve_exit_event_with_default_params", &args)?;
        played.empty.extend(empty);
        Some(played)
    }

    /// A successful exec by what is now known of the task.
    pub(super) fn executed(&mut self, task: Task) -> Option<Played> {
        let ty = EventType::by_name("execve")?;
        self.tasks.insert(task.tid, task.clone());
        let record = task.image(Encoder::exec());
        let record = self.who(record, &task);
        let record = self.standard(record, task.pid);
        Some(self.played(record, ty, task.is_unstated))
    }
}
