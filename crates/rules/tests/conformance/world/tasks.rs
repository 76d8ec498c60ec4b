//! Threads of a case, and what the kernel knows of each.

use abi::record::{ExecFacts, exe_flag, tag};
use event::{decode::Status, testing::Encoder};

use super::fds::components;

/// One thread; those of a process share everything that the case can see.
#[derive(Debug, Clone)]
pub struct Task {
    pub tid: i64,
    pub pid: i64,
    /// Process id of the parent; 0 for none.
    pub ppid: i64,
    pub vtid: i64,
    pub vpid: i64,
    pub sid: i64,
    pub pgid: i64,
    pub vpgid: i64,
    pub comm: Vec<u8>,
    pub exe: Vec<u8>,
    pub exepath: Vec<u8>,
    /// Each ended by NUL.
    pub args: Vec<u8>,
    /// Each ended by NUL.
    pub env: Vec<u8>,
    pub cwd: Vec<u8>,
    pub uid: u32,
    pub gid: u32,
    pub loginuid: u32,
    pub tty: u32,
    pub caps: [u64; 3],
    pub facts: ExecFacts,
    /// What it was given is not all stated in the case.
    pub is_unstated: bool,
}

/// Facts of an executable of which nothing is known.
pub const NO_FACTS: ExecFacts =
    ExecFacts { ino: 0, ctime: 0, mtime: 0, fdlimit: 0, pgft_maj: 0, pgft_min: 0, vm_pages: 0, flags: 0 };

impl Task {
    /// A thread of which only the id is known.
    pub fn unknown(tid: i64) -> Self {
        Self {
            tid,
            pid: tid,
            ppid: 0,
            vtid: tid,
            vpid: tid,
            sid: 0,
            pgid: 0,
            vpgid: 0,
            comm: Vec::new(),
            exe: Vec::new(),
            exepath: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: b"/root".to_vec(),
            uid: 0,
            gid: 0,
            loginuid: u32::MAX,
            tty: 0,
            caps: [0; 3],
            facts: NO_FACTS,
            is_unstated: false,
        }
    }

    /// Falco's `default_init_thread`.
    pub fn init() -> Self {
        Self {
            vpgid: 1,
            pgid: 1,
            comm: b"init".to_vec(),
            exe: b"/sbin/init".to_vec(),
            exepath: b"/sbin/init".to_vec(),
            args: b"context\0ls\0--format\0{{json .}}\0".to_vec(),
            env: b"TEST_ENV_PARENT_LINEAGE=secret\0HOME=/home/user/parent\0".to_vec(),
            ..Self::unknown(1)
        }
    }

    /// Fills the header of a record with what the kernel reads from the task.
    pub fn header(&self, record: Encoder, time: u64) -> Encoder {
        let record = record.process(self.pid as u32, start(self.pid)).time(time);
        record.header(|h| {
            h.tid = self.tid as u32;
            (h.vtid, h.vpid) = (self.vtid as u32, self.vpid as u32);
            (h.sid, h.vsid) = (self.sid as u32, self.sid as u32);
            (h.pgid, h.vpgid) = (self.pgid as u32, self.vpgid as u32);
            (h.uid, h.gid, h.loginuid, h.tty) = (self.uid, self.gid, self.loginuid, self.tty);
            [h.cap_inheritable, h.cap_permitted, h.cap_effective] = self.caps;
            for (to, from) in h.comm[..15].iter_mut().zip(&self.comm) {
                *to = *from;
            }
        })
    }

    /// Adds what an exec record says about what is executed.
    pub fn image(&self, record: Encoder) -> Encoder {
        let argv = [&self.exe[..], b"\0", &self.args].concat();
        let record = record.block(tag::ARGS, Status::Ok, argv).block(tag::ENV, Status::Ok, self.env.clone());
        let record = match self.exepath.is_empty() {
            true => record,
            false if self.exepath.starts_with(b"/") => components(record, tag::EXEPATH, &self.exepath),
            // A name that is no path, such as `memfd:x`.
            false => record.pseudo(tag::EXEPATH, &String::from_utf8_lossy(&self.exepath)),
        };
        components(record, tag::CWD, &self.cwd).exec_facts(self.facts)
    }

    /// Takes over what an exec reports, by the names of its parameters.
    pub fn take(&mut self, name: &str, number: Option<i64>, bytes: Option<&[u8]>) {
        let text = |to: &mut Vec<u8>| {
            if let Some(bytes) = bytes {
                *to = bytes.to_vec();
            }
        };
        let Some(number) = number else {
            match name {
                "comm" => text(&mut self.comm),
                "exe" => text(&mut self.exe),
                "args" => text(&mut self.args),
                "env" => text(&mut self.env),
                "trusted_exepath" => {
                    text(&mut self.exepath);
                    // The kernel's path of a removed file ends so; ours has it apart.
                    if let Some(path) = self.exepath.strip_suffix(b" (deleted)") {
                        self.exepath = path.to_vec();
                    }
                }
                _ => {}
            }
            return;
        };
        match name {
            "uid" => self.uid = number as u32,
            "gid" => self.gid = number as u32,
            "tty" => self.tty = number as u32,
            "loginuid" => self.loginuid = number as u32,
            "vpgid" => self.vpgid = number,
            "pgid" => self.pgid = number,
            "vtid" => self.vtid = number,
            "vpid" => self.vpid = number,
            "cap_inheritable" => self.caps[0] = number as u64,
            "cap_permitted" => self.caps[1] = number as u64,
            "cap_effective" => self.caps[2] = number as u64,
            "exe_ino" => self.facts.ino = number as u64,
            "exe_ino_ctime" => self.facts.ctime = number as u64,
            "exe_ino_mtime" => self.facts.mtime = number as u64,
            "fdlimit" => self.facts.fdlimit = number as u64,
            "pgft_maj" => self.facts.pgft_maj = number as u64,
            "pgft_min" => self.facts.pgft_min = number as u64,
            "vm_size" => self.facts.vm_pages = number as u64 / 4,
            "flags" => {
                let bits = [(1, exe_flag::WRITABLE), (2, exe_flag::UPPER_LAYER), (8, exe_flag::LOWER_LAYER)];
                self.facts.flags = bits.iter().filter(|(bit, _)| number & bit != 0).map(|(_, ours)| ours).sum();
                if number & 4 != 0 {
                    self.exepath = [b"memfd:", &self.exepath[..]].concat();
                }
            }
            _ => {}
        }
    }
}

/// Start of a process: cases do not say, so its id stands in.
pub fn start(pid: i64) -> u64 {
    pid as u64
}
