//! Fields about the event itself: time, type, result, parameters.

use super::{Arg, ArgRule, Field, evt_audit, time as clock};
use crate::{
    args::Param,
    catalogue::{Category, Origin},
    descriptor::FdKind,
    errno,
    event::Event,
    flags::open,
    params::ParamType,
    text::text,
    value::{Value, ValueType::*},
};

/// One row per field: name, type, what it means, and behind it the argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("evt.num", Uint(64), "sequence number of the event, starting at 1").from(num).audit(evt_audit::num),
    Field::new("evt.time", Text, "local wall-clock time of day with nanoseconds").from(time).audit(evt_audit::time),
    Field::new("evt.time.s", Text, "local wall-clock time of day, whole seconds").from(time_s).audit(evt_audit::time_s),
    Field::new("evt.time.iso8601", Text, "UTC ISO-8601 timestamp with nanoseconds").from(iso8601).audit(evt_audit::iso8601),
    Field::new("evt.datetime", Text, "local date and time with nanoseconds").from(datetime).audit(evt_audit::datetime),
    Field::new("evt.datetime.s", Text, "local date and time, whole seconds").from(datetime_s).audit(evt_audit::datetime_s),
    Field::new("evt.rawtime", AbsTime, "nanoseconds since the epoch").from(rawtime).audit(evt_audit::rawtime),
    Field::new("evt.rawtime.s", AbsTime, "seconds part of the epoch timestamp").from(rawtime_s).audit(evt_audit::rawtime_s),
    Field::new("evt.rawtime.ns", AbsTime, "sub-second nanoseconds of the timestamp, zero padded").from(rawtime_ns).audit(evt_audit::rawtime_ns),
    Field::new("evt.reltime", RelTime, "nanoseconds since first captured event").from(reltime),
    Field::new("evt.reltime.s", RelTime, "seconds since first captured event").from(reltime_s),
    Field::new("evt.reltime.ns", RelTime, "sub-second part of time since first event").from(reltime_ns),
    Field::new("evt.pluginname", Text, "plugin that produced the event").audit(evt_audit::plugin),
    Field::new("evt.plugininfo", Text, "plugin-rendered one-line summary of the event"),
    Field::new("evt.source", Text, "event source name such as syscall or k8s_audit").from(source).audit(evt_audit::source),
    Field::new("evt.is_async", Bool, "true for meta and asynchronous events").from(is_async).audit(evt_audit::is_async),
    Field::new("evt.asynctype", Text, "name of the asynchronous event, else unset").from(asynctype),
    Field::new("evt.hostname", Text, "host name, overridable through FALCO_HOSTNAME").from(hostname).audit(evt_audit::hostname),
    Field::new("evt.latency", RelTime, "deprecated; constant 0").deprecated().from(zero),
    Field::new("evt.latency.s", RelTime, "deprecated; constant 0").deprecated().from(zero),
    Field::new("evt.latency.ns", RelTime, "deprecated; constant 0").deprecated().from(zero),
    Field::new("evt.latency.quantized", Uint(64), "deprecated; constant 0").deprecated().hidden().from(zero),
    Field::new("evt.latency.human", Text, "deprecated; constant \"0ns\"").deprecated().from(zero_text),
    Field::new("evt.deltatime", RelTime, "nanoseconds since this check last saw an event"),
    Field::new("evt.deltatime.s", RelTime, "whole seconds since previous evaluated event"),
    Field::new("evt.deltatime.ns", RelTime, "sub-second part of delta to previous evaluated event"),
    Field::new("evt.outputtime", Text, "time in the inspector's configured output style").print_only().from(time),
    Field::new("evt.dir", Text, "deprecated; now always \"<\" for syscalls").deprecated().from(dir),
    Field::new("evt.type", Text, "event or syscall name; async name for async events").from(ty),
    Field::new("evt.type.is", Uint(32), "1 when event code equals the suffix name").arg(ArgRule::DotSuffix).from(type_is),
    Field::new("syscall.type", Text, "syscall name; unset for non-syscall events").from(syscall_type),
    Field::new("evt.category", Text, "event category: file, net, memory, process, ...").from(category),
    Field::new("evt.cpu", Int(16), "CPU the event was recorded on").from(cpu),
    Field::new("evt.args", Text, "all arguments rendered as name=value text").from(args),
    Field::new("evt.arg", Text, "one argument as resolved text, by name or index").arg(ArgRule::Param).from(arg),
    Field::new("evt.rawarg", Dynamic, "one argument in native type, by name").arg(ArgRule::ParamName).no_rhs().no_transformer().from(rawarg),
    Field::new("evt.info", Text, "same text as evt.args").from(args),
    Field::new("evt.buffer", Bytes, "I/O payload bytes captured, up to snaplen").from(buffer),
    Field::new("evt.buflen", Uint(64), "bytes transferred by an I/O call").from(buflen),
    Field::new("evt.res", Text, "SUCCESS or the errno name").from(res),
    Field::new("evt.rawres", Int(64), "signed return value").from(rawres),
    Field::new("evt.failed", Bool, "1 when return value is negative").from(failed),
    Field::new("evt.is_io", Bool, "true when event reads or writes an fd").from(is_io),
    Field::new("evt.is_io_read", Bool, "true when event reads from an fd").from(is_io_read),
    Field::new("evt.is_io_write", Bool, "true when event writes to an fd").from(is_io_write),
    Field::new("evt.io_dir", Text, "\"read\" or \"write\"; unset otherwise").from(io_dir),
    Field::new("evt.is_wait", Bool, "true for blocking wait calls").from(is_wait),
    Field::new("evt.wait_latency", RelTime, "deprecated; constant 0").deprecated().from(zero),
    Field::new("evt.is_syslog", Bool, "true for writes to the syslog socket").from(never),
    Field::new("evt.count", Uint(32), "constant 1").from(one),
    Field::new("evt.count.error", Uint(32), "1 on failure, 0 on success").from(count_error),
    Field::new("evt.count.error.file", Uint(32), "1 on failed file event; unset for others").from(count_error_file),
    Field::new("evt.count.error.net", Uint(32), "1 on failed network event; unset for others").from(count_error_net),
    Field::new("evt.count.error.memory", Uint(32), "1 on failed memory event; unset for others").from(count_error_memory),
    Field::new("evt.count.error.other", Uint(32), "1 on failed event of another class").from(count_error_other),
    Field::new("evt.count.exit", Uint(32), "1 for exit events, else unset").from(one),
    Field::new("evt.count.procinfo", Uint(32), "1 for main-thread procinfo events").hidden().from(count_procinfo),
    Field::new("evt.count.threadinfo", Uint(32), "1 for procinfo events").hidden().from(count_threadinfo),
    Field::new("evt.around", Uint(64), "event within D ms of timestamp T (only =)").arg(ArgRule::RequiredKey).no_rhs().no_transformer().filter_only(),
    Field::new("evt.abspath", Text, "absolute path from dirfd plus path argument").from(abspath),
    Field::new("evt.abspath.src", Text, "absolute path from dirfd plus path argument").from(abspath_src),
    Field::new("evt.abspath.dst", Text, "absolute path from dirfd plus path argument").from(abspath_dst),
    Field::new("evt.buflen.in", Uint(64), "bytes of read-type I/O only").hidden().from(buflen_in),
    Field::new("evt.buflen.out", Uint(64), "bytes of write-type I/O only").hidden().from(buflen_out),
    Field::new("evt.buflen.file", Uint(64), "bytes of file I/O only").hidden().from(buflen_file),
    Field::new("evt.buflen.file.in", Uint(64), "bytes read from files").hidden().from(buflen_file_in),
    Field::new("evt.buflen.file.out", Uint(64), "bytes written to files").hidden().from(buflen_file_out),
    Field::new("evt.buflen.net", Uint(64), "bytes of socket I/O only").hidden().from(buflen_net),
    Field::new("evt.buflen.net.in", Uint(64), "bytes received from sockets").hidden().from(buflen_net_in),
    Field::new("evt.buflen.net.out", Uint(64), "bytes sent to sockets").hidden().from(buflen_net_out),
    Field::new("evt.is_open_read", Bool, "open-family call with read access flag").from(is_open_read),
    Field::new("evt.is_open_write", Bool, "open-family call with write access flag").from(is_open_write),
    Field::new("evt.infra.docker.name", Text, "legacy infra event: docker event name").hidden(),
    Field::new("evt.infra.docker.container.id", Text, "legacy infra event: container id").hidden(),
    Field::new("evt.infra.docker.container.name", Text, "legacy infra event: container name").hidden(),
    Field::new("evt.infra.docker.container.image", Text, "legacy infra event: image name").hidden(),
    Field::new("evt.is_open_exec", Bool, "file created with any execute mode bit").from(is_open_exec),
    Field::new("evt.is_open_create", Bool, "open actually created the file").from(is_open_create),
    Field::new("util.cnt", Uint(64), "counter incremented per extraction"),
];

