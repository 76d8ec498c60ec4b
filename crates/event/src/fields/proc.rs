//! Fields of the process and thread that did it, and of its ancestors.

use super::{Arg, ArgRule, Field, Matching};
use crate::{
    args::PAGE_KB,
    event::{AncestorView, Event},
    flags::write_capabilities,
    state::{Image, Process, Strings},
    text::{Text as Writer, text},
    value::{Value, ValueType::*},
};
use abi::record::{ExecFacts, exe_flag};

/// One row per field: name, type, what it means, and behind it the argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("proc.exe", Text, "argv[0] of the process").from(exe),
    Field::new("proc.pexe", Text, "argv[0] of the parent").from(pexe),
    Field::new("proc.aexe", Text, "argv[0] of ancestor n, or any ancestor").arg(ArgRule::OptionalIndex).matching(Matching::EachAncestor).no_rhs().no_transformer().from(aexe),
    Field::new("proc.exepath", Text, "kernel-resolved path of the executable").from(exepath),
    Field::new("proc.pexepath", Text, "executable path of the parent").from(pexepath),
    Field::new("proc.aexepath", Text, "executable path of ancestor n, or any").arg(ArgRule::OptionalIndex).matching(Matching::EachAncestor).no_rhs().no_transformer().from(aexepath),
    Field::new("proc.name", Text, "task comm, at most 15 characters").from(name),
    Field::new("proc.pname", Text, "comm of the parent").from(pname),
    Field::new("proc.aname", Text, "comm of ancestor n, or any ancestor").arg(ArgRule::OptionalIndex).matching(Matching::EachAncestor).no_rhs().no_transformer().from(aname),
    Field::new("proc.args", Text, "arguments after argv[0], or one by index").arg(ArgRule::OptionalIndex).from(args),
    Field::new("proc.aargs", Text, "arguments of ancestor n, or all joined").arg(ArgRule::OptionalIndex).from(aargs),
    Field::new("proc.cmdline", Text, "comm followed by arguments").from(cmdline),
    Field::new("proc.pcmdline", Text, "comm and arguments of the parent").from(pcmdline),
    Field::new("proc.acmdline", Text, "comm and arguments of ancestor n, or any").arg(ArgRule::OptionalIndex).matching(Matching::EachAncestor).no_rhs().no_transformer().from(acmdline),
    Field::new("proc.cmdnargs", Uint(64), "argument count excluding argv[0]").from(cmdnargs),
    Field::new("proc.cmdlenargs", Uint(64), "total characters of arguments, spaces excluded").from(cmdlenargs),
    Field::new("proc.exeline", Text, "argv[0] followed by arguments").from(exeline),
    Field::new("proc.env", Text, "environment text, or one variable's value").arg(ArgRule::OptionalKey).from(env),
    Field::new("proc.aenv", Text, "ancestor environment text or variable (experimental)").arg(ArgRule::OptionalIndexOrKey).no_rhs().no_transformer().from(aenv),
    Field::new("proc.cwd", Text, "working directory, always with trailing slash").from(cwd),
    Field::new("proc.loginshellid", Int(64), "pid of the oldest shell in the lineage").from(loginshellid),
    Field::new("proc.tty", Uint(32), "controlling terminal device number; 0 if none").from(tty),
    Field::new("proc.pid", Int(64), "thread-group id in the host namespace").from(pid),
    Field::new("proc.ppid", Int(64), "parent pid in the host namespace").from(ppid),
    Field::new("proc.apid", Int(64), "pid of ancestor n, or any ancestor").arg(ArgRule::OptionalIndex).matching(Matching::EachAncestor).no_rhs().no_transformer().from(apid),
    Field::new("proc.vpid", Int(64), "pid inside the process' pid namespace").from(vpid),
    Field::new("proc.pvpid", Int(64), "parent's pid inside its pid namespace").from(pvpid),
    Field::new("proc.sid", Int(64), "session id").from(sid),
    Field::new("proc.sname", Text, "comm of the session leader").from(sname),
    Field::new("proc.sid.exe", Text, "argv[0] of the session leader").from(sid_exe),
    Field::new("proc.sid.exepath", Text, "executable path of the session leader").from(sid_exepath),
    Field::new("proc.vpgid", Int(64), "process group id inside the namespace").from(vpgid),
    Field::new("proc.vpgid.name", Text, "comm of the namespaced process-group leader").from(pgid_name),
    Field::new("proc.vpgid.exe", Text, "argv[0] of the namespaced process-group leader").from(pgid_exe),
    Field::new("proc.vpgid.exepath", Text, "executable path of namespaced process-group leader").from(pgid_exepath),
    Field::new("proc.pgid", Int(64), "process group id in the host namespace").from(pgid),
    Field::new("proc.pgid.name", Text, "comm of the host process-group leader").from(pgid_name),
    Field::new("proc.pgid.exe", Text, "argv[0] of the host process-group leader").from(pgid_exe),
    Field::new("proc.pgid.exepath", Text, "executable path of host process-group leader").from(pgid_exepath),
    Field::new("proc.duration", RelTime, "nanoseconds since process start").from(duration),
    Field::new("proc.ppid.duration", RelTime, "nanoseconds since parent start").from(ppid_duration),
    Field::new("proc.pid.ts", RelTime, "process start, epoch nanoseconds").from(pid_ts),
    Field::new("proc.ppid.ts", RelTime, "parent start, epoch nanoseconds").from(ppid_ts),
    Field::new("proc.is_exe_writable", Bool, "executable writable by the spawning user").from(is_exe_writable),
    Field::new("proc.is_exe_upper_layer", Bool, "executable lives in overlayfs upper layer").from(is_exe_upper_layer),
    Field::new("proc.is_exe_lower_layer", Bool, "executable lives in overlayfs lower layer").from(is_exe_lower_layer),
    Field::new("proc.is_exe_from_memfd", Bool, "executable is an anonymous memfd file").from(is_exe_from_memfd),
    Field::new("proc.is_sid_leader", Bool, "sid equals vpid").from(is_sid_leader),
    Field::new("proc.is_vpgid_leader", Bool, "vpgid equals vpid").from(is_vpgid_leader),
    Field::new("proc.is_pgid_leader", Bool, "pgid equals pid").from(is_pgid_leader),
    Field::new("proc.exe_ino", Int(64), "inode of the executable; unset when 0").from(exe_ino),
    Field::new("proc.exe_ino.ctime", AbsTime, "executable inode change time, epoch ns").from(exe_ino_ctime),
    Field::new("proc.exe_ino.mtime", AbsTime, "executable modification time, epoch ns").from(exe_ino_mtime),
    Field::new("proc.exe_ino.ctime_duration_proc_start", AbsTime, "ns from executable ctime to process start").from(exe_ino_age),
    Field::new("proc.exe_ino.ctime_duration_pidns_start", AbsTime, "ns from pid-namespace start to executable ctime"),
    Field::new("proc.pidns_init_start_ts", Uint(64), "start time of the pid namespace"),
    Field::new("thread.cap_permitted", Text, "permitted capability names, space separated").from(cap_permitted),
    Field::new("thread.cap_inheritable", Text, "inheritable capability names, space separated").from(cap_inheritable),
    Field::new("thread.cap_effective", Text, "effective capability names, space separated").from(cap_effective),
    Field::new("proc.fdopencount", Uint(64), "number of tracked open fds"),
    Field::new("proc.fdlimit", Int(64), "fd resource limit").from(fdlimit),
    Field::new("proc.fdusage", Double, "percentage of fd limit in use"),
    Field::new("proc.vmsize", Uint(64), "virtual memory in kB").from(vmsize),
    Field::new("proc.vmrss", Uint(64), "resident memory in kB"),
    Field::new("proc.vmswap", Uint(64), "swapped memory in kB"),
    Field::new("thread.pfmajor", Uint(64), "major page faults").from(pfmajor),
    Field::new("thread.pfminor", Uint(64), "minor page faults").from(pfminor),
    Field::new("thread.tid", Int(64), "thread id").from(tid),
    Field::new("thread.ismain", Bool, "true for thread-group leader").from(ismain),
    Field::new("thread.vtid", Int(64), "thread id inside its pid namespace").from(vtid),
    Field::new("thread.nametid", Text, "comm concatenated with tid").hidden().from(nametid),
    Field::new("thread.exectime", RelTime, "CPU time of last slice (switch events)"),
    Field::new("thread.totexectime", RelTime, "accumulated CPU time (switch events)"),
    Field::new("thread.cgroups", Text, "all subsys=path pairs, space separated"),
    Field::new("thread.cgroup", Text, "cgroup path of one subsystem").arg(ArgRule::DotSuffix),
    Field::new("proc.nthreads", Uint(64), "alive threads of the process"),
    Field::new("proc.nchilds", Uint(64), "alive non-leader threads"),
    Field::new("thread.cpu", Double, "CPU use in last interval (procinfo)"),
    Field::new("thread.cpu.user", Double, "user CPU use (procinfo)"),
    Field::new("thread.cpu.system", Double, "system CPU use (procinfo)"),
    Field::new("thread.vmsize", Uint(64), "virtual memory kB, main thread only").from(vmsize),
    Field::new("thread.vmrss", Uint(64), "resident memory kB, main thread only"),
    Field::new("thread.vmsize.b", Uint(64), "virtual memory bytes, main thread only").hidden().from(vmsize_b),
    Field::new("thread.vmrss.b", Uint(64), "resident memory bytes, main thread only").hidden(),
    Field::new("proc.stdin.type", Text, "fd type of fd 0").from(|e, _| standard_type(e, 0)),
    Field::new("proc.stdout.type", Text, "fd type of fd 1").from(|e, _| standard_type(e, 1)),
    Field::new("proc.stderr.type", Text, "fd type of fd 2").from(|e, _| standard_type(e, 2)),
    Field::new("proc.stdin.name", Text, "fd name of fd 0").from(|e, _| standard_name(e, 0)),
    Field::new("proc.stdout.name", Text, "fd name of fd 1").from(|e, _| standard_name(e, 1)),
    Field::new("proc.stderr.name", Text, "fd name of fd 2").from(|e, _| standard_name(e, 2)),
    Field::new("proc.is_container_healthcheck", Bool, "deprecated; never extracted").deprecated(),
    Field::new("proc.is_container_liveness_probe", Bool, "deprecated; never extracted").deprecated(),
    Field::new("proc.is_container_readiness_probe", Bool, "deprecated; never extracted").deprecated(),
];

