//! What fields say about records as the kernel sends them. The values are what Falco prints for the same activity.

use std::fmt::Write;

use abi::record::{ExecFacts, FdFacts, OpenFd, exe_flag, fd_flag, tag};
use expect_test::{Expect, expect};
use gyrfalcon_event::{
    containers::{ClusterChange, ContainerFacts, Mount, Namespace, Owner, Pod, PodFacts},
    decode::{Record, Status},
    event::Event,
    fields::{self, Arg, ArgRule, Subject},
    state::{Host, Limits, State},
    testing::Encoder,
    users::User,
    value::{Arena, Radix, Value},
};

const ID: &str = "6d4a9e395b72fdf4ee420d0460dc006b622822a7e551e31da38cb3260995e1aa";

fn state() -> State {
    let host = Host { hostname: "node-1".into(), boot_ns: 1_700_000_000_000_000_000, utc_offset_s: 0 };
    let mut state = State::new(Limits::default(), host);
    let user = User { name: (*b"daemon").into(), home: (*b"/usr/sbin").into(), shell: (*b"/bin/false").into() };
    state.users.insert_user(1, user);
    state
}

fn apply(state: &mut State, record: Encoder) {
    let bytes = record.encode();
    state.apply(&Record::decode(&bytes).expect("valid"));
}

fn print(out: &mut String, value: Value<'_>, radix: Radix) {
    let _ = match value {
        Value::Text(text) | Value::Bytes(text) => write!(out, "{:?}", String::from_utf8_lossy(text)),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Uint(value) if radix == Radix::Hex => write!(out, "{value:X}"),
        Value::Uint(value) => write!(out, "{value}"),
        Value::Ip(value) => write!(out, "{value}"),
        Value::Net(value) => write!(out, "{value}"),
        Value::Double(value) => write!(out, "{value:.1}"),
        Value::List(values) => {
            out.push('(');
            for (i, value) in values.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                print(out, *value, radix);
            }
            out.push(')');
            Ok(())
        }
    };
}

/// Applies the last record too, then prints the fields of its event.
#[track_caller]
fn check(state: &mut State, record: Encoder, names: &str, want: Expect) {
    let bytes = record.encode();
    let record = Record::decode(&bytes).expect("valid");
    state.apply(&record);
    let arena = Arena::new();
    let event = Event::new(&record, state, &arena, 1).expect("an event");
    let mut out = String::new();
    for name in names.split_whitespace() {
        let (field, rest) = fields::lookup(name).expect("a field");
        let inner = rest.trim_start_matches(['.', '[']).trim_end_matches(']');
        let arg = match (field.arg, inner.parse()) {
            (ArgRule::None, _) => Arg::None,
            (_, Ok(index)) => Arg::Index(index),
            (_, Err(_)) if inner.is_empty() => Arg::None,
            (_, Err(_)) => Arg::Key(inner.into()),
        };
        let _ = write!(out, "{name} = ");
        match event.field(field, &arg) {
            Some(value) => print(&mut out, value, field.radix),
            None => out.push_str("null"),
        }
        out.push('\n');
    }
    want.assert_eq(&out);
}

fn bash(state: &mut State) {
    apply(
        state,
        Encoder::exec()
            .process(50, 500)
            .time(600)
            .comm("bash")
            .args(&["-bash", "--login"])
            .env(&["HOME=/root"])
            .exepath("/usr/bin/bash")
            .cwd("/root")
            .cgroup("/user.slice/user-0.slice/session-1.scope"),
    );
}

fn facts() -> ExecFacts {
    ExecFacts {
        ino: 242_048,
        ctime: 1_700_000_000_000_000_100,
        mtime: 5,
        fdlimit: 1024,
        pgft_maj: 0,
        pgft_min: 1,
        vm_pages: 7403,
        flags: exe_flag::WRITABLE | exe_flag::LOWER_LAYER,
    }
}

fn exec() -> Encoder {
    Encoder::exec()
        .process(100, 1000)
        .time(1500)
        .comm("ls")
        .ancestor(50, 500, "bash")
        .ancestor(1, 1, "systemd")
        .args(&["/bin/ls", "-l", "", "a b"])
        .env(&["HOME=/home/user", "X=1"])
        .exepath("/usr/bin/ls")
        .filename("/bin/ls")
        .cwd("/tmp")
        .cgroup("/user.slice/user-0.slice/session-1.scope")
        .exec_facts(facts())
        .header(|h| {
            h.sid = 50;
            h.pgid = 100;
            h.vsid = 50;
            h.tty = 34_818;
            h.cap_effective = 1 << 21 | 1;
        })
}