const NS: u64 = 1_000_000_000;

type Found<'a> = Option<Value<'a>>;

fn num<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.num))
}

fn time<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::time_of_day(e.arena(), e.unix_ns(), e.state.host.utc_offset_s, true)))
}

fn time_s<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::time_of_day(e.arena(), e.unix_ns(), e.state.host.utc_offset_s, false)))
}

fn iso8601<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::iso8601(e.arena(), e.unix_ns())))
}

fn datetime<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::date_time(e.arena(), e.unix_ns(), e.state.host.utc_offset_s, true)))
}

fn datetime_s<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::date_time(e.arena(), e.unix_ns(), e.state.host.utc_offset_s, false)))
}

fn rawtime<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.unix_ns()))
}

fn rawtime_s<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.unix_ns() / NS))
}

fn rawtime_ns<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.unix_ns() % NS))
}

/// Nanoseconds since the first record.
fn since_first(e: &Event<'_>) -> Option<u64> {
    Some(e.record.header.time.saturating_sub(e.state.first_record()?))
}

fn reltime<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    since_first(e).map(Value::Uint)
}

fn reltime_s<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    since_first(e).map(|ns| Value::Uint(ns / NS))
}

fn reltime_ns<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    since_first(e).map(|ns| Value::Uint(ns % NS))
}

