//! The rules about CVE-2020-8557 and CVE-2020-14386, as they are shipped, and Falco's own about packet sockets: what each
//! way to the same end is told as, and what looks like it and must not be told.

use std::{
    fs,
    path::{Path, PathBuf},
};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{APPENDED, Need, Room, Sensor, folder, harness, trial};

const NEEDS: &[Need] = &[Need::Tracing, Need::OfficialRules, Need::Program("runc")];

const SOCKETS_BY_RING: &[Need] = &[Need::Tracing, Need::OfficialRules, Need::Program("runc"), Need::SocketsByRing];

const HOSTS: &str = "Hosts file written in a container (CVE-2020-8557)";
const HOSTS_ON_NODE: &str = "Hosts file of a pod written on the node (CVE-2020-8557)";
const PACKET: &str = "Packet socket asked for in a container (CVE-2020-14386)";
/// Falco's, of the stable ruleset.
const PACKET_OFFICIAL: &str = "Packet socket created in container";

/// Ours, of the core rules: that there is a ring is all that is seen of it.
const RING: &str = "Ring of io_uring set up in a container";

/// Programs that may: as a user would say it.
const EXPECTED: &str = "
apiVersion: gyrfalcon.dev/v1alpha1
kind: ClusterFalcoRule
metadata: {name: expected}
spec:
  order: 900
  rules: |
    - list: cve_2020_14386_expected
      items: [dhcpcd]
      override: {items: append}
    - list: user_known_packet_socket_binaries
      items: [dhcpcd]
      override: {items: append}
";

/// A folder of a pod, as the kubelet has them; removed when dropped, with those above it that were not there.
struct PodFolder {
    made: Vec<PathBuf>,
    hosts: String,
}

impl PodFolder {
    fn new(pod: &str) -> Self {
        let folder = Path::new("/var/lib/kubelet/pods").join(pod);
        let made = folder.ancestors().filter(|folder| !folder.exists()).map(Path::to_owned).collect();
        fs::create_dir_all(&folder).expect("a folder for a pod");
        let hosts = folder.join("etc-hosts");
        fs::write(&hosts, "127.0.0.1 localhost\n").expect("a file for a pod");
        Self { made, hosts: hosts.display().to_string() }
    }
}

impl Drop for PodFolder {
    fn drop(&mut self) {
        for (at, folder) in self.made.iter().enumerate() {
            let _ = if at == 0 { fs::remove_dir_all(folder) } else { fs::remove_dir(folder) };
        }
    }
}

pub fn trials() -> Vec<Trial> {
    vec![
        trial("walk-throughs: each way to the hosts file and to a packet socket is told once", NEEDS, || {
            are_told(ways)
        }),
        trial(
            "walk-throughs: a packet socket from io_uring is told where it is seen, and the ring",
            SOCKETS_BY_RING,
            || are_told(by_ring),
        ),
    ]
}

/// Where something happens.
#[derive(Clone, Copy)]
enum Place {
    Container,
    Host,
}

/// What happens, where, by a program of which name, and the rules that tell it, each once.
type Way = (&'static str, Place, &'static str, Value, &'static [&'static str]);

