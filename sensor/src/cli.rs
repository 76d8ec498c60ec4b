//! The command line.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use abi::record::{DATA_DEFAULT, DATA_MAX};
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

/// Runtime security for Linux and Kubernetes, with Falco's rules.
#[derive(Debug, Parser)]
#[command(name = "gyrfalcon", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch this host: read rules and sinks, print alerts. Needs root
    Run(Run),
    /// Watch the node of a cluster: rules come from the operator, alerts go to it. Needs root; runs in the DaemonSet
    Agent(Agent),
    /// Judge the audit log of a Kubernetes API server: by its webhook, or from a file
    Audit(Box<Audit>),
    /// Check rules and manifests without running them
    Check(Check),
    /// Run the tests that rule resources contain
    Test(Test),
    /// Show what a rule comes down to: its condition with lists and macros put in, its events and fields, what comes first
    Explain(Explain),
    /// Turn Falco rules files into rule resources, and rule resources into Falco rules files
    Convert(Convert),
    /// Record what happens on this host into a file, for `replay` anywhere. Needs root
    Record(Record),
    /// Judge the events of a recording by rules and print alerts, on any machine and as fast as it goes
    Replay(Replay),
    /// List the fields that conditions and outputs can use
    Fields(Listing),
    /// List the event types that rules can name
    Events(Listing),
    /// List the kinds of sinks
    Sinks,
    /// Show what this kernel permits, what would be used, and why
    Doctor(Containers),
    /// Print a completion script for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How rules are compiled.
#[derive(Debug, Clone, Args)]
pub struct Compile {
    /// Alert for the first rule that matches an event, in load order, or for all of them
    #[arg(long, value_enum, default_value_t = Matching::First)]
    pub rule_matching: Matching,
    /// Leave out rules that are less serious than this (emergency … debug)
    #[arg(long, value_name = "PRIORITY", default_value = "debug", value_parser = priority)]
    pub minimum_priority: rules::alert::Priority,
    /// Text that is added to the output of every rule, such as 'pod=%k8s.pod.name'. May be repeated
    #[arg(long, value_name = "OUTPUT")]
    pub append_output: Vec<String>,
    /// Do not add container and pod to the output of every rule, as Falco's default configuration does
    #[arg(long)]
    pub no_suggested_output: bool,
    /// A field `static.KEY` with the same value in every event; it is added to outputs. May be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub static_field: Vec<(String, String)>,
    /// Leave out rules with this name; `*` stands for anything. May be repeated
    #[arg(long, value_name = "NAME")]
    pub disable: Vec<String>,
    /// Switch on rules with this name, also those that are off by default. May be repeated
    #[arg(long, value_name = "NAME")]
    pub enable: Vec<String>,
}

impl Compile {
    /// Every rule by itself, with the output that it has.
    pub fn each_rule() -> Self {
        Self {
            rule_matching: Matching::All,
            minimum_priority: rules::alert::Priority::Debug,
            append_output: Vec::new(),
            no_suggested_output: true,
            static_field: Vec::new(),
            disable: Vec::new(),
            enable: Vec::new(),
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "a key, `=`, and a value".to_owned())?;
    let statics = [(pair.0.to_owned(), pair.1.to_owned())];
    rules::filter::names::Catalogue::default().with_statics(&statics).map(|_| statics[0].clone())
}

fn priority(text: &str) -> Result<rules::alert::Priority, String> {
    rules::alert::Priority::parse(text).ok_or_else(|| {
        let names: Vec<_> = rules::alert::Priority::ALL.iter().map(|p| p.name().to_lowercase()).collect();
        format!("one of {}", names.join(", "))
    })
}

/// `rule_matching`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Matching {
    /// The first rule in load order.
    First,
    /// Every rule.
    All,
}

/// What is done with rules and alerts where files and the terminal take the place of a cluster.
#[derive(Debug, Args)]
pub struct Local {
    /// Print alerts as JSON, with Falco's keys
    #[arg(long)]
    pub json: bool,
    /// Append alerts to a file instead of printing them
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How rules are compiled.
    #[command(flatten)]
    pub compile: Compile,
    /// Do not follow changes of the files; SIGHUP still reloads them
    #[arg(long)]
    pub no_watch: bool,
}