/// What the kernel tells. Events of plugins, and what their plugins tell, are of other sources, which are not events of
/// this kind here.
fn source<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let of_plugin =
        |name| e.param_named(name).and_then(|index| e.raw_param(index)).is_some_and(|id| id != Value::Uint(0));
    match e.info().origin {
        Origin::Syscall | Origin::Generic | Origin::Tracepoint => Some(Value::Text(b"syscall")),
        Origin::Meta if !of_plugin("plugin_id") => Some(Value::Text(b"syscall")),
        Origin::Meta | Origin::Plugin => None,
    }
}

fn is_async<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.info().origin == Origin::Meta))
}

/// Asynchronous events of plugins bring their own name.
fn async_name<'a>(e: &Event<'a>) -> Option<&'a [u8]> {
    match (e.info().origin, e.info().name) {
        (Origin::Meta, "asyncevent") => Some(e.param_text(e.param_named("name")?)?.best()),
        (Origin::Meta, name) => Some(name.as_bytes()),
        (Origin::Syscall | Origin::Generic | Origin::Tracepoint | Origin::Plugin, _) => None,
    }
}

fn asynctype<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    async_name(e).map(Value::Text)
}

fn count_procinfo<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let main = e.record.header.tid == e.record.header.tgid;
    Some(Value::Uint(u64::from(e.info().name == "procinfo" && main)))
}

fn count_threadinfo<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(u64::from(e.info().name == "procinfo")))
}

/// The bytes that a call read or wrote, as far as they were collected.
fn buffer<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    match e.param(e.param_named("data")?)? {
        Param::Bytes(bytes) => Some(Value::Bytes(bytes)),
        Param::Empty | Param::Int(_) | Param::Uint(_) | Param::Text(_) => None,
    }
}

/// What the call says that it moved; failed calls moved nothing.
fn buflen<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    transferred(e, None, None)
}

fn never<'a>(_: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(false))
}

fn zero<'a>(_: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(0))
}

fn one<'a>(_: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(1))
}

fn zero_text<'a>(_: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(b"0ns"))
}

fn hostname<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.state.host.hostname.as_bytes()))
}

fn dir<'a>(_: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(b"<"))
}

fn ty<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(async_name(e).unwrap_or(e.info().name.as_bytes())))
}

fn type_is<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    match arg {
        Arg::Key(name) => Some(Value::Uint(u64::from(e.info().name == &**name))),
        Arg::None | Arg::Index(_) => None,
    }
}

fn syscall_type<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    if e.is_syscall() { ty(e, arg) } else { None }
}

fn category<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.info().category.word().as_bytes()))
}

fn cpu<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    e.record.cpu.map(|cpu| Value::Int(i64::from(cpu)))
}

fn args<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.all_params()))
}

fn param_index(e: &Event<'_>, arg: &Arg) -> Option<usize> {
    match arg {
        Arg::Index(index) => usize::try_from(*index).ok(),
        Arg::Key(name) => e.param_named(name),
        Arg::None => None,
    }
}

fn arg<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    Some(Value::Text(e.param_text(param_index(e, arg)?)?.best()))
}

fn rawarg<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    e.raw_param(param_index(e, arg)?)
}

fn res<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let result = e.result()?;
    let word = if result >= 0 { "SUCCESS" } else { return Some(Value::Text(error_text(e, result))) };
    Some(Value::Text(word.as_bytes()))
}

/// Name of an error, or its number when it has none.
fn error_text<'a>(e: &Event<'a>, result: i64) -> &'a [u8] {
    match errno::name(result) {
        Some(name) => name.as_bytes(),
        None => text!(e.arena(), "{result}"),
    }
}

fn rawres<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    e.result().map(Value::Int)
}

fn failed<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.failed()))
}

fn is_io<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(matches!(e.info().category, Category::IoRead | Category::IoWrite)))
}