#[test]
fn an_exec_shows_the_new_image() {
    let mut state = state();
    bash(&mut state);
    check(
        &mut state,
        exec(),
        "evt.type evt.res evt.rawres evt.dir evt.category proc.name proc.exe proc.exepath proc.args proc.args[0] proc.args[9]
         proc.cmdline proc.exeline proc.cmdnargs proc.cmdlenargs proc.env proc.env[HOME] proc.env[NO] proc.cwd proc.tty
         proc.pid proc.ppid proc.pname proc.pexe proc.pexepath proc.pcmdline proc.aname proc.aname[0] proc.aname[2]
         proc.aname[3] proc.acmdline[1] proc.apid[1] proc.aenv[HOME] proc.sid proc.sname proc.sid.exe proc.is_sid_leader
         proc.is_vpgid_leader proc.pgid.name proc.duration proc.pid.ts proc.is_exe_writable proc.is_exe_upper_layer
         proc.is_exe_lower_layer proc.is_exe_from_memfd proc.exe_ino proc.exe_ino.ctime
         proc.exe_ino.ctime_duration_proc_start thread.cap_effective thread.cap_permitted proc.loginshellid user.name
         user.loginuid user.loginname group.name container.id container.name container.image.repository
         container.privileged k8s.ns.name fd.name fd.num evt.is_open_read evt.failed evt.buffer proc.vmsize proc.fdlimit",
        expect![[r#"
            evt.type = "execve"
            evt.res = "SUCCESS"
            evt.rawres = 0
            evt.dir = "<"
            evt.category = "process"
            proc.name = "ls"
            proc.exe = "/bin/ls"
            proc.exepath = "/usr/bin/ls"
            proc.args = "-l  a b"
            proc.args[0] = "-l"
            proc.args[9] = ""
            proc.cmdline = "ls -l  a b"
            proc.exeline = "/bin/ls -l  a b"
            proc.cmdnargs = 3
            proc.cmdlenargs = 5
            proc.env = "HOME=/home/user X=1"
            proc.env[HOME] = "/home/user"
            proc.env[NO] = ""
            proc.cwd = "/tmp/"
            proc.tty = 34818
            proc.pid = 100
            proc.ppid = 50
            proc.pname = "bash"
            proc.pexe = "-bash"
            proc.pexepath = "/usr/bin/bash"
            proc.pcmdline = "bash --login"
            proc.aname = ("bash","systemd")
            proc.aname[0] = "ls"
            proc.aname[2] = "systemd"
            proc.aname[3] = null
            proc.acmdline[1] = "bash --login"
            proc.apid[1] = 50
            proc.aenv[HOME] = "/root"
            proc.sid = 50
            proc.sname = "bash"
            proc.sid.exe = "-bash"
            proc.is_sid_leader = false
            proc.is_vpgid_leader = true
            proc.pgid.name = "ls"
            proc.duration = 500
            proc.pid.ts = 1700000000000001000
            proc.is_exe_writable = true
            proc.is_exe_upper_layer = false
            proc.is_exe_lower_layer = true
            proc.is_exe_from_memfd = false
            proc.exe_ino = 242048
            proc.exe_ino.ctime = 1700000000000000100
            proc.exe_ino.ctime_duration_proc_start = 900
            thread.cap_effective = "CAP_CHOWN CAP_SYS_ADMIN"
            thread.cap_permitted = ""
            proc.loginshellid = 50
            user.name = "root"
            user.loginuid = -1
            user.loginname = "<NA>"
            group.name = "root"
            container.id = "host"
            container.name = "host"
            container.image.repository = ""
            container.privileged = null
            k8s.ns.name = null
            fd.name = null
            fd.num = null
            evt.is_open_read = false
            evt.failed = false
            evt.buffer = null
            proc.vmsize = 29612
            proc.fdlimit = 1024
        "#]],
    );
}

#[test]
fn parameters_of_an_exec() {
    let mut state = state();
    bash(&mut state);
    check(
        &mut state,
        exec(),
        "evt.args evt.arg.flags evt.arg.cgroups evt.arg.vm_rss evt.rawarg.flags evt.rawarg.vm_rss evt.arg[1] evt.arg.nope",
        expect![[r#"
            evt.args = "res=0 exe=/bin/ls args=-l..a b. tid=100(ls) pid=100(ls) ptid=50(bash) cwd= fdlimit=1024 pgft_maj=0 pgft_min=1 vm_size=29612 vm_rss=<NA> vm_swap=<NA> comm=ls cgroups=NULL env=HOME=/home/user.X=1. tty=34818 vpgid=100(ls) loginuid=-1(<NONE>) flags=9(EXE_WRITABLE|EXE_LOWER_LAYER) cap_inheritable=0 cap_permitted=0 cap_effective=200001 exe_ino=242048 exe_ino_ctime=2023-11-14 22:13:20.000000100 exe_ino_mtime=1970-01-01 00:00:00.000000005 uid=0(root) trusted_exepath=/usr/bin/ls pgid=100(ls) gid=0(root) filename=/bin/ls"
            evt.arg.flags = "EXE_WRITABLE|EXE_LOWER_LAYER"
            evt.arg.cgroups = "NULL"
            evt.arg.vm_rss = "<NA>"
            evt.rawarg.flags = 9
            evt.rawarg.vm_rss = null
            evt.arg[1] = "/bin/ls"
            evt.arg.nope = null
        "#]],
    );
}

#[test]
fn a_failed_exec_belongs_to_the_caller_as_it_was() {
    let mut state = state();
    bash(&mut state);
    check(
        &mut state,
        Encoder::syscall("execve")
            .process(50, 500)
            .comm("bash")
            .ret(-2)
            .int("res", -2)
            .args(&["nope", "-x"])
            .filename("/bin/nope"),
        "evt.type evt.res evt.failed proc.name proc.cmdline proc.exepath evt.arg.exe evt.arg.filename evt.arg.flags evt.arg.res",
        expect![[r#"
            evt.type = "execve"
            evt.res = "ENOENT"
            evt.failed = true
            proc.name = "bash"
            proc.cmdline = "bash --login"
            proc.exepath = "/usr/bin/bash"
            evt.arg.exe = "nope"
            evt.arg.filename = "/bin/nope"
            evt.arg.flags = "<NA>"
            evt.arg.res = "ENOENT"
        "#]],
    );
}

#[test]
fn a_program_in_memory() {
    check(
        &mut state(),
        Encoder::exec().comm("3").args(&["x"]).pseudo(tag::EXEPATH, "memfd:program").exec_facts(facts()),
        "proc.exepath proc.is_exe_from_memfd evt.arg.flags",
        expect![[r#"
            proc.exepath = "memfd:program"
            proc.is_exe_from_memfd = true
            evt.arg.flags = "EXE_WRITABLE|EXE_FROM_MEMFD|EXE_LOWER_LAYER"
        "#]],
    );
}

fn open(flags: i64, ret: i64) -> Encoder {
    Encoder::syscall("openat")
        .ret(ret)
        .int("fd", ret)
        .int("dirfd", 7)
        .text("name", "../etc//x/../shadow")
        .base("name", "/srv")
        .int("flags", flags)
        .int("mode", 0o755)
        .int("dev", 0x801)
        .int("ino", 12)
        .components(tag::REALPATH, "/etc/shadow-real")
}

#[test]
fn an_open_keeps_the_path_that_was_passed() {
    let created = i64::from(fd_flag::CREATED | fd_flag::UPPER_LAYER) << 32;
    check(
        &mut state(),
        open(0o101 | created, 3),
        "fd.num fd.name fd.nameraw fd.realpath fd.directory fd.filename fd.type fd.typechar fd.dev.major fd.dev.minor fd.ino
         fd.is_upper_layer fd.l4proto fd.sip evt.arg.name evt.arg.flags evt.rawarg.flags evt.arg.mode evt.args evt.abspath
         evt.is_open_read evt.is_open_write evt.is_open_exec evt.is_open_create fs.path.name fs.path.nameraw fs.path.source
         fd.name_changed fd.containername fd.uid",
        expect![[r#"
            fd.num = 3
            fd.name = "/etc/shadow"
            fd.nameraw = "../etc/x/../shadow"
            fd.realpath = "/etc/shadow-real"
            fd.directory = "/etc"
            fd.filename = "shadow"
            fd.type = "file"
            fd.typechar = "f"
            fd.dev.major = 8
            fd.dev.minor = 1
            fd.ino = 12
            fd.is_upper_layer = true
            fd.l4proto = "<NA>"
            fd.sip = null
            evt.arg.name = "/etc/shadow"
            evt.arg.flags = "O_CREAT|O_WRONLY|O_F_CREATED|FD_UPPER_LAYER"
            evt.rawarg.flags = 49158
            evt.arg.mode = "0755"
            evt.args = "fd=3(<f>/etc/shadow) dirfd=7(<d>/srv) name=../etc//x/../shadow(/etc/shadow) flags=49158(O_CREAT|O_WRONLY|O_F_CREATED|FD_UPPER_LAYER) mode=0755 dev=801 ino=12"
            evt.abspath = "/etc/shadow"
            evt.is_open_read = false
            evt.is_open_write = true
            evt.is_open_exec = true
            evt.is_open_create = true
            fs.path.name = "/etc/shadow"
            fs.path.nameraw = "../etc//x/../shadow"
            fs.path.source = null
            fd.name_changed = true
            fd.containername = null
            fd.uid = "1003"
        "#]],
    );
}

#[test]
fn a_failed_open_still_has_a_name() {
    check(
        &mut state(),
        open(0, -13),
        "evt.res fd.num fd.name fd.nameraw fd.directory fd.filename fd.type fd.typechar fd.ino evt.is_open_read evt.arg.fd fs.path.name",
        expect![[r#"
            evt.res = "EACCES"
            fd.num = -1
            fd.name = "/etc/shadow"
            fd.nameraw = "../etc/x/../shadow"
            fd.directory = "/etc"
            fd.filename = null
            fd.type = null
            fd.typechar = "f"
            fd.ino = null
            evt.is_open_read = true
            evt.arg.fd = "EACCES"
            fs.path.name = null
        "#]],
    );
}

#[test]
fn an_absolute_path_stays_as_passed_in_the_parameter() {
    check(
        &mut state(),
        Encoder::syscall("open").ret(3).int("fd", 3).text("name", "/etc/../etc/passwd").int("flags", 0o200_000),
        "evt.arg.name fd.name fd.typechar fd.directory fd.filename evt.arg.flags evt.abspath",
        expect![[r#"
            evt.arg.name = "/etc/../etc/passwd"
            fd.name = "/etc/passwd"
            fd.typechar = "d"
            fd.directory = "/etc/passwd"
            fd.filename = null
            evt.arg.flags = "O_DIRECTORY|O_RDONLY"
            evt.abspath = null
        "#]],
    );
}

fn tcp(local: [u8; 4], local_port: u16, remote: [u8; 4], remote_port: u16) -> FdFacts {
    let widen = |[a, b, c, d]: [u8; 4]| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[a, b, c, d]);
        address
    };
    FdFacts {
        ino: 9,
        dev: 8,
        mode: 0o140_777,
        family: 2,
        sock_type: 1,
        protocol: 6,
        local_port,
        remote_port,
        reserved: 0,
        flags: fd_flag::SOCKET,
        local_addr: widen(local),
        remote_addr: widen(remote),
    }
}

const SOCKET_FIELDS: &str = "evt.res fd.num fd.name fd.type fd.typechar fd.l4proto fd.sockfamily fd.ip fd.sip fd.cip fd.lip fd.rip fd.sport
    fd.cport fd.lport fd.rport fd.port fd.net fd.sip.name fd.is_server fd.connected fd.name_changed fd.directory evt.arg.tuple evt.arg.addr evt.arg.fd";

fn listed(fd: u32, mode: u16, family: u16, name: &[u8]) -> OpenFd {
    let mut text = [0; 16];
    text[..name.len()].copy_from_slice(name);
    OpenFd { fd, mode, family, name: text }
}

#[test]
fn descriptors_beyond_that_of_the_event() {
    let file = FdFacts { mode: 0o100_644, flags: 0, family: 0, ..tcp([0; 4], 0, [0; 4], 0) };
    let pipe = FdFacts { mode: 0o010_600, ..file };
    let record = Encoder::syscall("read")
        .int("fd", 70)
        .fd(FdFacts { mode: 0o040_755, ..file })
        .components(tag::REALPATH, "/etc")
        .standard_fd(0, tcp([10, 0, 0, 1], 40_000, [10, 0, 0, 2], 443))
        .standard_fd(1, file)
        .components(tag::STANDARD_PATH + 1, "/var/log/x")
        .standard_fd(2, pipe)
        .pseudo(tag::STANDARD_PATH + 2, "")
        .open_fds(&[
            listed(0, 0o140_777, 2, b""),
            listed(1, 0o100_644, 0, b""),
            listed(2, 0o010_600, 0, b""),
            listed(5, 0o600, 0, b"[eventpoll]"),
            listed(6, 0o100_600, 0, b"memfd:a long nam"),
            listed(7, 0o140_777, 1, b""),
            listed(9, 0o020_620, 0, b""),
        ]);
    check(
        &mut state(),
        record,
        "proc.stdin.type proc.stdin.name proc.stdout.type proc.stdout.name proc.stderr.type proc.stderr.name fd.types
        fd.types[0] fd.types[6] fd.types[8] fd.types[70]",
        expect![[r#"
            proc.stdin.type = "ipv4"
            proc.stdin.name = "10.0.0.1:40000->10.0.0.2:443"
            proc.stdout.type = "file"
            proc.stdout.name = "/var/log/x"
            proc.stderr.type = "pipe"
            proc.stderr.name = "pipe:[9]"
            fd.types = ("directory","file","unix","memfd","eventpoll","pipe","ipv4")
            fd.types[0] = ("ipv4")
            fd.types[6] = ("memfd")
            fd.types[8] = null
            fd.types[70] = ("directory")
        "#]],
    );
}

#[test]
fn descriptors_that_nobody_asked_for_have_no_value() {
    let names = "proc.stdin.type proc.stdin.name fd.types fd.types[0]";
    let none = expect![[r#"
        proc.stdin.type = null
        proc.stdin.name = null
        fd.types = null
        fd.types[0] = null
    "#]];
    check(&mut state(), Encoder::syscall("read").int("fd", 0), names, none);
    // And none that are about a descriptor where the event is not.
    let asked = Encoder::syscall("chdir").open_fds(&[listed(0, 0o100_644, 0, b"")]);
    check(&mut state(), asked, "fd.types", expect![["fd.types = null\n"]]);
}

#[test]
fn a_connect_under_way_is_connected() {
    let addr = [2, 0, 1, 187, 203, 0, 113, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    check(
        &mut state(),
        Encoder::syscall("connect").ret(-115).int("res", -115).int("fd", 4).param("addr", Status::Ok, addr).fd(tcp(
            [10, 0, 0, 5],
            46_544,
            [203, 0, 113, 10],
            443,
        )),
        SOCKET_FIELDS,
        expect![[r#"
            evt.res = "EINPROGRESS"
            fd.num = 4
            fd.name = "10.0.0.5:46544->203.0.113.10:443"
            fd.type = "ipv4"
            fd.typechar = "4"
            fd.l4proto = "tcp"
            fd.sockfamily = "ip"
            fd.ip = (10.0.0.5,203.0.113.10)
            fd.sip = 203.0.113.10
            fd.cip = 10.0.0.5
            fd.lip = 10.0.0.5
            fd.rip = 203.0.113.10
            fd.sport = 443
            fd.cport = 46544
            fd.lport = 46544
            fd.rport = 443
            fd.port = (46544,443)
            fd.net = (10.0.0.5,203.0.113.10)
            fd.sip.name = 203.0.113.10
            fd.is_server = false
            fd.connected = true
            fd.name_changed = true
            fd.directory = null
            evt.arg.tuple = "10.0.0.5:46544->203.0.113.10:443"
            evt.arg.addr = "203.0.113.10:443"
            evt.arg.fd = "<4t>10.0.0.5:46544->203.0.113.10:443"
        "#]],
    );
}

#[test]
fn a_refused_connect_leaves_the_socket_unconnected() {
    let addr = [2, 0, 1, 187, 203, 0, 113, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    check(
        &mut state(),
        Encoder::syscall("connect")
            .ret(-111)
            .int("res", -111)
            .int("fd", 4)
            .param("addr", Status::Ok, addr)
            .fd(tcp([0; 4], 0, [0; 4], 0)),
        SOCKET_FIELDS,
        expect![[r#"
            evt.res = "ECONNREFUSED"
            fd.num = 4
            fd.name = ""
            fd.type = "ipv4"
            fd.typechar = "4"
            fd.l4proto = "tcp"
            fd.sockfamily = "ip"
            fd.ip = null
            fd.sip = null
            fd.cip = null
            fd.lip = null
            fd.rip = null
            fd.sport = null
            fd.cport = null
            fd.lport = null
            fd.rport = null
            fd.port = null
            fd.net = null
            fd.sip.name = null
            fd.is_server = null
            fd.connected = false
            fd.name_changed = false
            fd.directory = null
            evt.arg.tuple = "NULL"
            evt.arg.addr = "203.0.113.10:443"
            evt.arg.fd = "<4t>"
        "#]],
    );
}

#[test]
fn a_descriptor_made_standard_input() {
    check(
        &mut state(),
        Encoder::syscall("dup2").ret(0).int("res", 0).int("oldfd", 4).int("newfd", 0).fd(tcp(
            [10, 0, 0, 5],
            4444,
            [10, 0, 0, 9],
            51_000,
        )),
        "fd.num fd.name fd.type fd.sip fd.is_server fd.connected fd.name_changed evt.args evt.rawres",
        expect![[r#"
            fd.num = 0
            fd.name = "10.0.0.9:51000->10.0.0.5:4444"
            fd.type = "ipv4"
            fd.sip = 10.0.0.5
            fd.is_server = true
            fd.connected = true
            fd.name_changed = false
            evt.args = "res=0(<4t>10.0.0.9:51000->10.0.0.5:4444) oldfd=4(<4t>10.0.0.9:51000->10.0.0.5:4444) newfd=0(<4t>10.0.0.9:51000->10.0.0.5:4444)"
            evt.rawres = 0
        "#]],
    );
}

#[test]
fn a_new_socket_of_an_odd_family() {
    check(
        &mut state(),
        Encoder::syscall("socket")
            .ret(3)
            .int("fd", 3)
            .int("domain", 17)
            .int("type", 3)
            .int("proto", 768)
            .int("flags", 3),
        "evt.args fd.l4proto fd.name fd.type fd.lport evt.arg.domain",
        expect![[r#"
            evt.args = "fd=3(<o>) domain=17(AF_PACKET) type=3 proto=768 flags=0(O_NONE)"
            fd.l4proto = "<NA>"
            fd.name = ""
            fd.type = "<NA>"
            fd.lport = null
            evt.arg.domain = "AF_PACKET"
        "#]],
    );
}

#[test]
fn calls_with_two_paths() {
    check(
        &mut state(),
        Encoder::syscall("renameat")
            .int("res", 0)
            .int("olddirfd", -100)
            .text("oldpath", "/bin/a")
            .int("newdirfd", -100)
            .text("newpath", "b")
            .base("newpath", "/bin"),
        "evt.args evt.abspath evt.abspath.src evt.abspath.dst fs.path.name fs.path.source fs.path.target fd.name",
        expect![[r#"
            evt.args = "res=0 olddirfd=-100(AT_FDCWD) oldpath=/bin/a newdirfd=-100(AT_FDCWD) newpath=b(/bin/b)"
            evt.abspath = null
            evt.abspath.src = "/bin/a"
            evt.abspath.dst = "/bin/b"
            fs.path.name = null
            fs.path.source = "/bin/a"
            fs.path.target = "/bin/b"
            fd.name = null
        "#]],
    );
    check(
        &mut state(),
        Encoder::syscall("symlinkat")
            .int("res", 0)
            .text("target", "/etc/shadow")
            .int("linkdirfd", 5)
            .text("linkpath", "x"),
        "evt.args fs.path.source fs.path.target",
        expect![[r#"
            evt.args = "res=0 target=/etc/shadow linkdirfd=5 linkpath=x(<UNKNOWN>/x)"
            fs.path.source = "<UNKNOWN>/x"
            fs.path.target = "/etc/shadow"
        "#]],
    );
}

#[test]
fn calls_that_change_modes_and_trace() {
    check(
        &mut state(),
        Encoder::syscall("fchmodat").int("res", 0).int("dirfd", -100).text("filename", "/x").int("mode", 0o4755),
        "evt.arg.mode evt.args fd.num fd.name fd.typechar fs.path.name",
        expect![[r#"
            evt.arg.mode = "S_IXOTH|S_IROTH|S_IXGRP|S_IRGRP|S_IXUSR|S_IWUSR|S_IRUSR|S_ISUID"
            evt.args = "res=0 dirfd=-100(AT_FDCWD) filename=/x mode=04755(S_IXOTH|S_IROTH|S_IXGRP|S_IRGRP|S_IXUSR|S_IWUSR|S_IRUSR|S_ISUID)"
            fd.num = -100
            fd.name = ""
            fd.typechar = "o"
            fs.path.name = "/x"
        "#]],
    );
    check(
        &mut state(),
        Encoder::syscall("unlinkat")
            .int("res", 0)
            .int("dirfd", 7)
            .text("name", "x")
            .base("name", "/srv")
            .int("flags", 0x200),
        "evt.args fd.num fd.name fd.type fd.directory fs.path.name evt.abspath",
        expect![[r#"
            evt.args = "res=0 dirfd=7(<d>/srv) name=x(/srv/x) flags=512(AT_REMOVEDIR)"
            fd.num = 7
            fd.name = "/srv"
            fd.type = "directory"
            fd.directory = "/srv"
            fs.path.name = "/srv/x"
            evt.abspath = "/srv/x"
        "#]],
    );
    check(
        &mut state(),
        Encoder::syscall("ptrace")
            .ret(-1)
            .int("res", -1)
            .int("request", 16)
            .int("pid", 100)
            .int("addr", 0)
            .int("data", 0),
        "evt.arg.request evt.arg.pid evt.res evt.arg.res",
        expect![[r#"
            evt.arg.request = "PTRACE_ATTACH"
            evt.arg.pid = "100"
            evt.res = "EPERM"
            evt.arg.res = "EPERM"
        "#]],
    );
}

#[test]
fn the_end_of_a_process() {
    let mut state = state();
    bash(&mut state);
    check(
        &mut state,
        Encoder::exit().process(50, 500).comm("bash").ret(2 << 8),
        "evt.type syscall.type evt.res evt.failed proc.cmdline evt.args",
        expect![[r#"
            evt.type = "procexit"
            syscall.type = null
            evt.res = null
            evt.failed = false
            proc.cmdline = "bash --login"
            evt.args = "status=512 ret=2 sig=0 core=0 reaper_tid=<NA>"
        "#]],
    );
}

#[test]
fn a_process_in_a_container_that_nobody_told_of() {
    let mut state = state();
    state.learn_cgroup(60, format!("/docker/{ID}").as_bytes());
    check(
        &mut state,
        Encoder::syscall("mkdir").cgroup_id(60).comm("sh").ancestor(9, 9, "runc").header(|h| h.uid = 1).int("res", 0).text("path", "x").cwd("/w"),
        "container.id container.full_id container.name container.image.repository proc.name proc.exe proc.args proc.cmdline
         proc.pname proc.pcmdline proc.pexe proc.cwd proc.env user.name user.shell evt.arg.path",
        expect![[r#"
            container.id = "6d4a9e395b72"
            container.full_id = "6d4a9e395b72fdf4ee420d0460dc006b622822a7e551e31da38cb3260995e1aa"
            container.name = null
            container.image.repository = null
            proc.name = "sh"
            proc.exe = null
            proc.args = null
            proc.cmdline = "sh"
            proc.pname = "runc"
            proc.pcmdline = "runc"
            proc.pexe = null
            proc.cwd = "/w/"
            proc.env = null
            user.name = "<NA>"
            user.shell = "<NA>"
            evt.arg.path = "/w/x"
        "#]],
    );
}

#[test]
fn a_container_that_the_runtime_told_of() {
    let mut state = state();
    state.learn_cgroup(60, format!("/docker/{ID}").as_bytes());
    let mount = |source: &str, dest: &str| Mount {
        source: source.into(),
        dest: dest.into(),
        mode: "".into(),
        writable: true,
        propagation: "private".into(),
    };
    let facts = ContainerFacts {
        name: "web".into(),
        runtime: "containerd".into(),
        repository: "docker.io/library/nginx".into(),
        tag: "1.27".into(),
        privileged: Some(true),
        mounts: vec![mount("/proc/1", "/host/proc"), mount("/etc", "/host/etc")],
        labels: vec![
            ("app".into(), "shop".into()),
            ("io.kubernetes.pod.name".into(), "web-1".into()),
            ("x".into(), "".into()),
        ],
        ip: "10.1.2.3".into(),
        pod: Some(PodFacts {
            name: "web-1".into(),
            namespace: "shop".into(),
            sandbox_id: ID.into(),
            ..PodFacts::default()
        }),
        ..ContainerFacts::default()
    };
    state.set_container(ID, facts);
    check(
        &mut state,
        Encoder::syscall("mkdir").cgroup_id(60),
        "container.id container.name container.type container.image.repository container.image.tag container.privileged
         container.host_pid container.mounts container.mount.dest[/proc*] container.mount.source[/host/etc]
         container.mount.dest[/nope] container.mount[1] container.label[app] container.labels k8s.pod.name k8s.ns.name
         k8s.pod.sandbox_id k8s.pod.ip",
        expect![[r#"
            container.id = "6d4a9e395b72"
            container.name = "web"
            container.type = "containerd"
            container.image.repository = "docker.io/library/nginx"
            container.image.tag = "1.27"
            container.privileged = true
            container.host_pid = null
            container.mounts = "/proc/1:/host/proc::true:private,/etc:/host/etc::true:private"
            container.mount.dest[/proc*] = "/host/proc"
            container.mount.source[/host/etc] = "/etc"
            container.mount.dest[/nope] = null
            container.mount[1] = "/etc:/host/etc::true:private"
            container.label[app] = "shop"
            container.labels = "app:shop, x"
            k8s.pod.name = "web-1"
            k8s.ns.name = "shop"
            k8s.pod.sandbox_id = "6d4a9e395b72"
            k8s.pod.ip = "10.1.2.3"
        "#]],
    );
}

#[test]
fn the_cluster_knows_more_about_a_pod() {
    const ID: &str = "6d4a9e395b72cfc4d3a2a7d6cd5dc6bd0a8a2b0e1d8d8ecf7f3a3d8a4f0c7e11";
    let mut state = state();
    state.learn_cgroup(61, format!("/kubepods/pod1/{ID}").as_bytes());
    let label = |name: &str, value: &str| (name.into(), value.into());
    let pod = PodFacts {
        namespace: "shop".into(),
        uid: "hash".into(),
        labels: vec![label("app", "old"), label("runtime", "only")],
        ..PodFacts::default()
    };
    state.set_container(ID, ContainerFacts { pod: Some(pod), ..ContainerFacts::default() });
    const FIELDS: &str = "k8s.pod.uid k8s.pod.label[app] k8s.pod.label[runtime] k8s.pod.labels k8s.ns.label[team] \
                          k8s.ns.labels k8s.deployment.name k8s.rs.name k8s.rc.name";
    check(
        &mut state,
        Encoder::syscall("mkdir").cgroup_id(61),
        FIELDS,
        expect![[r#"
            k8s.pod.uid = "hash"
            k8s.pod.label[app] = "old"
            k8s.pod.label[runtime] = "only"
            k8s.pod.labels = "app:old, runtime:only"
            k8s.ns.label[team] = null
            k8s.ns.labels = null
            k8s.deployment.name = null
            k8s.rs.name = null
            k8s.rc.name = null
        "#]],
    );
    let owner = |kind: &str, name: &str| Owner { kind: kind.into(), name: name.into() };
    state.change_cluster(ClusterChange {
        complete: true,
        pods: vec![Pod {
            uid: "real".into(),
            config_hash: "hash".into(),
            labels: vec![label("app", "new")],
            owners: vec![owner("ReplicaSet", "web-5d"), owner("Deployment", "web")],
            ..Pod::default()
        }],
        namespaces: vec![Namespace { name: "shop".into(), labels: vec![label("team", "a")] }],
        ..ClusterChange::default()
    });
    check(
        &mut state,
        Encoder::syscall("mkdir").cgroup_id(61),
        FIELDS,
        expect![[r#"
            k8s.pod.uid = "real"
            k8s.pod.label[app] = "new"
            k8s.pod.label[runtime] = "only"
            k8s.pod.labels = "app:new"
            k8s.ns.label[team] = "a"
            k8s.ns.labels = "team:a"
            k8s.deployment.name = "web"
            k8s.rs.name = "web-5d"
            k8s.rc.name = null
        "#]],
    );
}

#[test]
fn clock_times() {
    check(
        &mut state(),
        Encoder::syscall("mkdir").time(1_000_000_002),
        "evt.num evt.time evt.time.s evt.time.iso8601 evt.datetime evt.rawtime evt.rawtime.s evt.rawtime.ns evt.reltime evt.hostname evt.source",
        expect![[r#"
            evt.num = 1
            evt.time = "22:13:21.000000002"
            evt.time.s = "22:13:21"
            evt.time.iso8601 = "2023-11-14T22:13:21.000000002+0000"
            evt.datetime = "2023-11-14 22:13:21.000000002"
            evt.rawtime = 1700000001000000002
            evt.rawtime.s = 1700000001
            evt.rawtime.ns = 2
            evt.reltime = 0
            evt.hostname = "node-1"
            evt.source = "syscall"
        "#]],
    );
}