/// `gyrfalcon run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Files and folders with FalcoRule, ClusterFalcoRule, AlertSink and ClusterAlertSink manifests, or with Falco rules
    #[arg(default_value = "/etc/gyrfalcon")]
    pub paths: Vec<PathBuf>,
    /// What is done with rules and alerts.
    #[command(flatten)]
    pub local: Local,
    /// Size of each CPU's ring for events in MiB (a power of two)
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = ring_size)]
    pub ring_mib: u32,
    /// Where /healthz, /readyz and /metrics are served; without it, nowhere
    #[arg(long, value_name = "IP:PORT", env = "GYRFALCON_HEALTH_LISTEN")]
    pub health_listen: Option<SocketAddr>,
    /// When lost events are told.
    #[command(flatten)]
    pub drops: Drops,
    /// A folder that stays writable, for files of sinks that a later change of the manifests adds. May be repeated;
    /// folders of the files that are written from the start need not be named
    #[arg(long, value_name = "FOLDER")]
    pub writable: Vec<PathBuf>,
    /// How many bytes of what is read, written, sent and received an event has
    #[arg(long, value_name = "BYTES", default_value_t = DATA_DEFAULT, value_parser = value_parser!(u16).range(..=i64::from(DATA_MAX)))]
    pub snaplen: u16,
    /// Name of this host in alerts
    #[arg(long, value_name = "NAME", env = "GYRFALCON_HOSTNAME")]
    pub hostname: Option<String>,
    /// Where facts about containers come from.
    #[command(flatten)]
    pub containers: Containers,
}

/// When and how the sensor tells that it lost events: Falco's `syscall_event_drops`.
#[derive(Debug, Clone, Args)]
pub struct Drops {
    /// Share of the events of a second (0 to 1) that may be lost without being told
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub drops_threshold: f64,
    /// How many times a second losses are told at most
    #[arg(long, value_name = "RATE", default_value_t = 0.03333, value_parser = positive)]
    pub drops_rate: f64,
    /// How many times they are told in a row before the rate holds
    #[arg(long, value_name = "COUNT", default_value_t = 1.0, value_parser = positive)]
    pub drops_max_burst: f64,
    /// What is done: an alert to all sinks, a line in the log, nothing
    #[arg(long, value_enum, value_delimiter = ',', default_value = "log,alert")]
    pub drops_actions: Vec<DropAction>,
}

/// What is done about lost events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DropAction {
    /// Nothing, whatever else is named.
    Ignore,
    /// A line in the log.
    Log,
    /// An alert to all sinks.
    Alert,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share from 0 to 1".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("a number above 0".to_owned()),
    }
}

/// Where facts about containers come from.
#[derive(Debug, Clone, Args)]
pub struct Containers {
    /// Socket of a container runtime (CRI), such as unix:///run/containerd/containerd.sock. May be repeated; without it,
    /// the well-known ones below the host's root are used
    #[arg(long, value_name = "SOCKET", value_parser = crate::containers::sockets::parse, env = "GYRFALCON_CRI", value_delimiter = ',')]
    pub cri: Vec<PathBuf>,
    /// Where the host's /run and /sys/fs/cgroup are found, for a sensor that runs in a container
    #[arg(long, value_name = "FOLDER", default_value = "/", env = "GYRFALCON_HOST_ROOT")]
    pub host_root: PathBuf,
}

fn ring_size(text: &str) -> Result<u32, String> {
    let mib: u32 = text.parse().map_err(|_| "a number of MiB".to_owned())?;
    if mib.is_power_of_two() && mib <= 512 { Ok(mib) } else { Err("a power of two from 1 to 512".to_owned()) }
}

/// `gyrfalcon agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// Name of the Kubernetes node
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: String,
    /// Name of the pod, by which a sensor knows the one that it took over from
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "", hide = true)]
    pub pod_name: String,
    /// Where the operator is, and what is kept for it.
    #[command(flatten)]
    pub link: Link,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, value_name = "IP:PORT", env = "GYRFALCON_HEALTH_LISTEN", default_value = "0.0.0.0:8081")]
    pub health_listen: SocketAddr,
    /// How much is logged: error, warn, info, debug or trace. GYRFALCON_LOG has the last word
    #[arg(long, value_name = "LEVEL", env = "GYRFALCON_LOG_LEVEL", default_value = "info")]
    pub log_level: tracing::Level,
    /// When lost events are told.
    #[command(flatten)]
    pub drops: Drops,
    /// Size of each CPU's ring for events in MiB (a power of two)
    #[arg(long, value_name = "MIB", env = "GYRFALCON_RING_MIB", default_value_t = 4, value_parser = ring_size)]
    pub ring_mib: u32,
    /// How many bytes of what is read, written, sent and received an event has
    #[arg(long, value_name = "BYTES", env = "GYRFALCON_SNAPLEN", default_value_t = DATA_DEFAULT, value_parser = value_parser!(u16).range(..=i64::from(DATA_MAX)))]
    pub snaplen: u16,
    /// Where facts about containers come from.
    #[command(flatten)]
    pub containers: Containers,
}

