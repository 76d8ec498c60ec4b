//! Fields of the file descriptor that the event is about.

use bumpalo::collections::Vec as ArenaVec;

use super::{Arg, ArgRule, Field, Matching};
use crate::{
    decode::Status,
    descriptor::{Connection, Descriptor, Endpoint, FdKind, OpenFile, major, minor},
    event::Event,
    path,
    text::{Text as Writer, text},
    value::{Value, ValueType::*},
};

/// One row per field: name, type, what it means, and behind it the argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("fd.num", Int(64), "fd number of this event (last event fd)").from(num),
    Field::new("fd.type", Text, "fd kind word such as file, ipv4, pipe").from(word),
    Field::new("fd.typechar", Text, "fd kind letter such as f, 4, 6, u").from(letter),
    Field::new("fd.name", Text, "absolute path, or connection tuple text").from(name),
    Field::new("fd.realpath", Text, "path of the file as the kernel resolved it, symbolic links followed; unset for what is no file").from(realpath),
    Field::new("fd.directory", Text, "directory part of a file fd").from(directory),
    Field::new("fd.filename", Text, "last component of a file fd").from(filename),
    Field::new("fd.ip", Ip, "either endpoint address (filter only)").matching(Matching::EitherEnd).no_rhs().no_transformer().filter_only().from(ip),
    Field::new("fd.cip", Ip, "client address").from(cip),
    Field::new("fd.sip", Ip, "server address").from(sip),
    Field::new("fd.lip", Ip, "local address").from(lip),
    Field::new("fd.rip", Ip, "remote address").from(rip),
    Field::new("fd.port", Port, "either endpoint port (filter only)").matching(Matching::EitherEnd).no_rhs().no_transformer().filter_only().from(port),
    Field::new("fd.cport", Port, "client port").from(cport),
    Field::new("fd.sport", Port, "server port").from(sport),
    Field::new("fd.lport", Port, "local port").from(lport),
    Field::new("fd.rport", Port, "remote port").from(rport),
    Field::new("fd.l4proto", Text, "tcp, udp, icmp, raw or \"<NA>\"").from(l4proto),
    Field::new("fd.sockfamily", Text, "\"ip\" or \"unix\"").from(sockfamily),
    Field::new("fd.is_server", Bool, "owner is the server endpoint").from(is_server),
    Field::new("fd.uid", Text, "tid digits followed by fd digits").from(uid),
    Field::new("fd.containername", Text, "container id, colon, fd name").from(containername),
    Field::new("fd.containerdirectory", Text, "container id, colon, directory").from(containerdirectory),
    Field::new("fd.proto", Port, "either endpoint service/port (filter only)").matching(Matching::EitherEnd).no_rhs().no_transformer().filter_only().from(port),
    Field::new("fd.cproto", Text, "client port as service name").from(cproto),
    Field::new("fd.sproto", Text, "server port as service name").from(sproto),
    Field::new("fd.lproto", Text, "local port as service name").from(lproto),
    Field::new("fd.rproto", Text, "remote port as service name").from(rproto),
    Field::new("fd.net", Net, "either endpoint in CIDR (filter only)").matching(Matching::EitherEnd).no_rhs().no_transformer().filter_only().from(ip),
    Field::new("fd.cnet", Net, "client address in CIDR (filter only)").no_rhs().no_transformer().filter_only().from(cip),
    Field::new("fd.snet", Net, "server address in CIDR (filter only)").no_rhs().no_transformer().filter_only().from(sip),
    Field::new("fd.lnet", Net, "local address in CIDR (filter only)").no_rhs().no_transformer().filter_only().from(lip),
    Field::new("fd.rnet", Net, "remote address in CIDR (filter only)").no_rhs().no_transformer().filter_only().from(rip),
    Field::new("fd.connected", Bool, "socket is connected").from(connected),
    Field::new("fd.name_changed", Bool, "this event changed the fd's name").from(name_changed),
    Field::new("fd.cip.name", Text, "DNS name tied to client address").matching(Matching::HostName).no_rhs().no_transformer().from(cip),
    Field::new("fd.sip.name", Text, "DNS name tied to server address").matching(Matching::HostName).no_rhs().no_transformer().from(sip),
    Field::new("fd.lip.name", Text, "DNS name tied to local address").matching(Matching::HostName).no_rhs().no_transformer().from(lip),
    Field::new("fd.rip.name", Text, "DNS name tied to remote address").matching(Matching::HostName).no_rhs().no_transformer().from(rip),
    Field::new("fd.dev", Int(32), "device number of the file").hex().from(dev),
    Field::new("fd.dev.major", Int(32), "major device number of the file").from(dev_major),
    Field::new("fd.dev.minor", Int(32), "minor device number of the file").from(dev_minor),
    Field::new("fd.ino", Int(64), "inode number of the file").from(ino),
    Field::new("fd.nameraw", Text, "path as passed, duplicate slashes collapsed").from(nameraw),
    Field::new("fd.types", Text, "set of open fd types, or one fd's").list().arg(ArgRule::OptionalIndex).no_rhs().from(types),
    Field::new("fd.is_upper_layer", Bool, "file lives in overlayfs upper layer").from(is_upper_layer),
    Field::new("fd.is_lower_layer", Bool, "file lives in overlayfs lower layer").from(is_lower_layer),
    Field::new("fdlist.nums", Text, "fd numbers in poll argument, comma joined"),
    Field::new("fdlist.names", Text, "fd names in poll argument, comma joined"),
    Field::new("fdlist.cips", Text, "client addresses in poll argument"),
    Field::new("fdlist.sips", Text, "server addresses in poll argument"),
    Field::new("fdlist.cports", Text, "client ports in poll argument"),
    Field::new("fdlist.sports", Text, "server ports in poll argument"),
];

