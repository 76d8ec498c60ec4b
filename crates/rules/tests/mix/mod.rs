//! What a busy host does, as records: a package is installed, a program is compiled, people use shells, services answer.
//!
//! The records are encoded as the kernel programs encode them, blocks in their order. The same seed makes the same
//! records. A third of the processes are in containers.
#![allow(dead_code, reason = "each program that takes this module uses a part of it")]

use std::ops::Range;

use abi::record::{FdFacts, fd_flag};
use event::{
    containers::{ContainerFacts, PodFacts},
    decode::Status,
    state::{Host, Limits, State},
    testing::Encoder,
    users::User,
};

/// Time between two records: ten thousand a second.
const STEP_NS: u64 = 100_000;

const O_WRONLY: i64 = 1;
const O_CREAT: i64 = 0o100;
const O_TRUNC: i64 = 0o1000;
const O_CLOEXEC: i64 = 0o2_000_000;
const O_DIRECTORY: i64 = 0o200_000;
const AT_FDCWD: i64 = -100;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A file is opened.
    Open,
    /// A program is executed.
    Exec,
    /// A socket is connected.
    Connect,
    /// Files are renamed, removed, linked, made executable.
    Change,
    /// A process ends: an event that official rules do not name.
    Exit,
    /// A process begins: no event, state only.
    Fork,
    /// Something else, which only a recording has.
    Other,
}

/// Records, one behind the other as in a ring or a recording.
#[derive(Default)]
pub struct Records {
    bytes: Vec<u8>,
    places: Vec<(Class, Range<usize>)>,
}

impl Records {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// How many bytes they have together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What each is about, and its bytes.
    pub fn iter(&self) -> impl Iterator<Item = (Class, &[u8])> {
        self.places.iter().map(|(class, place)| (*class, &self.bytes[place.clone()]))
    }

    /// How many are about this.
    pub fn count(&self, class: Class) -> usize {
        self.places.iter().filter(|(of, _)| *of == class).count()
    }
}

/// One process.
#[derive(Clone)]
struct Proc {
    tgid: u32,
    start: u64,
    comm: String,
    /// Parent first.
    ancestors: Vec<(u32, u64, String)>,
    cgroup: usize,
    cwd: String,
    uid: u32,
    tty: u32,
    sid: u32,
}

/// A container's cgroup: its image, namespace, and id.
const CONTAINERS: &[(&str, &str, &str)] = &[
    ("docker.io/library/nginx", "web", "a1"),
    ("docker.io/library/postgres", "data", "b2"),
    ("registry.example.com/shop/api", "shop", "c3"),
    ("docker.io/library/redis", "shop", "d4"),
    ("ghcr.io/example/runner", "ci", "e5"),
    ("docker.io/library/node", "web", "f6"),
];

fn container_id(mark: &str) -> String {
    mark.repeat(32)
}

fn cgroup_path(cgroup: usize) -> String {
    match cgroup.checked_sub(2) {
        None if cgroup == 0 => "/system.slice/cron.service".to_owned(),
        None => "/user.slice/user-1000.slice/session-4.scope".to_owned(),
        Some(at) => format!(
            "/kubepods.slice/kubepods-pod{at}.slice/cri-containerd-{}.scope",
            container_id(CONTAINERS[at % CONTAINERS.len()].2)
        ),
    }
}

/// State as the sensor would have it: users, and what the runtime said about the containers.
pub fn state() -> State {
    let host = Host { hostname: "node-1".into(), boot_ns: 1_700_000_000_000_000_000, utc_offset_s: 0 };
    let mut state = State::new(Limits::default(), host);
    for (uid, name) in [(0, "root"), (1, "daemon"), (33, "www-data"), (1000, "alice"), (1001, "bob")] {
        let home = if uid == 0 { "/root".to_owned() } else { format!("/home/{name}") };
        let user = User {
            name: name.as_bytes().into(),
            home: home.into_bytes().into(),
            shell: b"/bin/bash".as_slice().into(),
        };
        state.users.insert_user(uid, user);
    }
    for (repository, namespace, mark) in CONTAINERS {
        let name = repository.rsplit('/').next().unwrap_or_default();
        let pod = PodFacts { name: name.into(), namespace: (*namespace).into(), ..PodFacts::default() };
        let facts = ContainerFacts {
            name: name.into(),
            runtime: "containerd".into(),
            image: format!("{repository}:1.2").into(),
            repository: (*repository).into(),
            tag: "1.2".into(),
            privileged: Some(false),
            pod: Some(pod),
            ..ContainerFacts::default()
        };
        assert!(state.set_container(&container_id(mark), facts));
    }
    state
}