/// Where the operator is, and what is kept for it.
#[derive(Debug, Clone, Args)]
pub struct Link {
    /// Namespace of the operator, for the defaults below
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "gyrfalcon", hide = true)]
    pub namespace: String,
    /// Where the operator is. Default: its service in the namespace of this pod
    #[arg(long, value_name = "HOST:PORT", env = "GYRFALCON_OPERATOR")]
    pub operator: Option<String>,
    /// Address of the operator's service, dialled in place of its name when the kubelet gives it
    #[arg(long, value_name = "IP", env = "GYRFALCON_OPERATOR_SERVICE_HOST", hide = true)]
    pub operator_service_host: Option<IpAddr>,
    /// Port of the operator's service
    #[arg(long, value_name = "PORT", env = "GYRFALCON_OPERATOR_SERVICE_PORT", hide = true)]
    pub operator_service_port: Option<u16>,
    /// DNS name in the operator's certificate. Default: the host of --operator
    #[arg(long, value_name = "NAME", env = "GYRFALCON_OPERATOR_NAME")]
    pub operator_name: Option<String>,
    /// CA certificates that the operator's certificate may be signed by; read for each connection
    #[arg(long, value_name = "FILE", env = "GYRFALCON_CA", default_value = "/etc/gyrfalcon/ca/ca.crt")]
    pub ca: PathBuf,
    /// Token that shows the operator who this sensor is; read for each connection
    #[arg(long, value_name = "FILE", env = "GYRFALCON_TOKEN", default_value = "/var/run/secrets/gyrfalcon/token")]
    pub token: PathBuf,
    /// Folder for what outlives a restart: the last bundle, alerts that the operator does not have yet, counts
    #[arg(long, value_name = "FOLDER", env = "GYRFALCON_STATE_DIR", default_value = "/var/lib/gyrfalcon")]
    pub state_dir: PathBuf,
    /// Most MiB of alerts that are kept while the operator is away
    #[arg(long, value_name = "MIB", env = "GYRFALCON_SPOOL_MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub spool_mib: u32,
}

impl Link {
    /// `HOST:PORT` that is dialled for the operator, and the DNS name in its certificate.
    pub fn operator(&self) -> (String, String) {
        let named = self.operator.clone().unwrap_or_else(|| format!("gyrfalcon-operator.{}.svc:8443", self.namespace));
        let host = named.rsplit_once(':').map_or(named.as_str(), |(host, _)| host);
        let name = self.operator_name.clone().unwrap_or_else(|| host.to_owned());
        let dial = match (self.operator_service_host, self.operator_service_port) {
            (Some(host), Some(port)) => SocketAddr::new(host, port).to_string(),
            _ => named,
        };
        (dial, name)
    }
}

/// `gyrfalcon audit`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    /// A tool around the receiver.
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// The receiver itself.
    #[command(flatten)]
    pub run: AuditRun,
}

/// Tools around the receiver.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the least audit policy that the rules need, or the API server's configuration of the webhook
    Policy(AuditPolicy),
    /// Make certificates for the receiver and for the API server
    Certificates(AuditCertificates),
}