fn is_io_read<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.info().category == Category::IoRead))
}

fn is_io_write<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.info().category == Category::IoWrite))
}

fn io_dir<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let word: &[u8] = match e.info().category {
        Category::IoRead => b"read",
        Category::IoWrite => b"write",
        Category::Other
        | Category::File
        | Category::Net
        | Category::Ipc
        | Category::Wait
        | Category::Signal
        | Category::Sleep
        | Category::Time
        | Category::Process
        | Category::Scheduler
        | Category::Memory
        | Category::User
        | Category::System
        | Category::IoOther
        | Category::Internal
        | Category::Unknown => return None,
    };
    Some(Value::Text(word))
}

fn is_wait<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.info().category == Category::Wait))
}

fn count_error<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(u64::from(e.failed())))
}

fn count_error_in<'a>(e: &Event<'a>, among: impl FnOnce(Category) -> bool) -> Found<'a> {
    (e.failed() && among(e.info().category)).then_some(Value::Uint(1))
}

fn count_error_file<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    count_error_in(e, |category| category == Category::File)
}

fn count_error_net<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    count_error_in(e, |category| category == Category::Net)
}

fn count_error_memory<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    count_error_in(e, |category| category == Category::Memory)
}

fn count_error_other<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    count_error_in(e, |category| !matches!(category, Category::File | Category::Net | Category::Memory))
}

/// The `n`th path of a call that takes directories' descriptors.
fn relative_path<'a>(e: &Event<'a>, n: usize) -> Found<'a> {
    let mut paths = e.info().params.iter().enumerate().filter(|(_, p)| matches!(p.ty, ParamType::RelPath { .. }));
    let (index, _) = paths.nth(n)?;
    e.full_path(index).map(Value::Text)
}

/// Whether the call has two such paths.
fn has_two_paths(e: &Event<'_>) -> bool {
    e.info().params.iter().filter(|p| matches!(p.ty, ParamType::RelPath { .. })).count() == 2
}

fn abspath<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    if e.info().name == "open_by_handle_at" {
        return e.descriptor_name().map(Value::Text);
    }
    if has_two_paths(e) { None } else { relative_path(e, 0) }
}

fn abspath_src<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    if has_two_paths(e) { relative_path(e, 0) } else { None }
}

fn abspath_dst<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    if has_two_paths(e) { relative_path(e, 1) } else { None }
}

fn is_open_read<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.opens_for(open::RDONLY)))
}

fn is_open_write<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(e.opens_for(open::WRONLY)))
}

/// A file that is created with the right to execute it.
fn is_open_exec<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let mode = || e.param_named("mode").and_then(|index| e.record.param(index)?.int());
    let creates = e.open_flags() & (open::CREAT | open::TMPFILE) != 0;
    Some(Value::Bool(creates && mode().is_some_and(|mode| mode & 0o111 != 0)))
}

/// A file that the call created, as the kernel says, or a temporary one.
fn is_open_create<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let flags = e.open_flags();
    Some(Value::Bool(flags & open::CREATED != 0 || flags & open::TMPFILE != 0 && !e.failed()))
}

/// How many bytes a call read or wrote; of one direction, and of one kind of descriptor, where that is asked for.
fn transferred<'a>(e: &Event<'a>, direction: Option<Category>, kind: Option<fn(FdKind) -> bool>) -> Found<'a> {
    let category = e.info().category;
    let is_io = matches!(category, Category::IoRead | Category::IoWrite);
    let is_of_kind = || kind.is_none_or(|is| e.descriptor().and_then(|fd| fd.open).is_some_and(|open| is(open.kind)));
    if !is_io || direction.is_some_and(|wanted| wanted != category) || !is_of_kind() {
        return None;
    }
    e.result().and_then(|result| u64::try_from(result).ok()).map(Value::Uint)
}

const FILE: Option<fn(FdKind) -> bool> = Some(|kind| kind == FdKind::File);
const NET: Option<fn(FdKind) -> bool> = Some(|kind| matches!(kind, FdKind::Ipv4 | FdKind::Ipv6));

fn buflen_in<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    transferred(e, Some(Category::IoRead), None)
}

fn buflen_out<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    transferred(e, Some(Category::IoWrite), None)
}

fn buflen_file<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    transferred(e, None, FILE)
}

fn buflen_file_in<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    transferred(e, Some(Category::IoRead), FILE)
}

fn buflen_file_out<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    transferred(e, Some(Category::IoWrite), FILE)
}

fn buflen_net<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    transferred(e, None, NET)
}

fn buflen_net_in<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    transferred(e, Some(Category::IoRead), NET)
}

fn buflen_net_out<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    transferred(e, Some(Category::IoWrite), NET)
}