/// About `count` records of the mix.
pub fn records(count: usize, seed: u64) -> Records {
    let mut host =
        Simulation { random: fastrand::Rng::with_seed(seed), now: 60_000_000_000, pid: 1, records: Records::default() };
    host.run(count);
    host.records
}

struct Simulation {
    random: fastrand::Rng,
    now: u64,
    pid: u32,
    records: Records,
}

impl Simulation {
    fn run(&mut self, count: usize) {
        let init = Proc {
            tgid: 1,
            start: 1_000_000,
            comm: "systemd".to_owned(),
            ancestors: Vec::new(),
            cgroup: 0,
            cwd: "/".to_owned(),
            uid: 0,
            tty: 0,
            sid: 1,
        };
        self.exec(&init, "/usr/lib/systemd/systemd", &["/sbin/init"]);
        let shells = self.shells(&init);
        let services = self.services(&init);
        while self.records.len() < count {
            match self.random.u32(..10) {
                0..=2 => self.install(&shells[0]),
                3..=5 => {
                    let shell = self.random.usize(1..shells.len());
                    self.compile(&shells[shell]);
                }
                6 | 7 => {
                    let shell = self.random.usize(1..shells.len());
                    self.session(&shells[shell]);
                }
                _ => self.serve(&services),
            }
        }
    }

    /// Root's shell first.
    fn shells(&mut self, init: &Proc) -> Vec<Proc> {
        let daemon = self.spawn(init, "sshd", "/usr/sbin/sshd", &["/usr/sbin/sshd", "-D"], 0);
        (0..6)
            .map(|n| {
                let session =
                    self.spawn(&daemon, "sshd-session", "/usr/lib/openssh/sshd-session", &["sshd: alice [priv]"], 1);
                let mut shell = self.spawn(&session, "bash", "/usr/bin/bash", &["-bash"], 1);
                (shell.uid, shell.tty) = if n == 0 { (0, 0x8801) } else { (1000 + n % 2, 0x8800 + n) };
                shell.cwd = if n == 0 { "/root".to_owned() } else { format!("/home/user{n}/src/project") };
                shell
            })
            .collect()
    }

    /// Four hundred processes that stay, most of them in containers.
    fn services(&mut self, init: &Proc) -> Vec<Proc> {
        const PROGRAMS: &[(&str, &str, &[&str])] = &[
            ("nginx", "/usr/sbin/nginx", &["nginx: worker process"]),
            ("postgres", "/usr/lib/postgresql/16/bin/postgres", &["postgres: api shop 10.0.3.7(40122) idle"]),
            (
                "java",
                "/opt/java/bin/java",
                &["java", "-Xmx512m", "-jar", "/app/shop-api.jar", "--spring.profiles.active=prod"],
            ),
            ("redis-server", "/usr/local/bin/redis-server", &["redis-server", "*:6379"]),
            ("node", "/usr/local/bin/node", &["node", "/app/server.js", "--port", "3000"]),
            ("python3", "/usr/bin/python3", &["python3", "-m", "gunicorn", "app:main", "--workers", "4"]),
            ("cron", "/usr/sbin/cron", &["/usr/sbin/cron", "-f"]),
        ];
        let runtime = self.spawn(init, "containerd", "/usr/bin/containerd", &["/usr/bin/containerd"], 0);
        let mut services = Vec::new();
        for n in 0..400 {
            let at = n % PROGRAMS.len();
            let (comm, exe, args) = PROGRAMS[at];
            let cgroup = if at == 6 { 0 } else { 2 + at };
            let parent = match cgroup {
                0 => init.clone(),
                _ => self.spawn(
                    &runtime,
                    "containerd-shim",
                    "/usr/bin/containerd-shim-runc-v2",
                    &["shim", "-id", "x"],
                    0,
                ),
            };
            let mut service = self.spawn(&parent, comm, exe, args, cgroup);
            service.uid = 33;
            service.cwd = "/app".to_owned();
            services.push(service);
        }
        services
    }