/// The receiver.
#[derive(Debug, Args)]
pub struct AuditRun {
    /// Files and folders with rules and sinks, as for `gyrfalcon run`
    #[arg(default_value = "/etc/gyrfalcon")]
    pub paths: Vec<PathBuf>,
    /// What is done with rules and alerts.
    #[command(flatten)]
    pub local: Local,
    /// Read events from a file, one in a line, in place of the webhook; ends with the file
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    pub file: Option<PathBuf>,
    /// Do not end with the file: read what is added, from now on, also when it is rotated or cut
    #[arg(long, requires = "file")]
    pub follow: bool,
    /// With --follow, also read what the file holds already
    #[arg(long, requires = "follow")]
    pub from_start: bool,
    /// Where the API server connects
    #[arg(long, value_name = "IP:PORT", env = "GYRFALCON_AUDIT_LISTEN", default_value = "0.0.0.0:9765")]
    pub listen: SocketAddr,
    /// Certificate of the receiver; read anew when it changes
    #[arg(long, value_name = "FILE", env = "GYRFALCON_AUDIT_TLS_CERT", default_value = "/etc/gyrfalcon/audit/tls.crt")]
    pub tls_cert: PathBuf,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", env = "GYRFALCON_AUDIT_TLS_KEY", default_value = "/etc/gyrfalcon/audit/tls.key")]
    pub tls_key: PathBuf,
    /// CA certificates: only clients with a certificate of one of them are let in
    #[arg(long, value_name = "FILE", env = "GYRFALCON_AUDIT_CLIENT_CA", default_value = "/etc/gyrfalcon/audit/ca.crt")]
    pub client_ca: PathBuf,
    /// Largest request in MiB; a larger one is refused, counted, and its events are lost
    #[arg(long, value_name = "MIB", env = "GYRFALCON_AUDIT_MAX_BODY_MIB", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_body_mib: u32,
    /// MiB of events that may wait to be judged; beyond, the API server is told to come again
    #[arg(long, value_name = "MIB", env = "GYRFALCON_AUDIT_QUEUE_MIB", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub queue_mib: u32,
    /// Largest event in KiB; a larger one is counted and not judged
    #[arg(long, value_name = "KIB", env = "GYRFALCON_AUDIT_MAX_EVENT_KIB", default_value_t = 8192,
          value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub max_event_kib: u32,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, value_name = "IP:PORT", env = "GYRFALCON_HEALTH_LISTEN")]
    pub health_listen: Option<SocketAddr>,
    /// Name of this receiver in alerts, and in a cluster of its pod
    #[arg(long, value_name = "NAME", env = "GYRFALCON_HOSTNAME")]
    pub hostname: Option<String>,
    /// Rules come from the operator, alerts go to it; runs in the chart's Deployment
    #[arg(long)]
    pub cluster: bool,
    /// Where the operator is, and what is kept for it.
    #[command(flatten)]
    pub link: Link,
    /// How much is logged: error, warn, info, debug or trace. GYRFALCON_LOG has the last word
    #[arg(long, value_name = "LEVEL", env = "GYRFALCON_LOG_LEVEL", default_value = "info")]
    pub log_level: tracing::Level,
}

impl AuditRun {
    /// The receiver's name.
    pub fn hostname(&self) -> String {
        crate::commands::hostname(self.hostname.as_deref())
    }
}

/// `gyrfalcon audit policy`.
#[derive(Debug, Args)]
pub struct AuditPolicy {
    /// Files and folders with the rules
    #[arg(default_value = "/etc/gyrfalcon")]
    pub paths: Vec<PathBuf>,
    /// Only what conditions need; values that outputs show may then be missing
    #[arg(long)]
    pub conditions_only: bool,
    /// Say for each rule what it needs
    #[arg(long)]
    pub explain: bool,
    /// Print the configuration of the API server's webhook to this address instead
    #[arg(long, value_name = "URL")]
    pub kubeconfig: Option<String>,
    /// Folder of `gyrfalcon audit certificates`, whose files are put into the configuration
    #[arg(long, value_name = "FOLDER", requires = "kubeconfig")]
    pub certificates: Option<PathBuf>,
    /// How rules are compiled.
    #[command(flatten)]
    pub compile: Compile,
}

/// `gyrfalcon audit certificates`.
#[derive(Debug, Args)]
pub struct AuditCertificates {
    /// Folder to write them to; files that are there stay
    pub folder: PathBuf,
    /// DNS name or IP address by which API servers reach the receiver. May be repeated
    #[arg(long = "name", value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// `gyrfalcon check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Files and folders to check
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Print the result in the form of Falco's `falco_load_results`
    #[arg(long)]
    pub json: bool,
    /// How rules are compiled.
    #[command(flatten)]
    pub compile: Compile,
}

/// `gyrfalcon test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Files and folders with FalcoRule and ClusterFalcoRule manifests; Falco rules files are loaded before them
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,
    /// A recording (`gyrfalcon record`) whose events the rules are tested on, too
    #[arg(long, value_name = "FILE", requires = "expect")]
    pub recording: Option<PathBuf>,
    /// How often a rule must match the recording, such as 'Shadow read=2'. May be repeated
    #[arg(long, value_name = "RULE=COUNT", value_parser = expectation, requires = "recording")]
    pub expect: Vec<(String, u64)>,
}

