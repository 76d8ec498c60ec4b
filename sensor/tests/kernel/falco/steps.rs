//! The steps of a case, played by a traced process. A step that is not known here is a failure, not a silent nothing.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{
    cases::placeholder,
    chain::{PLAN, STAND_IN, become_user},
};
use crate::{
    child::{
        Arg::{self, Bytes, Int, Text},
        Room, before_exec, call, own, wait_for_stop,
    },
    harness::wait_for,
    needs::which,
};

const AT_FDCWD: i64 = libc::AT_FDCWD as i64;

/// The steps that can be taken here.
const KNOWN: [&str; 40] = [
    "mkdir",
    "open",
    "openat",
    "openat2",
    "close",
    "write",
    "write_file",
    "unlink",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "rename",
    "renameat",
    "spawn",
    "ptrace",
    "kill",
    "setns",
    "unshare",
    "copy_file",
    "memfd_create",
    "connect",
    "setuid",
    "userfaultfd",
    "socket",
    "dup",
    "dup2",
    "dup3",
    "sleep",
    "rmdir",
    "chmod",
    "chdir",
    "truncate",
    "write_mapped",
    "open_by_handle",
    "init_module",
    "bpf",
    "network",
    "serve",
    "receive",
];

/// Whether a step can be taken here.
pub fn is_known(step: &Value) -> bool {
    step["op"].as_str().is_some_and(|op| KNOWN.contains(&op))
}