    // ---- what people and machines do

    fn install(&mut self, shell: &Proc) {
        let apt =
            self.spawn(shell, "apt-get", "/usr/bin/apt-get", &["apt-get", "install", "-y", "libfoo-dev"], shell.cgroup);
        let dpkg = self.spawn(
            &apt,
            "dpkg",
            "/usr/bin/dpkg",
            &["/usr/bin/dpkg", "--status-fd", "21", "--unpack", "--auto-deconfigure"],
            shell.cgroup,
        );
        let package = format!("libfoo{}", self.random.u32(1..3000));
        for n in 0..60 {
            self.open(&dpkg, &format!("/var/lib/dpkg/info/lib{}{n}:amd64.list", word(n)), O_CLOEXEC);
        }
        for n in 0..25 {
            let path = match n % 3 {
                0 => format!("/usr/include/{package}/{}.h", word(n)),
                1 => format!("/usr/lib/x86_64-linux-gnu/{package}/{}.so.{n}", word(n)),
                _ => format!("/usr/share/doc/{package}/{}.gz", word(n)),
            };
            self.open(&dpkg, &format!("{path}.dpkg-new"), O_WRONLY | O_CREAT | O_TRUNC);
            self.two_paths(&dpkg, "rename", ["oldpath", "newpath"], [&format!("{path}.dpkg-new"), &path]);
        }
        self.two_paths(
            &dpkg,
            "symlink",
            ["target", "linkpath"],
            ["libfoo.so.1.2", "/usr/lib/x86_64-linux-gnu/libfoo.so"],
        );
        self.one_path(&dpkg, "unlink", "path", "/var/lib/dpkg/tmp.ci/control");
        self.one_path(&dpkg, "rmdir", "path", "/var/lib/dpkg/tmp.ci");
        let script = self.spawn(
            &dpkg,
            "libfoo-dev.post",
            "/usr/bin/dash",
            &["/bin/sh", "/var/lib/dpkg/info/libfoo-dev.postinst", "configure", ""],
            shell.cgroup,
        );
        let ldconfig = self.spawn(&script, "ldconfig", "/usr/sbin/ldconfig", &["/sbin/ldconfig"], shell.cgroup);
        for n in 0..30 {
            self.open(&ldconfig, &format!("/usr/lib/x86_64-linux-gnu/lib{}.so.{n}", word(n)), O_CLOEXEC);
        }
        for process in [ldconfig, script, dpkg, apt] {
            self.exit(&process);
        }
    }