fn ways(of_pod: &str) -> Vec<Way> {
    use Place::{Container, Host};
    let open = |op: &str, flags: &str| json!([{"op": op, "path": "/etc/hosts", "flags": flags}]);
    let packet = |kind: &str| json!([{"op": "socket", "domain": "AF_PACKET", "type": kind, "protocol": "ETH_P_ALL"}]);
    let both = &[PACKET, PACKET_OFFICIAL];
    let append = "O_WRONLY|O_APPEND";
    vec![
        ("open(2) for writing", Container, "sh", open("open", append), &[HOSTS]),
        ("openat(2) for reading and writing", Container, "sh", open("openat", "O_RDWR"), &[HOSTS]),
        ("openat2(2)", Container, "sh", open("openat2", append), &[HOSTS]),
        ("reading", Container, "cat", open("openat", "O_RDONLY"), &[]),
        (
            "a relative path",
            Container,
            "sh",
            json!([{"op": "chdir", "path": "/etc"}, {"op": "openat", "path": "hosts", "flags": append}]),
            &[HOSTS],
        ),
        (
            "a detour",
            Container,
            "sh",
            json!([{"op": "openat", "path": "/tmp/../etc/./hosts", "flags": append}]),
            &[HOSTS],
        ),
        (
            "a symbolic link",
            Container,
            "sh",
            json!([{"op": "symlink", "target": "/etc/hosts", "linkPath": "/tmp/link"}, {"op": "openat", "path": "/tmp/link", "flags": append}]),
            &[HOSTS],
        ),
        (
            "many writes to what was opened once",
            Container,
            "sh",
            json!([{"op": "openat", "path": "/etc/hosts", "flags": append}, {"op": "write", "data": "#"}, {"op": "write", "data": "#"}]),
            &[HOSTS],
        ),
        (
            "a mapping of what was opened",
            Container,
            "sh",
            json!([{"op": "openat", "path": "/etc/hosts", "flags": "O_RDWR"}, {"op": "write_mapped"}]),
            &[HOSTS],
        ),
        // It opens nothing, and takes no room on the disk.
        ("truncate(2)", Container, "sh", json!([{"op": "truncate", "path": "/etc/hosts", "length": 1 << 30}]), &[]),
        ("another file", Container, "sh", json!([{"op": "openat", "path": "/etc/passwd", "flags": append}]), &[]),
        ("the host's own file", Host, "vi", open("openat", append), &[]),
        (
            "a pod's file, on the node",
            Host,
            "dd",
            json!([{"op": "openat", "path": of_pod, "flags": append}]),
            &[HOSTS_ON_NODE],
        ),
        (
            "a pod's file, by its handle",
            Host,
            "dd",
            json!([{"op": "open_by_handle", "path": of_pod, "flags": "O_WRONLY"}]),
            &[HOSTS_ON_NODE],
        ),
        (
            "a pod's file, by the kubelet",
            Host,
            "kubelet",
            json!([{"op": "openat", "path": of_pod, "flags": append}]),
            &[],
        ),
        ("a raw packet socket", Container, "exploit", packet("SOCK_RAW"), both),
        ("a cooked packet socket", Container, "exploit", packet("SOCK_DGRAM"), both),
        (
            "a packet socket that is refused",
            Container,
            "exploit",
            json!([{"op": "setuid", "user": "nobody"}, {"op": "socket", "domain": "AF_PACKET", "type": "SOCK_RAW", "protocol": "ETH_P_ALL", "expect": "EPERM"}]),
            both,
        ),
        (
            "a raw socket of IP",
            Container,
            "ping",
            json!([{"op": "socket", "domain": "AF_INET", "type": "SOCK_RAW"}]),
            &[],
        ),
        ("a packet socket of the host", Host, "exploit", packet("SOCK_RAW"), &[]),
        ("a packet socket of a program that may", Container, "dhcpcd", packet("SOCK_RAW"), &[]),
    ]
}

/// No system call: docs/walkthroughs/cve-2020-14386.md says where it is seen all the same. That there is a ring always is.
fn by_ring(_: &str) -> Vec<Way> {
    let socket =
        json!([{"op": "socket", "domain": "AF_PACKET", "type": "SOCK_RAW", "protocol": "ETH_P_ALL", "by": "io_uring"}]);
    let want: &[&str] =
        if harness::rings() == harness::Rings::Unseen { &[RING] } else { &[RING, PACKET, PACKET_OFFICIAL] };
    vec![("a packet socket from io_uring", Place::Container, "exploit", socket, want)]
}

fn are_told(ways: fn(&str) -> Vec<Way>) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/rules");
    let official = folder("GYRFALCON_FALCO_RULES", "falco_rules.yaml").expect("a need of the case");
    let own = harness::folder();
    let expected = harness::write(own.path(), "expected.yaml", EXPECTED);
    let rules = [
        official.join("falco_rules.yaml"),
        shipped.join("core.yaml"),
        shipped.join("cve-2020-8557.yaml"),
        shipped.join("cve-2020-14386.yaml"),
        expected,
    ];
    let rules: Vec<&Path> = rules.iter().map(AsRef::as_ref).collect();
    let sensor = Sensor::start(&rules, &["--append-output", APPENDED, "--rule-matching", "all"]);
    let room = Room::new();
    let pod = PodFolder::new(&format!("gyr-{}", std::process::id()));
    let ways = ways(&pod.hosts);
    let mark = |at: usize| format!("trap{}-{at}", std::process::id());
    for (at, (what, place, name, steps, _)) in ways.iter().enumerate() {
        let chain = json!([{"name": name}]);
        let done = match place {
            Place::Container => room.perform_contained(&chain, steps, &mark(at)),
            Place::Host => room.perform(&chain, steps, &mark(at)),
        };
        done.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    drop(pod);
    sensor.fence();
    let alerts = sensor.all();
    let wrong: Vec<String> = ways
        .iter()
        .enumerate()
        .filter_map(|(at, (what, _, _, _, want))| {
            let mut got: Vec<&str> = alerts
                .iter()
                .filter(|alert| alert.has("proc.env[GYR_MARK]", &mark(at)))
                .map(harness::Alert::rule)
                .filter(|rule| [HOSTS, HOSTS_ON_NODE, PACKET, PACKET_OFFICIAL, RING].contains(rule))
                .collect();
            got.sort_unstable();
            let mut want = want.to_vec();
            want.sort_unstable();
            (got != want).then(|| format!("{what}: wanted {want:?}, got {got:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sensor.stop().is_clean();
}