/// Takes the steps of a plan, one after the other.
pub fn play(plan: &Value) {
    let steps = plan["steps"].as_array().cloned().unwrap_or_default();
    let mark = plan["mark"].as_str().expect("a text");
    let mut player = Player {
        descriptors: Vec::new(),
        child: None,
        folders: Vec::new(),
        connection: None,
        agent: plan["agent"].as_str().unwrap_or_default().to_owned(),
        links: plan["links"].as_str().unwrap_or_default().to_owned(),
    };
    player.provide(plan["resources"].as_array().map_or(&[], Vec::as_slice));
    // A process that later steps are about goes on; others are waited for.
    let goes_on = |rest: &[Value]| rest.iter().any(|step| step["op"] == "ptrace" || step["op"] == "kill");
    for (n, step) in steps.iter().enumerate() {
        player.take(step, mark, goes_on(&steps[n + 1..]));
    }
    drop(player.descriptors);
    for folder in player.folders {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Begins a connection to a public place, as far as the machine has a route to it: that it is begun is the event.
pub fn connect(place: &str, datagrams: bool) {
    // Names are not looked up: a test does not depend on a name server. One of the addresses of example.com.
    const PUBLIC: [u8; 4] = [93, 184, 216, 34];
    let (host, port) = place.rsplit_once(':').expect("HOST:PORT");
    let host = host.parse::<std::net::Ipv4Addr>().map_or(PUBLIC, |address| address.octets());
    let port: u16 = port.parse().unwrap_or(22);
    let family = u16::try_from(libc::AF_INET).expect("small").to_ne_bytes();
    let address = [&family[..], &port.to_be_bytes(), &host, &[0; 8]].concat();
    let kind = if datagrams { libc::SOCK_DGRAM } else { libc::SOCK_STREAM } | libc::SOCK_NONBLOCK;
    let socket = own(call("socket", &[Int(libc::AF_INET.into()), Int(kind.into()), Int(0)]));
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    call("connect", &[Int(fd.into()), Bytes(&address), Int(16)]);
}

struct Player {
    descriptors: Vec<OwnedFd>,
    child: Option<Child>,
    folders: Vec<String>,
    /// A connection of ours to ourselves: client and server.
    connection: Option<(TcpStream, TcpListener)>,
    agent: String,
    links: String,
}

impl Player {
    fn provide(&mut self, resources: &[Value]) {
        for resource in resources {
            let text = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
            match text("type").as_str() {
                "clientServer" => {
                    let listener = TcpListener::bind(text("address")).expect("a port");
                    let client = TcpStream::connect(text("address")).expect("a listener of ours");
                    self.connection = Some((client, listener));
                }
                "process" if resource["fileLess"] == true => {
                    let fd = call("memfd_create", &[Text(&text("name")), Int(0)]);
                    self.fill(fd);
                    self.execute(fd, &text("name"));
                }
                _ => {}
            }
        }
    }

    /// Writes a program into a file in memory.
    fn fill(&mut self, fd: i64) {
        let program = fs::read("/bin/true").expect("a program");
        let file = own(fd);
        let mut file = fs::File::from(file);
        std::io::Write::write_all(&mut file, &program).expect("room in memory");
        self.descriptors.push(file.into());
    }

    fn execute(&mut self, fd: i64, name: &str) {
        let mut command = Command::new(format!("/proc/self/fd/{fd}"));
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a program in memory");
        self.started(child, false, 5);
    }

    fn take(&mut self, step: &Value, mark: &str, goes_on: bool) {
        let place = placeholder();
        let last = self.descriptors.last().map_or(-1, std::os::fd::AsRawFd::as_raw_fd).to_string();
        let text = |value: &Value| {
            let text = value.as_str().unwrap_or_default().replace("$TMP", "/tmp").replace(&place, mark);
            text.replace("$FD", &last)
        };
        let at = |key: &str| text(&step[key]);
        let mode = step["mode"].as_i64().unwrap_or(0o644);
        let op = at("op");
        let result = match op.as_str() {
            "mkdir" => {
                let parent = Path::new(&at("path")).parent().expect("a path below another").to_owned();
                if !parent.exists() {
                    fs::create_dir_all(&parent).expect("a folder for a folder");
                    self.folders.push(parent.display().to_string());
                }
                self.folders.push(at("path"));
                call("mkdir", &[Text(&at("path")), Int(step["mode"].as_i64().unwrap_or(0o755))])
            }
            "open" => self.opened(call("open", &[Text(&at("path")), Int(flags(step)), Int(mode)])),
            "openat" => self.opened(call("openat", &[Int(AT_FDCWD), Text(&at("path")), Int(flags(step)), Int(mode)])),
            "openat2" => {
                let flags = flags(step);
                let mode = if flags & i64::from(libc::O_CREAT) == 0 { 0 } else { mode };
                let how: Vec<u8> = [flags, mode, 0].into_iter().flat_map(i64::to_ne_bytes).collect();
                self.opened(call("openat2", &[Int(AT_FDCWD), Text(&at("path")), Bytes(&how), Int(24)]))
            }
            "close" => {
                drop(self.descriptors.pop().expect("an open descriptor"));
                0
            }
            "write_file" => {
                let mut options = fs::OpenOptions::new();
                options.create(true).truncate(true).write(true).mode(u32::try_from(mode).expect("a mode"));
                let file = options.open(at("path"));
                file.and_then(|mut file| std::io::Write::write_all(&mut file, at("data").as_bytes())).expect("a file");
                0
            }
            "write" => {
                let fd = self.descriptors.last().map(|fd| i64::from(std::os::fd::AsRawFd::as_raw_fd(fd)));
                let data = at("data");
                match fd {
                    Some(fd) if data.contains("ELF") => {
                        let file = self.descriptors.pop().expect("an open descriptor");
                        self.fill(std::os::fd::IntoRawFd::into_raw_fd(file).into());
                        let _ = fd;
                        0
                    }
                    Some(fd) => call("write", &[Int(fd), Text(&data), Int(data.len().try_into().expect("short"))]),
                    None => panic!("there is nothing to write to"),
                }
            }
            "memfd_create" => self.opened(call("memfd_create", &[Text(&at("name")), Int(0)])),
            "copy_file" => {
                let source = at("src");
                let name = source.trim_start_matches("$(which ").trim_end_matches(')');
                let source =
                    if source.starts_with('$') { which(name).expect("a program") } else { source.clone().into() };
                fs::copy(source, at("dst")).expect("a copy");
                0
            }
            "setns" => {
                call("setns", &[Int(step["fd"].as_i64().unwrap_or(0)), Int(step["nstype"].as_i64().unwrap_or(0))])
            }
            "unshare" => call("unshare", &[Int(libc::CLONE_NEWNS.into())]),
            "userfaultfd" => call("userfaultfd", &[Int(step["flags"].as_i64().unwrap_or(0))]).min(0),
            "setuid" => {
                let users = fs::read_to_string("/etc/passwd").expect("a table of users");
                let name = format!("{}:", at("user"));
                let line = users.lines().find(|line| line.starts_with(&name)).expect("a user");
                call("setuid", &[Int(line.split(':').nth(2).and_then(|uid| uid.parse().ok()).expect("a number"))])
            }
            "connect" => {
                connect(&at("addr"), at("proto").starts_with("udp"));
                0
            }
            "socket" => {
                let kind = if at("type") == "SOCK_RAW" { libc::SOCK_RAW } else { libc::SOCK_DGRAM };
                // `ETH_P_ALL` in the order of the network.
                let protocol = if at("protocol") == "ETH_P_ALL" { 0x0300 } else { libc::IPPROTO_ICMP };
                let domain = match at("domain").as_str() {
                    "AF_PACKET" => libc::AF_PACKET,
                    "AF_INET" => libc::AF_INET,
                    other => panic!("nobody knows the domain {other}"),
                };
                match step["by"].as_str() {
                    Some("io_uring") => self.opened(socket_by_ring(domain, kind, protocol)),
                    _ => self.opened(call("socket", &[Int(domain.into()), Int(kind.into()), Int(protocol.into())])),
                }
            }
            "chdir" => call("chdir", &[Text(&at("path"))]),
            "truncate" => call("truncate", &[Text(&at("path")), Int(step["length"].as_i64().unwrap_or(0))]),
            "write_mapped" => self.write_mapped(),
            "open_by_handle" => self.opened(open_by_handle(&at("path"), flags(step))),
            "init_module" => call("init_module", &[Bytes(b"no module at all"), Int(16), Text("")]),
            // `BPF_PROG_LOAD` of nothing.
            "bpf" => call("bpf", &[Int(5), Bytes(&[0; 128]), Int(128)]),
            "network" => own_network(&at("addr")),
            "serve" => {
                let listener = TcpListener::bind(at("addr")).expect("an address of ours");
                let client = TcpStream::connect(at("addr")).expect("a listener of ours");
                let _server = listener.accept().expect("a client of ours");
                self.connection = Some((client, listener));
                0
            }
            "receive" => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
                let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a listener of ours");
                let (server, _) = listener.accept().expect("a client of ours");
                let data: Vec<u8> = at("data").as_bytes().chunks(2).map(hex).collect();
                std::io::Write::write_all(&mut client, &data).expect("a connection");
                let room = Room::new(&[]);
                let fd = std::os::fd::AsRawFd::as_raw_fd(&server);
                call("recvfrom", &[Int(fd.into()), Arg::Room(&room), Int(64), Int(0), Int(0), Int(0)])
            }
            "dup" | "dup2" | "dup3" => {
                let client = &self.connection.as_ref().expect("a connection").0;
                let fd = Int(std::os::fd::AsRawFd::as_raw_fd(client).into());
                let number = |key: &str| Int(step[key].as_i64().unwrap_or(0));
                call(&op, &[fd, number("newFd"), number("flags")]).min(0)
            }
            "sleep" => {
                std::thread::sleep(Duration::from_secs(step["seconds"].as_u64().unwrap_or(0)));
                0
            }
            "rename" | "renameat" => {
                // What is renamed is a file of our own beside the one that is named: others need that.
                let ours = |path: String| if path.contains(mark) { path } else { format!("{path}.{mark}") };
                let (old, new) = (ours(at("old")), ours(at("new")));
                if !Path::new(&old).exists() {
                    fs::write(&old, "").expect("a file of ours");
                    self.folders.push(old.clone());
                }
                match op.as_str() {
                    "rename" => call("rename", &[Text(&old), Text(&new)]),
                    _ => call("renameat", &[Int(AT_FDCWD), Text(&old), Int(AT_FDCWD), Text(&new)]),
                }
            }
            "rmdir" => call("rmdir", &[Text(&at("path"))]),
            "chmod" => call("chmod", &[Text(&at("path")), Int(mode)]),
            "unlink" => call("unlink", &[Text(&at("path"))]),
            "link" => call("link", &[Text(&at("oldPath")), Text(&at("newPath"))]),
            "linkat" => {
                let (old, new) = (at("oldPath"), at("newPath"));
                call("linkat", &[Int(AT_FDCWD), Text(&old), Int(AT_FDCWD), Text(&new), Int(0)])
            }
            "symlink" => call("symlink", &[Text(&at("target")), Text(&at("linkPath"))]),
            "symlinkat" => call("symlinkat", &[Text(&at("target")), Int(AT_FDCWD), Text(&at("linkPath"))]),
            "spawn" => {
                let words: Vec<String> = step["argv"].as_array().into_iter().flatten().map(text).collect();
                let words: Vec<String> = words.iter().map(|word| self.spell(word)).collect();
                let child = self.spawn(&words, step);
                self.started(child, goes_on, step["timeout_s"].as_u64().unwrap_or(5))
            }
            "ptrace" => self.ptrace(&at("request")),
            "kill" => {
                let mut child = self.child.take().expect("a process");
                child.kill().and_then(|()| child.wait()).expect("our child");
                0
            }
            other => panic!("nobody knows the step {other}"),
        };
        assert!(result >= 0 || step["expect"].is_string() || op == "userfaultfd", "{op} failed: {result}");
    }

    fn opened(&mut self, fd: i64) -> i64 {
        if fd >= 0 {
            self.descriptors.push(own(fd));
        }
        fd
    }

    /// Writes a byte through a shared mapping of the file that was opened last.
    fn write_mapped(&self) -> i64 {
        let file = self.descriptors.last().expect("an open file");
        let fd = Int(std::os::fd::AsRawFd::as_raw_fd(file).into());
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let page = call("mmap", &[Int(0), Int(4096), Int(rights.into()), Int(libc::MAP_SHARED.into()), fd, Int(0)]);
        let memory = fs::OpenOptions::new().write(true).open("/proc/self/mem").expect("memory of our own");
        let page = u64::try_from(page).expect("a mapping");
        std::os::unix::fs::FileExt::write_all_at(&memory, b"#", page).expect("a mapped page");
        0
    }

    fn started(&mut self, mut child: Child, goes_on: bool, timeout_s: u64) -> i64 {
        if goes_on {
            self.child = Some(child);
        } else if wait_for(&mut child, Duration::from_secs(timeout_s)).is_none() {
            child.kill().and_then(|()| child.wait()).expect("our child");
        }
        0
    }

    fn ptrace(&self, request: &str) -> i64 {
        let pid = i64::from(self.child.as_ref().expect("a process").id());
        let attaches = request == "PTRACE_ATTACH";
        let request = match request {
            "PTRACE_ATTACH" => libc::PTRACE_ATTACH,
            "PTRACE_DETACH" => libc::PTRACE_DETACH,
            other => panic!("nobody knows the request {other}"),
        };
        let result = call("ptrace", &[Int(request.into()), Int(pid), Int(0), Int(0)]);
        if attaches && result == 0 {
            wait_for_stop(pid);
        }
        result
    }

    /// A word of a command, with what stands for the file in memory.
    fn spell(&self, word: &str) -> String {
        let fd = self.descriptors.last().map_or(-1, std::os::fd::AsRawFd::as_raw_fd);
        word.replace("$memfd", &fd.to_string())
    }

    /// Starts a command; what this machine lacks is stood in for by this program under that name.
    fn spawn(&mut self, words: &[String], step: &Value) -> Child {
        let (program, args) = words.split_first().expect("a command");
        // The path is looked up here: tries that fail would be events, too.
        let found = if program.contains('/') { Some(Path::new(program).to_owned()) } else { which(program) };
        // What would reach into the network is stood in for in any case.
        let found = found.filter(|_| !matches!(program.as_str(), "nc" | "ncat" | "ssh" | "nmap" | "wget" | "crontab"));
        let stands_in = found.is_none();
        let path = found.unwrap_or_else(|| {
            let link = Path::new(&self.links).join(program);
            if !link.exists() {
                std::os::unix::fs::symlink(&self.agent, &link).expect("a link in the folder of the case");
            }
            link
        });
        let mut command = Command::new(path);
        std::os::unix::process::CommandExt::arg0(&mut command, program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env_remove(PLAN);
        if stands_in {
            command.env(STAND_IN, "1");
        }
        become_user(&mut command, &step["user"]);
        if step["terminal"] == true {
            self.descriptors.push(give_terminal(&mut command));
        }
        for (key, value) in step["env_add"].as_object().into_iter().flatten() {
            command.env(key, value.as_str().unwrap_or_default());
        }
        for step in step["child_pre_exec"].as_array().into_iter().flatten() {
            assert_eq!(step["request"], "PTRACE_TRACEME", "nobody knows {step}");
            before_exec(&mut command, || {
                call("ptrace", &[Int(libc::PTRACE_TRACEME.into()), Int(0), Int(0), Int(0)]);
            });
        }
        command.spawn().expect("a process")
    }
}

/// A byte in hexadecimal.
fn hex(digits: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(digits).expect("digits"), 16).expect("digits")
}

/// Enters a network of its own, whose loopback has an address of the outside world.
fn own_network(place: &str) -> i64 {
    const IFF_UP: u16 = 1;
    const SIOCSIFADDR: i64 = 0x8916;
    const SIOCSIFFLAGS: i64 = 0x8914;
    let result = call("unshare", &[Int(libc::CLONE_NEWNET.into())]);
    assert_eq!(result, 0, "unshare");
    let socket = own(call("socket", &[Int(libc::AF_INET.into()), Int(libc::SOCK_DGRAM.into()), Int(0)]));
    let fd = Int(std::os::fd::AsRawFd::as_raw_fd(&socket).into());
    let address = place.parse::<std::net::SocketAddrV4>().expect("IP:PORT").ip().octets();
    let family = u16::try_from(libc::AF_INET).expect("small").to_ne_bytes();
    // `struct ifreq`: a name of sixteen bytes, then what is set.
    let request = |value: &[u8]| {
        let mut bytes = [0; 40];
        bytes[..2].copy_from_slice(b"lo");
        bytes[16..16 + value.len()].copy_from_slice(value);
        bytes
    };
    let up = request(&IFF_UP.to_ne_bytes());
    let named = request(&[&family[..], &[0; 2], &address].concat());
    let done = call("ioctl", &[fd, Int(SIOCSIFFLAGS), Bytes(&up)]);
    done.min(call("ioctl", &[fd, Int(SIOCSIFADDR), Bytes(&named)]))
}

/// Gives a command a session and a terminal of its own; its other end.
fn give_terminal(command: &mut Command) -> OwnedFd {
    const TIOCSPTLCK: i64 = 0x4004_5431;
    const TIOCGPTN: i64 = 0x8004_5430;
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = own(call("openat", &[Int(AT_FDCWD), Text("/dev/ptmx"), Int(flags.into()), Int(0)]));
    let fd = Int(std::os::fd::AsRawFd::as_raw_fd(&master).into());
    let (unlock, number) = (Room::new(&[0; 4]), Room::new(&[0; 4]));
    assert_eq!(call("ioctl", &[fd, Int(TIOCSPTLCK), Arg::Room(&unlock)]), 0, "a terminal");
    assert_eq!(call("ioctl", &[fd, Int(TIOCGPTN), Arg::Room(&number)]), 0, "a terminal");
    let path = format!("/dev/pts/{}", number.int(0));
    before_exec(command, move || {
        call("setsid", &[]);
        // The first terminal that the leader of a session opens is the session's.
        call("openat", &[Int(AT_FDCWD), Text(&path), Int(libc::O_RDWR.into()), Int(0)]);
    });
    master
}

/// Asks for a socket past `socket(2)`.
fn socket_by_ring(domain: i32, kind: i32, protocol: i32) -> i64 {
    let mut ring = io_uring::IoUring::new(2).expect("a ring");
    let entry = io_uring::opcode::Socket::new(domain, kind, protocol).build();
    // SAFETY: the entry points to no memory.
    unsafe { ring.submission().push(&entry) }.expect("room for one");
    ring.submit_and_wait(1).expect("a ring that works");
    ring.completion().next().expect("an answer").result().into()
}

/// Opens a file without saying its name a second time.
fn open_by_handle(path: &str, flags: i64) -> i64 {
    const MAX_HANDLE: usize = 128;
    let mut handle = [0u8; 8 + MAX_HANDLE];
    handle[..4].copy_from_slice(&u32::try_from(MAX_HANDLE).expect("small").to_ne_bytes());
    let (room, mount) = (Room::new(&handle), Room::new(&[0; 4]));
    let named = call("name_to_handle_at", &[Int(AT_FDCWD), Text(path), Arg::Room(&room), Arg::Room(&mount), Int(0)]);
    assert_eq!(named, 0, "no handle of {path}");
    let folder = fs::File::open(Path::new(path).parent().expect("a file in a folder")).expect("a folder");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&folder);
    call("open_by_handle_at", &[Int(fd.into()), Arg::Room(&room), Int(flags)])
}

/// Open flags by name.
fn flags(step: &Value) -> i64 {
    let names = step["flags"].as_str().unwrap_or("O_RDONLY").split('|');
    names
        .map(|name| match name {
            "O_RDONLY" => libc::O_RDONLY,
            "O_WRONLY" => libc::O_WRONLY,
            "O_RDWR" => libc::O_RDWR,
            "O_CREAT" => libc::O_CREAT,
            "O_TRUNC" => libc::O_TRUNC,
            "O_APPEND" => libc::O_APPEND,
            "O_EXCL" => libc::O_EXCL,
            other => panic!("nobody knows the flag {other}"),
        })
        .fold(0, |all, flag| all | i64::from(flag))
}