/// `gyrfalcon explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Name of the rule
    pub rule: String,
    /// Files and folders with rules, in the order in which they are loaded
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How rules are compiled.
    #[command(flatten)]
    pub compile: Compile,
}

/// `gyrfalcon convert`.
#[derive(Debug, Args)]
pub struct Convert {
    /// Rules files, which become resources, or manifests, whose rules become one rules file; not both
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Name of the resource, where there is one rules file. Default: the file's own name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Make FalcoRules of this namespace, which see its pods only. Default: ClusterFalcoRules
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Write into this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `gyrfalcon record`.
#[derive(Debug, Args)]
pub struct Record {
    /// The file to write; it must not exist
    pub file: PathBuf,
    /// Files and folders with rules: only what they need is recorded. Without them, everything that can be collected is
    pub paths: Vec<PathBuf>,
    /// Stop after this time, such as 30s or 5m; without it, a signal ends the recording
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    pub time: Option<std::time::Duration>,
    /// Stop when the file has this many MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_mib: u64,
    /// Size of each CPU's ring for events in MiB (a power of two)
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = ring_size)]
    pub ring_mib: u32,
    /// How many bytes of what is read, written, sent and received an event has
    #[arg(long, value_name = "BYTES", default_value_t = DATA_DEFAULT, value_parser = value_parser!(u16).range(..=i64::from(DATA_MAX)))]
    pub snaplen: u16,
    /// Name of this host in alerts
    #[arg(long, value_name = "NAME", env = "GYRFALCON_HOSTNAME")]
    pub hostname: Option<String>,
    /// Where facts about containers come from.
    #[command(flatten)]
    pub containers: Containers,
}

fn span(text: &str) -> Result<std::time::Duration, String> {
    let ns = rules::duration::nanoseconds(text).filter(|ns| *ns > 0);
    ns.map(std::time::Duration::from_nanos).ok_or_else(|| "a time such as 30s or 5m".to_owned())
}

impl Record {
    /// Losses are told in the recording itself, at its end.
    pub fn drops() -> Drops {
        let actions = vec![DropAction::Log];
        Drops { drops_threshold: 0.1, drops_rate: 0.03333, drops_max_burst: 1.0, drops_actions: actions }
    }
}

/// `gyrfalcon replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The recording; `-` is standard input
    pub file: PathBuf,
    /// Files and folders with FalcoRule and ClusterFalcoRule manifests, or with Falco rules
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Print alerts as JSON, with Falco's keys
    #[arg(long)]
    pub json: bool,
    /// How often a rule must match, such as 'Shadow read=2'. May be repeated; what differs is told, and the exit code is 1
    #[arg(long, value_name = "RULE=COUNT", value_parser = expectation)]
    pub expect: Vec<(String, u64)>,
    /// How rules are compiled.
    #[command(flatten)]
    pub compile: Compile,
}

fn expectation(text: &str) -> Result<(String, u64), String> {
    let pair = text.rsplit_once('=').and_then(|(rule, count)| Some((rule.to_owned(), count.trim().parse().ok()?)));
    pair.ok_or_else(|| "a rule's name, `=`, and a number".to_owned())
}

/// `gyrfalcon fields` and `gyrfalcon events`.
#[derive(Debug, Args)]
pub struct Listing {
    /// Show only names that begin with this
    pub prefix: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(flags: &[&str]) -> (String, String) {
        let fixed = ["gyrfalcon", "agent", "--node-name", "n", "--namespace", "ns"];
        let cli = Cli::try_parse_from(fixed.iter().chain(flags)).expect("good flags");
        let Command::Agent(agent) = cli.command else { panic!("another command") };
        agent.link.operator()
    }

    #[test]
    fn the_operator_is_dialled_by_address_and_recognised_by_name() {
        let name = "gyrfalcon-operator.ns.svc".to_owned();
        assert_eq!(operator(&[]), (format!("{name}:8443"), name.clone()));
        let linked = ["--operator-service-host", "10.0.0.7", "--operator-service-port", "8443"];
        assert_eq!(operator(&linked), ("10.0.0.7:8443".to_owned(), name));
        let given = ["--operator", "127.0.0.1:9000", "--operator-name", "localhost"];
        assert_eq!(operator(&given), ("127.0.0.1:9000".to_owned(), "localhost".to_owned()));
    }
}