type Found<'a> = Option<Value<'a>>;

// ---- who a field speaks of

/// The process itself or an ancestor.
#[derive(Clone, Copy)]
struct Someone<'a> {
    pid: u32,
    /// Name of the main thread, or of the event's thread where Falco uses that.
    comm: &'a [u8],
    known: Known<'a>,
}

/// What it runs, or who knows.
#[derive(Clone, Copy)]
enum Known<'a> {
    Image(Option<&'a Image>),
    Ancestor(AncestorView<'a>),
}

impl<'a> Someone<'a> {
    fn this(e: &Event<'a>) -> Self {
        Self { pid: e.record.header.tgid, comm: e.comm(), known: Known::Image(e.image()) }
    }

    fn of_process(process: &'a Process) -> Self {
        Self { pid: process.key.tgid, comm: process.name(), known: Known::Image(process.image.as_deref()) }
    }

    /// `proc.aX[n]`: 0 is the process itself, by the name of its main thread.
    fn at(e: &Event<'a>, n: u32) -> Option<Self> {
        match n {
            0 => Some(Self { comm: e.process_name(), ..Self::this(e) }),
            _ => e.ancestor(n).map(Self::from),
        }
    }

    fn image(&self) -> Option<&'a Image> {
        match self.known {
            Known::Image(image) => image,
            Known::Ancestor(ancestor) => ancestor.image(),
        }
    }

    fn args(&self) -> Strings<'a> {
        self.image().map_or(Strings(b""), Image::args)
    }
}