type Found<'a> = Option<Value<'a>>;

/// What the event's descriptor stands for, when it is open and known.
fn open<'e, 'a>(e: &'e Event<'a>) -> Option<&'e OpenFile<'a>> {
    e.descriptor()?.open.as_ref()
}

fn connection(e: &Event<'_>) -> Option<Connection> {
    open(e)?.connection
}

fn num<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    e.descriptor().map(|fd| Value::Int(fd.num))
}

fn word<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e).map(|open| Value::Text(open.kind.word().as_bytes()))
}

/// After a call that failed, the kind that it would have made: Falco does not look closer than this either.
fn letter<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    if e.opens() && !e.failed() {
        return Some(Value::Text(e.opened_kind().letter().as_bytes()));
    }
    let letter = match e.descriptor()? {
        Descriptor { open: Some(open), .. } => open.kind.letter(),
        Descriptor { open: None, .. } => match e.info().name {
            "open" | "openat" | "openat2" | "creat" => FdKind::File.letter(),
            "socket" | "accept" | "accept4" => FdKind::Ipv4.letter(),
            _ => FdKind::Unknown.letter(),
        },
    };
    Some(Value::Text(letter.as_bytes()))
}

fn name<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    e.descriptor_name().map(Value::Text)
}

fn directory_of<'a>(e: &Event<'a>) -> Option<&'a [u8]> {
    let name = e.descriptor_name()?;
    let kind = match e.opens() {
        true => (!e.failed()).then(|| e.opened_kind()),
        false => open(e).map(|open| open.kind),
    };
    match kind {
        None | Some(FdKind::File) => Some(path::directory(name)),
        Some(FdKind::Directory) => Some(name),
        Some(_) => None,
    }
}

fn directory<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    directory_of(e).map(Value::Text)
}

fn filename<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e).filter(|open| open.kind == FdKind::File)?;
    Some(Value::Text(path::filename(e.descriptor_name()?)))
}

/// The kernel's own path, against symbolic links and races: `fd.name` is what the program asked for.
fn realpath<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let block = e.record.block(abi::record::tag::REALPATH)?;
    match block.status {
        Status::Ok | Status::Truncated => Some(Value::Text(path::spell(block, e.arena()))),
        Status::Pseudo | Status::Fault | Status::Null => None,
    }
}

fn nameraw<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    if e.opens() {
        return Some(Value::Text(path::collapse_slashes(e.opened_raw()?, e.arena())));
    }
    Some(Value::Text(path::collapse_slashes(open(e)?.raw_name?, e.arena())))
}

fn ip_value<'a>(end: Option<Endpoint>) -> Found<'a> {
    end.map(|end| Value::Ip(end.ip))
}

fn port_value<'a>(end: Option<Endpoint>) -> Found<'a> {
    end.map(|end| Value::Uint(u64::from(end.port)))
}

/// Both ends as candidates; the only end of a socket that listens.
fn either<'a>(e: &Event<'a>, value: fn(Option<Endpoint>) -> Found<'a>) -> Found<'a> {
    let connection = connection(e)?;
    let server = value(Some(connection.server()))?;
    let ends = match value(connection.client()) {
        Some(client) => e.arena().alloc_slice_copy(&[client, server]),
        None => e.arena().alloc_slice_copy(&[server]),
    };
    Some(Value::List(ends))
}