    fn compile(&mut self, shell: &Proc) {
        let make = self.spawn(shell, "make", "/usr/bin/make", &["make", "-j8", "all"], shell.cgroup);
        for unit in 0..3 {
            let source = format!("src/{}_{unit}.c", word(unit));
            let sh = self.spawn(
                &make,
                "sh",
                "/usr/bin/dash",
                &["/bin/sh", "-c", &format!("cc -O2 -Iinclude -c {source} -o build/{unit}.o")],
                shell.cgroup,
            );
            let cc = self.spawn(
                &sh,
                "cc",
                "/usr/bin/x86_64-linux-gnu-gcc-14",
                &["cc", "-O2", "-Iinclude", "-c", &source, "-o", "build/x.o"],
                shell.cgroup,
            );
            let temporary = format!("/tmp/cc{:06x}.s", self.random.u32(..0xff_ffff));
            let cc1 = self.spawn(
                &cc,
                "cc1",
                "/usr/libexec/gcc/x86_64-linux-gnu/14/cc1",
                &[
                    "/usr/libexec/gcc/x86_64-linux-gnu/14/cc1",
                    "-quiet",
                    "-I",
                    "include",
                    "-imultiarch",
                    "x86_64-linux-gnu",
                    &source,
                    "-dumpbase",
                    "x.c",
                    "-mtune=generic",
                    "-march=x86-64",
                    "-O2",
                    "-o",
                    &temporary,
                ],
                shell.cgroup,
            );
            self.open(&cc1, &source, 0);
            for n in 0..45 {
                match n % 4 {
                    // Looked for where it is not, then found.
                    0 => self.open_missing(&cc1, &format!("include/{}.h", word(n))),
                    1 => self.open(&cc1, &format!("include/core/{}.h", word(n)), 0),
                    2 => self.open(&cc1, &format!("/usr/include/x86_64-linux-gnu/bits/{}.h", word(n)), 0),
                    _ => self.open(&cc1, &format!("/usr/lib/gcc/x86_64-linux-gnu/14/include/{}.h", word(n)), 0),
                }
            }
            self.open(&cc1, &temporary, O_WRONLY | O_CREAT | O_TRUNC);
            let assembler = self.spawn(
                &cc,
                "as",
                "/usr/bin/x86_64-linux-gnu-as",
                &["as", "-Iinclude", "--64", "-o", "build/x.o", &temporary],
                shell.cgroup,
            );
            self.open(&assembler, &temporary, 0);
            self.open(&assembler, &format!("build/{unit}.o"), O_WRONLY | O_CREAT | O_TRUNC);
            self.one_path(&cc, "unlink", "path", &temporary);
            for process in [cc1, assembler, cc, sh] {
                self.exit(&process);
            }
        }
        self.exit(&make);
    }

    fn session(&mut self, shell: &Proc) {
        for n in 0..8 {
            let (comm, exe, args): (&str, &str, &[&str]) = match n % 6 {
                0 => ("ls", "/usr/bin/ls", &["ls", "--color=auto", "-la"]),
                1 => ("git", "/usr/bin/git", &["git", "status", "--short"]),
                2 => ("grep", "/usr/bin/grep", &["grep", "-rn", "TODO_LIST", "src"]),
                3 => ("ps", "/usr/bin/ps", &["ps", "aux"]),
                4 => ("curl", "/usr/bin/curl", &["curl", "-sS", "https://packages.example.com/index.json"]),
                _ => ("vim", "/usr/bin/vim.basic", &["vim", "src/main.c"]),
            };
            let command = self.spawn(shell, comm, exe, args, shell.cgroup);
            match comm {
                "ps" => {
                    for pid in 0..25 {
                        self.open(&command, &format!("/proc/{}/stat", pid * 37 + 1), 0);
                        self.open(&command, &format!("/proc/{}/status", pid * 37 + 1), 0);
                    }
                    self.open(&command, "/etc/passwd", O_CLOEXEC);
                }
                "git" => {
                    for n in 0..20 {
                        self.open(&command, &format!(".git/objects/pack/pack-{:08x}.idx", n * 7919), O_CLOEXEC);
                    }
                    self.open(&command, ".git/index.lock", O_WRONLY | O_CREAT);
                    self.two_paths(
                        &command,
                        "rename",
                        ["oldpath", "newpath"],
                        ["/home/a/.git/index.lock", "/home/a/.git/index"],
                    );
                }
                "grep" => {
                    for n in 0..30 {
                        self.open(&command, &format!("src/{}_{n}.c", word(n)), 0);
                    }
                }
                "curl" => {
                    self.open(&command, "/etc/resolv.conf", O_CLOEXEC);
                    self.open(&command, "/etc/hosts", O_CLOEXEC);
                    self.open(&command, "/etc/ssl/certs/ca-certificates.crt", 0);
                    self.connect(&command, [10, 0, 0, 2], 53);
                    self.connect(&command, [93, 184, 216, 34], 443);
                }
                "vim" => {
                    self.open(&command, "src/.main.c.swp", O_WRONLY | O_CREAT);
                    self.open(&command, "/usr/share/vim/vim91/syntax/c.vim", 0);
                    self.one_path(&command, "unlink", "path", "/home/a/src/.main.c.swp");
                }
                _ => self.open(&command, ".", O_DIRECTORY),
            }
            self.exit(&command);
        }
    }

