//! Which addresses the host names in rules stand for (`fd.sip.name = kubernetes.default.svc.cluster.local`).
//!
//! Names are looked up as every program of this host looks them up (`/etc/hosts`, DNS), on threads that may wait, and again
//! every minute. The event loop only compares addresses. A name that cannot be looked up any more keeps its addresses: rules
//! do not go blind while a name server does not answer.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rules::filter::Resolver;
use tracing::debug;

/// How long an answer is good for.
const REFRESH: Duration = Duration::from_secs(60);

/// Most look-ups at a time: one that waits for a name server must not hold up all others.
const WORKERS: usize = 8;

type LookUp = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The names that rules compare addresses with.
#[derive(Default)]
pub struct Names {
    known: RwLock<HashMap<Box<str>, Vec<IpAddr>>>,
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Default)]
struct Asked {
    wanted: BTreeSet<Box<str>>,
    /// Every name that is wanted has been looked up once.
    done: bool,
}

impl Names {
    /// Starts the thread that looks names up; it ends with the process.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        self.start_with(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    fn start_with(self: &Arc<Self>, look_up: LookUp) -> io::Result<()> {
        let names = Arc::clone(self);
        thread::Builder::new().name("names".to_owned()).spawn(move || {
            loop {
                names.round(look_up);
            }
        })?;
        Ok(())
    }

    /// These names, and no others, are wanted from now on.
    pub fn want<'n>(&self, wanted: impl Iterator<Item = &'n str>) {
        let wanted: BTreeSet<Box<str>> = wanted.map(Into::into).collect();
        let mut asked = self.asked();
        if asked.wanted != wanted {
            asked.done = wanted.is_subset(&asked.wanted) && asked.done;
            asked.wanted = wanted;
            self.changed.notify_all();
        }
    }

    /// Waits until every name that is wanted has been looked up once; at most this long.
    pub fn wait(&self, at_most: Duration) {
        let waits = |asked: &mut Asked| !asked.done && !asked.wanted.is_empty();
        drop(self.changed.wait_timeout_while(self.asked(), at_most, waits).unwrap_or_else(PoisonError::into_inner));
    }

    /// Looks everything up, and waits until that is to be done again.
    fn round(&self, look_up: LookUp) {
        let began = Instant::now();
        let wanted = self.asked().wanted.clone();
        self.known.write().unwrap_or_else(PoisonError::into_inner).retain(|name, _| wanted.contains(name));
        let list: Vec<&str> = wanted.iter().map(|name| &**name).collect();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..list.len().min(WORKERS) {
                // Without a thread the others do its part; without any, the next round does.
                let _ = thread::Builder::new().name("name".to_owned()).spawn_scoped(scope, || {
                    while let Some(name) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.learn(name, look_up(name));
                    }
                });
            }
        });
        let mut asked = self.asked();
        asked.done |= asked.wanted.is_subset(&wanted);
        self.changed.notify_all();
        let same = |asked: &mut Asked| asked.wanted == wanted;
        let left = REFRESH.saturating_sub(began.elapsed()).max(Duration::from_secs(1));
        drop(self.changed.wait_timeout_while(asked, left, same).unwrap_or_else(PoisonError::into_inner));
    }

    fn learn(&self, name: &str, found: io::Result<Vec<IpAddr>>) {
        match found {
            Ok(mut addresses) => {
                addresses.iter_mut().for_each(|address| *address = address.to_canonical());
                self.known.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), addresses);
            }
            Err(error) => debug!(name, %error, "a host name in a rule cannot be looked up"),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for Names {
    fn resolves_to(&self, name: &str, ip: IpAddr) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(name).is_some_and(|addresses| addresses.contains(&ip.to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "one" => Ok(vec![ip("192.0.2.1"), ip("2001:db8::1")]),
            "mapped" => Ok(vec![ip("::ffff:192.0.2.2")]),
            _ => Err(io::Error::other("no such name")),
        }
    }

    #[test]
    fn names_are_known_once_they_were_waited_for() {
        let names = Arc::new(Names::default());
        names.wait(LONG);
        names.want(["one", "mapped", "missing"].into_iter());
        names.start_with(look_up).expect("a thread");
        names.wait(LONG);
        let all = [("one", "192.0.2.1"), ("one", "2001:db8::1"), ("one", "::ffff:192.0.2.1"), ("mapped", "192.0.2.2")];
        assert!(all.iter().all(|(name, address)| names.resolves_to(name, ip(address))));
        assert!(!names.resolves_to("one", ip("192.0.2.2")) && !names.resolves_to("missing", ip("192.0.2.1")));
    }

    #[test]
    fn what_rules_do_not_name_any_more_is_forgotten() {
        let names = Names::default();
        names.want(["one", "mapped"].into_iter());
        let known = |name: &str, address: &str| names.resolves_to(name, ip(address));
        names.learn("one", look_up("one"));
        names.learn("mapped", look_up("mapped"));
        // A name server that does not answer changes nothing.
        names.learn("one", look_up("missing"));
        assert!(known("one", "192.0.2.1") && known("mapped", "192.0.2.2"));
        names.want(["one"].into_iter());
        thread::scope(|scope| {
            scope.spawn(|| names.round(look_up));
            names.wait(LONG);
            assert!(known("one", "192.0.2.1") && !known("mapped", "192.0.2.2"));
            // Ends the wait of the round.
            names.want(std::iter::empty());
        });
    }
}