fn ip<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    either(e, ip_value)
}

fn port<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    either(e, port_value)
}

fn cip<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    ip_value(connection(e)?.client())
}

fn sip<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    ip_value(Some(connection(e)?.server()))
}

fn lip<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let connection = connection(e)?;
    connection.remote?;
    ip_value(Some(connection.local))
}

fn rip<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    ip_value(connection(e)?.remote)
}

fn cport<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    port_value(connection(e)?.client())
}

fn sport<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    port_value(Some(connection(e)?.server()))
}

fn lport<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let connection = connection(e)?;
    connection.remote?;
    port_value(Some(connection.local))
}

fn rport<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    port_value(connection(e)?.remote)
}

/// A port as text. Falco would look up the service's name where that is switched on, which it is not.
fn port_text<'a>(e: &Event<'a>, port: Found<'a>) -> Found<'a> {
    match port? {
        Value::Uint(port) => Some(Value::Text(text!(e.arena(), "{port}"))),
        _ => None,
    }
}

fn cproto<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    port_text(e, cport(e, arg))
}

fn sproto<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    port_text(e, sport(e, arg))
}

fn lproto<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    port_text(e, lport(e, arg))
}

fn rproto<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    port_text(e, rport(e, arg))
}

fn l4proto<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e).map(|open| Value::Text(open.transport.word().as_bytes()))
}

fn sockfamily<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e)?.kind.family_word().map(|word| Value::Text(word.as_bytes()))
}

fn is_server<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    connection(e).map(|connection| Value::Bool(connection.is_server))
}

fn uid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let fd = e.descriptor()?;
    fd.open?;
    Some(Value::Text(text!(e.arena(), "{}{}", e.record.header.tid, fd.num)))
}

/// `container:text`; null while the container is not known.
fn in_container<'a>(e: &Event<'a>, text: &[u8]) -> Found<'a> {
    use crate::containers::{HOST, Membership};
    let id = match e.membership() {
        Membership::Unknown => return None,
        Membership::Host => HOST,
        Membership::Container(container) => container.id(),
    };
    let mut out = Writer::with_capacity(e.arena(), id.len() + 1 + text.len());
    out.push(id.as_bytes()).push(b":").push(text);
    Some(Value::Text(out.finish()))
}

fn containername<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    in_container(e, e.descriptor_name()?)
}

fn containerdirectory<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    in_container(e, directory_of(e)?)
}

/// A connect that is under way counts as connected. Of other sockets the kernel says whether there is another end.
fn connected<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(open(e)?.connected || e.connects()))
}

/// Kinds of the process's open descriptors, each once, or that of one. Falco begins with what was opened last; so does
/// this, as far as numbers tell. Like every field here it is there only for events about a descriptor, which is counted
/// even where its number is too high for the record's list.
fn types<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    let event = e.descriptor()?;
    let own = event.open.map(|open| (event.num, open.kind));
    let listed: ArenaVec<'a, _> = ArenaVec::from_iter_in(e.open_kinds()?, e.arena());
    let listed = listed.into_bump_slice().iter().map(|(num, kind)| (i64::from(*num), *kind));
    let beyond = own.filter(|(own, _)| listed.clone().all(|(num, _)| num != *own));
    let mut all = beyond.into_iter().chain(listed.map(|open| own.filter(|own| own.0 == open.0).unwrap_or(open)));
    let mut words = ArenaVec::new_in(e.arena());
    if let Arg::Index(wanted) = arg {
        let (_, kind) = all.find(|(num, _)| *num == i64::from(*wanted))?;
        words.push(Value::Text(kind.word().as_bytes()));
    } else {
        for (_, kind) in all {
            let word = Value::Text(kind.word().as_bytes());
            if !words.contains(&word) {
                words.push(word);
            }
        }
    }
    Some(Value::List(words.into_bump_slice()))
}

/// Whether the event gives the descriptor its name: an open, a connect, a datagram from or to somebody new.
fn name_changed<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e)?;
    Some(Value::Bool(e.names_descriptor()))
}

fn dev<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e)?.dev.map(|dev| Value::Int(i64::from(dev)))
}

fn dev_major<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e)?.dev.map(|dev| Value::Int(i64::from(major(dev))))
}

fn dev_minor<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e)?.dev.map(|dev| Value::Int(i64::from(minor(dev))))
}

fn ino<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e)?.ino.map(|ino| Value::Int(ino as i64))
}

fn is_upper_layer<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e).map(|open| Value::Bool(open.upper_layer))
}

fn is_lower_layer<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    open(e).map(|open| Value::Bool(open.lower_layer))
}