impl<'a> From<AncestorView<'a>> for Someone<'a> {
    fn from(ancestor: AncestorView<'a>) -> Self {
        Self { pid: ancestor.tgid, comm: ancestor.comm, known: Known::Ancestor(ancestor) }
    }
}

/// Reads a value of one ancestor, or of all as candidates.
fn ancestral<'a>(e: &Event<'a>, arg: &Arg, read: impl Fn(&Event<'a>, Someone<'a>) -> Found<'a>) -> Found<'a> {
    match arg {
        Arg::Index(n) => read(e, Someone::at(e, *n)?),
        Arg::None | Arg::Key(_) => {
            let values = e.ancestors().filter_map(|ancestor| read(e, Someone::from(ancestor)));
            let mut list = bumpalo::collections::Vec::new_in(e.arena());
            list.extend(values);
            Some(Value::List(list.into_bump_slice()))
        }
    }
}

fn parent<'a>(e: &Event<'a>) -> Option<Someone<'a>> {
    e.ancestor(1).map(Someone::from)
}

// ---- what it says of them

/// Text of an image; null when nobody knows the image, or it lacks the part.
fn exe_of<'a>(who: Someone<'a>) -> Found<'a> {
    Some(Value::Text(who.image()?.exe()))
}

fn exepath_of<'a>(who: Someone<'a>) -> Found<'a> {
    Some(Value::Text(who.image()?.exepath()))
}