    fn serve(&mut self, services: &[Proc]) {
        for _ in 0..60 {
            let service = &services[self.random.usize(..services.len())];
            let n = self.random.usize(..1000);
            match service.comm.as_str() {
                "nginx" => {
                    self.open(service, &format!("/usr/share/nginx/html/assets/{}-{n}.js", word(n)), O_CLOEXEC);
                    self.connect(service, [10, 0, 3, (n % 250) as u8], 8080);
                }
                "postgres" => {
                    self.open(service, &format!("base/16384/{}", 16000 + n), O_CLOEXEC | 2);
                    self.open(service, &format!("/var/lib/postgresql/data/pg_wal/{n:024X}"), O_CLOEXEC | 2);
                }
                "java" => {
                    self.connect(service, [10, 0, 4, 5], 5432);
                    self.connect(service, [10, 0, 4, 6], 6379);
                    self.open(service, "/proc/self/stat", 0);
                }
                "redis-server" => {
                    self.open(service, "/data/temp-42.rdb", O_WRONLY | O_CREAT | O_TRUNC);
                    self.two_paths(service, "rename", ["oldpath", "newpath"], ["/data/temp-42.rdb", "/data/dump.rdb"]);
                }
                "cron" => {
                    self.open(service, "/etc/crontab", 0);
                    self.open(service, "/var/spool/cron/crontabs", O_DIRECTORY);
                }
                _ => {
                    self.open(service, &format!("/app/node_modules/{}/package.json", word(n)), O_CLOEXEC);
                    self.open(service, &format!("/app/node_modules/{}/lib/index.js", word(n)), O_CLOEXEC);
                    self.connect(service, [10, 0, 5, 9], 3306);
                }
            }
        }
    }

    // ---- records

    fn tick(&mut self) -> u64 {
        self.now += STEP_NS;
        self.now
    }

    fn push(&mut self, class: Class, record: Encoder) {
        let start = self.records.bytes.len();
        self.records.bytes.extend_from_slice(&record.encode());
        self.records.places.push((class, start..self.records.bytes.len()));
    }

    /// The front of a record.
    fn of(&mut self, record: Encoder, process: &Proc) -> Encoder {
        let time = self.tick();
        let mut record = record
            .process(process.tgid, process.start)
            .time(time)
            .comm(&process.comm)
            .cgroup_id(100 + process.cgroup as u64)
            .header(|header| {
                (header.uid, header.gid, header.tty) = (process.uid, process.uid, process.tty);
                (header.sid, header.vsid, header.pgid, header.vpgid) =
                    (process.sid, process.sid, process.sid, process.sid);
                header.loginuid = if process.tty == 0 { u32::MAX } else { 1000 };
                if process.uid == 0 {
                    (header.cap_effective, header.cap_permitted) = (0x1ff_ffff_ffff, 0x1ff_ffff_ffff);
                }
            });
        for (tgid, start, comm) in &process.ancestors {
            record = record.ancestor(*tgid, *start, comm);
        }
        record
    }

    fn exec(&mut self, process: &Proc, exe: &str, args: &[&str]) {
        let facts = abi::record::ExecFacts {
            ino: 4242,
            ctime: 1_650_000_000_000_000_000,
            mtime: 1_650_000_000_000_000_000,
            fdlimit: 1024,
            pgft_maj: 0,
            pgft_min: 120,
            vm_pages: 2000,
            flags: 0,
        };
        let record = self.of(Encoder::exec(), process);
        let record = record.args(args).filename(exe).exec_facts(facts).cwd(&process.cwd).exepath(exe);
        self.push(Class::Exec, record.cgroup(&cgroup_path(process.cgroup)));
    }

