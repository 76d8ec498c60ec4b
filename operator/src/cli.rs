//! The command line. Every flag can be given as an environment variable, as the chart does.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// Reconciles Gyrfalcon's resources, serves its sensors, writes Events and status.
#[derive(Debug, Parser)]
#[command(name = "gyrfalcon-operator", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator
    Run(Box<Run>),
    /// Test an installation from within: apply a rule, trigger it, see it counted, remove it
    Selftest(Selftest),
}

/// `gyrfalcon-operator run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Namespace of the operator: of its Lease, its certificates and the secrets of ClusterAlertSinks
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this replica's pod
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub pod_name: String,
    /// Address by which sensors reach this replica, told to those that ask another one
    #[arg(long, value_name = "IP", env = "POD_IP")]
    pub pod_ip: std::net::IpAddr,
    /// Folder for alerts that wait for their sinks
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/gyrfalcon", env = "GYRFALCON_STATE_DIR")]
    pub state_dir: PathBuf,
    /// The state folder outlives the pod, so sensors may forget alerts once they are in it. Without this they keep
    /// them until every sink has them
    #[arg(long, env = "GYRFALCON_DURABLE")]
    pub durable: bool,
    /// Where sensors connect
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443", env = "GYRFALCON_LINK_LISTEN")]
    pub link_listen: SocketAddr,
    /// Name of the Service that sensors connect to
    #[arg(long, value_name = "NAME", default_value = "gyrfalcon-operator", env = "GYRFALCON_LINK_SERVICE")]
    pub link_service: String,
    /// Where the API server asks whether a resource is sound
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9443", env = "GYRFALCON_WEBHOOK_LISTEN")]
    pub webhook_listen: SocketAddr,
    /// Name of the Service that the API server connects to
    #[arg(long, value_name = "NAME", default_value = "gyrfalcon-webhook", env = "GYRFALCON_WEBHOOK_SERVICE")]
    pub webhook_service: String,
    /// ValidatingWebhookConfiguration whose trusted certificate is kept up to date
    #[arg(long, value_name = "NAME", default_value = "gyrfalcon", env = "GYRFALCON_WEBHOOK_CONFIGURATION")]
    pub webhook_configuration: String,
    /// Do not serve the webhook
    #[arg(long, env = "GYRFALCON_NO_WEBHOOK")]
    pub no_webhook: bool,
    /// Where health and metrics are served, over plain HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", env = "GYRFALCON_HEALTH_LISTEN")]
    pub health_listen: SocketAddr,
    /// Service account of the sensors. Default: gyrfalcon-sensor in the operator's namespace
    #[arg(long, value_name = "NAMESPACE:NAME", env = "GYRFALCON_SENSOR_SERVICE_ACCOUNT")]
    pub sensor_service_account: Option<String>,
    /// Service account of the receivers of the audit log. Default: gyrfalcon-audit in the operator's namespace
    #[arg(long, value_name = "NAMESPACE:NAME", env = "GYRFALCON_AUDIT_SERVICE_ACCOUNT")]
    pub audit_service_account: Option<String>,
    /// Audience of the sensors' tokens
    #[arg(long, value_name = "AUDIENCE", default_value = link::TOKEN_AUDIENCE, env = "GYRFALCON_TOKEN_AUDIENCE")]
    pub token_audience: String,
    /// Lease by which replicas agree on a leader
    #[arg(long, value_name = "NAME", default_value = "gyrfalcon-operator", env = "GYRFALCON_LEASE")]
    pub lease: String,
    /// Lead without asking. Only for a single replica
    #[arg(long, env = "GYRFALCON_NO_LEADER_ELECTION")]
    pub no_leader_election: bool,
    /// Let the sinks of namespaces reach loopback and link-local addresses, such as a cloud's metadata service
    #[arg(long, env = "GYRFALCON_ALLOW_LOCAL_SINKS")]
    pub allow_local_sinks: bool,
    /// What to log: error, warn, info, debug, or a tracing filter
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "GYRFALCON_LOG_LEVEL")]
    pub log_level: String,
}

/// `gyrfalcon-operator selftest`.
#[derive(Debug, Args)]
pub struct Selftest {
    /// Namespace to test in
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of the pod that this runs in
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub pod_name: String,
    /// How long to wait for each step, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}