fn joined<'a>(e: &Event<'a>, strings: Strings<'a>) -> &'a [u8] {
    let mut out = Writer::with_capacity(e.arena(), strings.0.len());
    join_into(&mut out, strings);
    out.finish()
}

fn join_into(out: &mut Writer<'_>, strings: Strings<'_>) {
    for (i, text) in strings.enumerate() {
        if i > 0 {
            out.push(b" ");
        }
        out.push(text);
    }
}

/// `first` and the arguments, separated by blanks.
fn line<'a>(e: &Event<'a>, first: &[u8], args: Strings<'a>) -> &'a [u8] {
    let mut out = Writer::with_capacity(e.arena(), first.len() + 1 + args.0.len());
    out.push(first);
    for text in args {
        out.push(b" ").push(text);
    }
    out.finish()
}

/// The command line: the name, not `argv[0]`, then the arguments. The name alone when the arguments are not known.
fn cmdline_of<'a>(e: &Event<'a>, who: Someone<'a>) -> Found<'a> {
    Some(Value::Text(line(e, who.comm, who.args())))
}

fn exe<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exe_of(Someone::this(e))
}

fn pexe<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exe_of(parent(e)?)
}

fn aexe<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    ancestral(e, arg, |_, who| exe_of(who))
}

fn exepath<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exepath_of(Someone::this(e))
}

fn pexepath<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exepath_of(parent(e)?)
}

fn aexepath<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    ancestral(e, arg, |_, who| exepath_of(who))
}

fn name<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.comm()))
}

fn pname<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(parent(e)?.comm))
}

fn aname<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    ancestral(e, arg, |_, who| Some(Value::Text(who.comm)))
}

fn apid<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    ancestral(e, arg, |_, who| Some(Value::Int(i64::from(who.pid))))
}

/// As Falco: a process that has executed nothing since it was born keeps the name that it was born with here. Rules know
/// runc's children by it.
fn cmdline<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let who = Someone::this(e);
    let born = e.process.filter(|process| process.forked).map(Process::name);
    cmdline_of(e, Someone { comm: born.unwrap_or(who.comm), ..who })
}

fn pcmdline<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    cmdline_of(e, parent(e)?)
}

fn acmdline<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    ancestral(e, arg, cmdline_of)
}

/// All arguments, or one; an argument that is not there is empty.
fn args<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    let mut args = e.args()?;
    Some(Value::Text(match arg {
        Arg::Index(n) => args.nth(*n as usize).unwrap_or_default(),
        Arg::None | Arg::Key(_) => joined(e, args),
    }))
}

/// Arguments of one ancestor; without an index those of all in one text.
fn aargs<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    if let Arg::Index(n) = arg {
        return Some(Value::Text(joined(e, Someone::at(e, *n)?.image()?.args())));
    }
    let mut out = Writer::new(e.arena());
    for ancestor in e.ancestors() {
        let args = Someone::from(ancestor).args();
        if !args.0.is_empty() {
            if !out.is_empty() {
                out.push(b" ");
            }
            join_into(&mut out, args);
        }
    }
    Some(Value::Text(out.finish()))
}