    /// Forks, executes, and opens what every program opens.
    fn spawn(&mut self, parent: &Proc, comm: &str, exe: &str, args: &[&str], cgroup: usize) -> Proc {
        self.pid += 1 + self.random.u32(..3);
        let start = self.tick();
        let mut ancestors = vec![(parent.tgid, parent.start, parent.comm.clone())];
        ancestors.extend(parent.ancestors.iter().cloned());
        let child = Proc {
            tgid: self.pid,
            start,
            comm: parent.comm.clone(),
            ancestors,
            cgroup: parent.cgroup,
            cwd: parent.cwd.clone(),
            uid: parent.uid,
            tty: parent.tty,
            sid: parent.sid,
        };
        let fork = self.of(Encoder::fork(), &child);
        self.push(Class::Fork, fork);
        let child = Proc { comm: comm.chars().take(15).collect(), cgroup, ..child };
        self.exec(&child, exe, args);
        self.open(&child, "/etc/ld.so.cache", O_CLOEXEC);
        for library in ["libc.so.6", "libz.so.1", "libpthread.so.0"] {
            self.open(&child, &format!("/lib/x86_64-linux-gnu/{library}"), O_CLOEXEC);
        }
        self.open(&child, "/usr/lib/locale/locale-archive", O_CLOEXEC);
        child
    }

    fn exit(&mut self, process: &Proc) {
        let record = self.of(Encoder::exit(), process);
        self.push(Class::Exit, record);
    }

    fn open(&mut self, process: &Proc, path: &str, flags: i64) {
        let absolute = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", process.cwd) };
        let created = if flags & O_CREAT != 0 { i64::from(fd_flag::CREATED) << 32 } else { 0 };
        let mode = if flags & O_CREAT != 0 { 0o644 } else { 0 };
        let fd = self.random.i64(3..40);
        let mut record = self
            .of(Encoder::syscall("openat").ret(fd), process)
            .int("fd", fd)
            .int("dirfd", AT_FDCWD)
            .text("name", path)
            .int("flags", flags | created)
            .int("mode", mode)
            .int("dev", 0x80_0001)
            .int("ino", 1_000_000 + fd);
        if !path.starts_with('/') {
            record = record.base("name", &process.cwd);
        }
        self.push(Class::Open, record.components(abi::record::tag::REALPATH, &absolute));
    }

    fn open_missing(&mut self, process: &Proc, path: &str) {
        let record = self
            .of(Encoder::syscall("openat").ret(-2), process)
            .int("fd", -2)
            .int("dirfd", AT_FDCWD)
            .text("name", path)
            .int("flags", 0)
            .int("mode", 0)
            .int("dev", 0)
            .int("ino", 0)
            .base("name", &process.cwd);
        self.push(Class::Open, record);
    }

    fn one_path(&mut self, process: &Proc, call: &str, param: &str, path: &str) {
        let record = self.of(Encoder::syscall(call), process).int("res", 0).text(param, path);
        self.push(Class::Change, record);
    }

    fn two_paths(&mut self, process: &Proc, call: &str, params: [&str; 2], paths: [&str; 2]) {
        let record = self.of(Encoder::syscall(call), process).int("res", 0);
        self.push(Class::Change, record.text(params[0], paths[0]).text(params[1], paths[1]));
    }

    fn connect(&mut self, process: &Proc, to: [u8; 4], port: u16) {
        let mut address = vec![2, 0];
        address.extend_from_slice(&port.to_be_bytes());
        address.extend_from_slice(&to);
        address.extend_from_slice(&[0; 8]);
        let wide = |ip: [u8; 4]| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip);
            bytes
        };
        let facts = FdFacts {
            ino: 77_000,
            dev: 8,
            mode: 0o140_777,
            family: 2,
            sock_type: 1,
            protocol: 6,
            local_port: self.random.u16(32_768..61_000),
            remote_port: port,
            reserved: 0,
            flags: fd_flag::SOCKET,
            local_addr: wide([10, 0, 3, 7]),
            remote_addr: wide(to),
        };
        let record = self
            .of(Encoder::syscall("connect").ret(-115), process)
            .int("res", -115)
            .int("fd", 12)
            .param("addr", Status::Ok, address)
            .fd(facts);
        self.push(Class::Connect, record);
    }
}

/// Words as they are in names of files.
fn word(n: usize) -> &'static str {
    const WORDS: &[&str] = &[
        "config", "stdio", "parser", "buffer", "socket", "thread", "unicode", "matrix", "index", "render", "widget",
        "cache", "vector", "string", "crypto", "driver", "kernel", "module", "session", "handler", "factory", "locale",
        "metrics",
    ];
    WORDS[n % WORDS.len()]
}
