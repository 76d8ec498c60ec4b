//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Check rules and manifests without running them
    Check(Check),
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
    /// Leave out rules with this name; `*` stands for anything. May be repeated
    #[arg(long, value_name = "NAME")]
    pub disable: Vec<String>,
    /// Switch on rules with this name, also those that are off by default. May be repeated
    #[arg(long, value_name = "NAME")]
    pub enable: Vec<String>,
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

/// `gyrfalcon run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Files and folders with FalcoRule, ClusterFalcoRule, AlertSink and ClusterAlertSink manifests, or with Falco rules
    #[arg(default_value = "/etc/gyrfalcon")]
    pub paths: Vec<PathBuf>,
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
    /// Size of each CPU's ring for events in MiB (a power of two)
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = ring_size)]
    pub ring_mib: u32,
    /// Name of this host in alerts
    #[arg(long, value_name = "NAME", env = "GYRFALCON_HOSTNAME")]
    pub hostname: Option<String>,
    /// Where facts about containers come from.
    #[command(flatten)]
    pub containers: Containers,
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

/// `gyrfalcon fields` and `gyrfalcon events`.
#[derive(Debug, Args)]
pub struct Listing {
    /// Show only names that begin with this
    pub prefix: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