fn cmdnargs<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.args()?.count() as u64))
}

fn cmdlenargs<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.args()?.map(|arg| arg.len() as u64).sum()))
}

fn exeline<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let image = e.image()?;
    Some(Value::Text(line(e, image.exe(), image.args())))
}

/// Value of a variable; empty when it is not set.
fn variable<'a>(env: Strings<'a>, name: &str) -> &'a [u8] {
    let value = |entry: &'a [u8]| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    env.into_iter().find_map(value).unwrap_or_default()
}

fn env<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    let env = e.image()?.env()?;
    Some(Value::Text(match arg {
        Arg::Key(name) => variable(env, name),
        Arg::None | Arg::Index(_) => joined(e, env),
    }))
}

/// How far up an environment variable is looked for.
const ENV_ANCESTORS: u32 = 20;

/// Environment of one ancestor (0, and no argument, is the process itself), or the nearest ancestor's value of a variable.
fn aenv<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    let n = match arg {
        Arg::None => 0,
        Arg::Index(n) => *n,
        Arg::Key(name) => {
            let values = (1..=ENV_ANCESTORS).map_while(|n| e.ancestor(n)).filter_map(|who| who.image()?.env());
            return Some(Value::Text(
                values.map(|env| variable(env, name)).find(|v| !v.is_empty()).unwrap_or_default(),
            ));
        }
    };
    Some(Value::Text(joined(e, Someone::at(e, n)?.image()?.env()?)))
}

fn cwd<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let cwd = e.cwd()?;
    if cwd.ends_with(b"/") {
        return Some(Value::Text(cwd));
    }
    let mut out = Writer::with_capacity(e.arena(), cwd.len() + 1);
    out.push(cwd).push(b"/");
    Some(Value::Text(out.finish()))
}

/// The oldest ancestor whose name ends in `sh`, the process itself included.
fn loginshellid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let line = std::iter::once(Someone::this(e)).chain(e.ancestors().map(Someone::from));
    line.filter(|who| who.comm.ends_with(b"sh")).last().map(|who| Value::Int(i64::from(who.pid)))
}

fn tty<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(u64::from(e.record.header.tty)))
}

// ---- ids

fn id<'a>(value: u32) -> Found<'a> {
    Some(Value::Int(i64::from(value)))
}

fn pid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    id(e.record.header.tgid)
}

fn ppid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    id(e.record.parent().map_or(0, |parent| parent.tgid))
}

fn vpid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    id(e.record.header.vpid)
}

fn pvpid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    id(e.ancestor(1)?.process()?.vpid)
}

/// The session as the process itself sees it, as Falco's.
fn sid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    id(e.record.header.vsid)
}

fn vpgid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    id(e.record.header.vpgid)
}

fn pgid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    id(e.record.header.pgid)
}

fn tid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    id(e.record.header.tid)
}

fn vtid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    id(e.record.header.vtid)
}

fn ismain<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.record.header.tid == e.record.header.tgid))
}

fn nametid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let mut out = Writer::new(e.arena());
    out.push(e.comm()).push(text!(e.arena(), "{}", e.record.header.tid));
    Some(Value::Text(out.finish()))
}

fn is_sid_leader<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.record.header.vsid == e.record.header.vpid))
}

fn is_vpgid_leader<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.record.header.vpgid == e.record.header.vpid))
}

fn is_pgid_leader<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.record.header.pgid == e.record.header.tgid))
}

/// The leader of a session or group: the process with that pid; when it has gone, the eldest in the line of parents that
/// is still of the group, as Falco finds it.
fn leader<'a>(e: &Event<'a>, id: u32, id_of: fn(&Process) -> u32) -> Someone<'a> {
    if id == e.record.header.tgid {
        return Someone::this(e);
    }
    if let Some(process) = e.by_pid(id).filter(|process| process.exit.is_none()) {
        return Someone::of_process(process);
    }
    if let Some(ancestor) = e.ancestors().find(|ancestor| ancestor.tgid == id) {
        return Someone::from(ancestor);
    }
    let same = e.ancestors().take_while(|who| who.process().is_some_and(|process| id_of(process) == id));
    same.last().map_or_else(|| Someone::this(e), Someone::from)
}

fn session_leader<'a>(e: &Event<'a>) -> Someone<'a> {
    leader(e, e.record.header.sid, |process| process.sid)
}

fn group_leader<'a>(e: &Event<'a>) -> Someone<'a> {
    leader(e, e.record.header.pgid, |process| process.pgid)
}

fn sname<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(session_leader(e).comm))
}

fn sid_exe<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exe_of(session_leader(e))
}

fn sid_exepath<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exepath_of(session_leader(e))
}

/// The group is the same in every namespace; only its number differs.
fn pgid_name<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(group_leader(e).comm))
}

fn pgid_exe<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exe_of(group_leader(e))
}

fn pgid_exepath<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exepath_of(group_leader(e))
}

// ---- times

fn duration<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.record.header.time.saturating_sub(e.record.header.start)))
}

fn ppid_duration<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.record.header.time.saturating_sub(e.record.parent()?.start)))
}

fn pid_ts<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.state.unix_ns(e.record.header.start)))
}

fn ppid_ts<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.state.unix_ns(e.record.parent()?.start)))
}

// ---- the executable

/// What the exec said about the executable; `None` for processes older than the sensor.
fn facts(e: &Event<'_>) -> Option<ExecFacts> {
    e.image()?.facts
}

/// False, not null, when nothing is known: as Falco for processes older than itself.
fn exe_has<'a>(e: &Event<'a>, bit: u64) -> Found<'a> {
    Some(Value::Bool(facts(e).is_some_and(|facts| facts.flags & bit != 0)))
}

fn is_exe_writable<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exe_has(e, exe_flag::WRITABLE)
}

fn is_exe_upper_layer<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exe_has(e, exe_flag::UPPER_LAYER)
}

fn is_exe_lower_layer<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    exe_has(e, exe_flag::LOWER_LAYER)
}

fn is_exe_from_memfd<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.image().is_some_and(|image| image.memfd)))
}

fn exe_ino<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    facts(e).map(|facts| facts.ino).filter(|ino| *ino != 0).map(|ino| Value::Int(ino as i64))
}

fn exe_ino_ctime<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    facts(e).map(|facts| facts.ctime).filter(|time| *time != 0).map(Value::Uint)
}

fn exe_ino_mtime<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    facts(e).map(|facts| facts.mtime).filter(|time| *time != 0).map(Value::Uint)
}

/// From the last change of the executable's inode to the start of the process; 0 when the change came later.
fn exe_ino_age<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let changed = facts(e)?.ctime;
    (changed != 0).then(|| Value::Uint(e.state.unix_ns(e.record.header.start).saturating_sub(changed)))
}

fn fdlimit<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    facts(e).map(|facts| Value::Int(facts.fdlimit as i64))
}

/// As of the exec, in kB.
fn vmsize<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    facts(e).map(|facts| Value::Uint(facts.vm_pages.saturating_mul(PAGE_KB)))
}

fn vmsize_b<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    facts(e).map(|facts| Value::Uint(facts.vm_pages.saturating_mul(PAGE_KB * 1024)))
}

fn pfmajor<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    facts(e).map(|facts| Value::Uint(facts.pgft_maj))
}

fn pfminor<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    facts(e).map(|facts| Value::Uint(facts.pgft_min))
}

// ---- capabilities

fn capabilities<'a>(e: &Event<'a>, set: u64) -> Found<'a> {
    let mut out = Writer::new(e.arena());
    write_capabilities(&mut out, set);
    Some(Value::Text(out.finish()))
}

fn cap_permitted<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    capabilities(e, e.record.header.cap_permitted)
}

fn cap_inheritable<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    capabilities(e, e.record.header.cap_inheritable)
}

fn cap_effective<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    capabilities(e, e.record.header.cap_effective)
}

fn standard_type<'a>(e: &Event<'a>, fd: u8) -> Found<'a> {
    e.standard_fd(fd).map(|open| Value::Text(open.kind.word().as_bytes()))
}

fn standard_name<'a>(e: &Event<'a>, fd: u8) -> Found<'a> {
    e.standard_fd(fd).map(|open| Value::Text(e.name_of(&open)))
}
