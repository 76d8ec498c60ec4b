//! The programs of a running cluster: arguments and configuration of each, one after the other.

use std::fs;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::layout::{DOMAIN, Layout, NODE, PODS, SERVICES, random_bytes};
use crate::tools::{Tools, on_path};

/// A program that runs as long as the cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The store of the API server.
    Etcd,
    /// The API server.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The container runtime.
    Containerd,
    /// The node's agent.
    Kubelet,
    /// Makes the addresses of Services work.
    Proxy,
    /// CoreDNS.
    Dns,
}

impl Component {
    /// What every cluster has, in the order in which it is started.
    pub const CONTROL_PLANE: [Self; 4] = [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler];
    /// What a node adds.
    pub const NODE: [Self; 4] = [Self::Containerd, Self::Kubelet, Self::Proxy, Self::Dns];

    /// The name of the program, and of its log.
    pub fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::Dns => "coredns",
        }
    }

    /// As whom the program talks to the API server, and in which group.
    fn user(self) -> Option<(String, &'static str)> {
        match self {
            Self::Etcd | Self::ApiServer | Self::Containerd => None,
            Self::ControllerManager => Some(("system:kube-controller-manager".to_owned(), "system:authenticated")),
            Self::Scheduler => Some(("system:kube-scheduler".to_owned(), "system:authenticated")),
            Self::Kubelet => Some((format!("system:node:{NODE}"), "system:nodes")),
            Self::Proxy => Some(("system:kube-proxy".to_owned(), "system:authenticated")),
            // It reads Services, EndpointSlices, Pods and Namespaces; no role that comes with Kubernetes fits.
            Self::Dns => Some(("cluster-dns".to_owned(), "system:masters")),
        }
    }

    /// Its kubeconfig.
    fn kubeconfig(self, layout: &Layout) -> String {
        layout.file(&format!("{}.kubeconfig", self.program())).display().to_string()
    }

    /// Its arguments; `extra` are the API server's own of this cluster.
    pub fn arguments(self, layout: &Layout, extra: &[String]) -> Vec<String> {
        let file = |name: &str| layout.file(name).display().to_string();
        match self {
            Self::Etcd => {
                let client = format!("http://127.0.0.1:{}", layout.etcd_port);
                let peer = format!("http://127.0.0.1:{}", layout.etcd_peer_port);
                vec![
                    format!("--data-dir={}", file("etcd")),
                    format!("--listen-client-urls={client}"),
                    format!("--advertise-client-urls={client}"),
                    format!("--listen-peer-urls={peer}"),
                    format!("--initial-advertise-peer-urls={peer}"),
                    format!("--initial-cluster=default={peer}"),
                    "--unsafe-no-fsync".to_owned(),
                ]
            }
            Self::ApiServer => api_server(layout).into_iter().chain(extra.iter().cloned()).collect(),
            Self::ControllerManager => vec![
                format!("--kubeconfig={}", self.kubeconfig(layout)),
                format!("--service-account-private-key-file={}", file(SERVICE_ACCOUNT_KEY)),
                // The API server made it, for itself, and appended who signed it.
                format!("--root-ca-file={}", file(SERVING_CERTIFICATE)),
                format!("--cluster-cidr={PODS}"),
                "--allocate-node-cidrs=false".to_owned(),
                // Each controller has the rights that it needs, by roles that come with Kubernetes.
                "--use-service-account-credentials=true".to_owned(),
                // A controller that nothing here needs, and which asks for clouds.
                "--controllers=*,-node-route-controller,-cloud-node-lifecycle-controller".to_owned(),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
            Self::Scheduler => vec![
                format!("--kubeconfig={}", self.kubeconfig(layout)),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
            Self::Containerd => vec![format!("--config={}", file("containerd.toml"))],
            Self::Kubelet => vec![
                format!("--config={}", file("kubelet.json")),
                format!("--kubeconfig={}", self.kubeconfig(layout)),
                format!("--hostname-override={NODE}"),
                format!("--node-ip={}", layout.node_address()),
                format!("--cert-dir={}", file("kubelet-pki")),
            ],
            Self::Proxy => vec![format!("--config={}", file("kube-proxy.json"))],
            Self::Dns => vec!["-conf".to_owned(), file("Corefile")],
        }
    }
}

/// The folder for the certificate that the API server makes for itself.
const SERVING: &str = "serving";
/// That certificate.
const SERVING_CERTIFICATE: &str = "serving/apiserver.crt";
/// The key that signs the tokens of service accounts.
const SERVICE_ACCOUNT_KEY: &str = "service-account.key";
/// Tokens, with the users that they stand for.
const TOKENS: &str = "tokens.csv";
/// The socket of the container runtime, where every other node has it too.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// The issuer of the tokens of service accounts, and their default audience.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn api_server(layout: &Layout) -> Vec<String> {
    let file = |name: &str| layout.file(name).display().to_string();
    let key = file(SERVICE_ACCOUNT_KEY);
    // An API server advertises no loopback address. Without a node nobody follows it there.
    let advertised = layout.link.map_or_else(|| "198.18.255.1".to_owned(), |link| link.node());
    vec![
        format!("--etcd-servers=http://127.0.0.1:{}", layout.etcd_port),
        format!("--bind-address={}", layout.node_address()),
        format!("--advertise-address={advertised}"),
        format!("--secure-port={}", layout.api_port),
        format!("--cert-dir={}", file(SERVING)),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={key}"),
        format!("--service-account-signing-key-file={key}"),
        format!("--token-auth-file={}", file(TOKENS)),
        "--authorization-mode=RBAC,Node".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        // For exec and logs: nobody resolves the node's name.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}

/// What the control plane reads, before it starts. Returns the kubeconfig's path.
pub fn write_control_plane_files(layout: &Layout) -> Result<()> {
    write(layout, SERVICE_ACCOUNT_KEY, &private_key()?)?;
    let admin = token()?;
    let mut tokens = format!("{admin},admin,admin,\"system:masters\"\n");
    write_kubeconfig(layout, KUBECONFIG, &admin)?;
    for component in Component::CONTROL_PLANE.into_iter().chain(Component::NODE) {
        let Some((user, group)) = component.user() else { continue };
        let token = token()?;
        tokens.push_str(&format!("{token},{user},{user},\"{group}\"\n"));
        write_kubeconfig(layout, &format!("{}.kubeconfig", component.program()), &token)?;
    }
    write(layout, TOKENS, &tokens)
}

/// The administrator's kubeconfig.
pub const KUBECONFIG: &str = "kubeconfig";

fn write_kubeconfig(layout: &Layout, name: &str, token: &str) -> Result<()> {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
        "clusters": [{ "name": "e2e", "cluster": {
            "server": layout.server(), "certificate-authority": layout.file(SERVING_CERTIFICATE),
        } }],
        "users": [{ "name": "e2e", "user": { "token": token } }],
        "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": "e2e", "namespace": "default" } }],
    });
    write_json(layout, name, &kubeconfig)
}

/// What a node's programs read, before they start.
pub fn write_node_files(layout: &Layout, tools: &Tools) -> Result<()> {
    let file = |name: &str| layout.file(name).display().to_string();
    fs::create_dir_all(layout.file("cni")).context("cannot make a folder for CNI")?;
    write(layout, "containerd.toml", &containerd(layout, tools))?;
    let cni = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [{
        "type": "ptp", "ipMasq": false, "mtu": 1400,
        "ipam": { "type": "host-local", "subnet": PODS, "routes": [{ "dst": "0.0.0.0/0" }], "dataDir": file("cni-data") },
    }] });
    write_json(layout, "cni/10-pods.conflist", &cni)?;
    write(layout, "resolv.conf", &format!("nameserver {}\n", layout.node_address()))?;
    write_json(layout, "kubelet.json", &kubelet(layout))?;
    write_json(layout, "kube-proxy.json", &proxy(layout))?;
    let corefile = format!(
        ".:53 {{\n    errors\n    kubernetes {DOMAIN} in-addr.arpa {{\n        kubeconfig {}\n    }}\n}}\n",
        Component::Dns.kubeconfig(layout)
    );
    write(layout, "Corefile", &corefile)
}

fn containerd(layout: &Layout, tools: &Tools) -> String {
    let dir = layout.dir.display();
    let shim = tools.folder().join("containerd-shim-runc-v2");
    let runc = on_path("runc").unwrap_or_else(|| "runc".into());
    format!(
        r#"version = 3
root = "{dir}/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  # Where the capability to lower it is missing, every sandbox would die in runc.
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{tools}"]
  conf_dir = "{dir}/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "{shim}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{runc}"
"#,
        PAUSE = crate::image::PAUSE,
        tools = tools.folder().display(),
        shim = shim.display(),
        runc = runc.display(),
    )
}

fn kubelet(layout: &Layout) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        // The API server has no certificate for the kubelet to know it by; nobody else is in this network.
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", layout.cgroup()), "failCgroupV1": false,
        "enforceNodeAllocatable": ["pods"],
        "clusterDNS": [layout.node_address()], "clusterDomain": DOMAIN, "resolvConf": layout.file("resolv.conf"),
        "failSwapOn": false, "localStorageCapacityIsolation": false,
        // A full disk is no reason to evict what a test has just started.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%",
            "nodefs.inodesFree": "0%", "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        // Tests change Secrets and ConfigMaps and wait for pods to see it.
        "syncFrequency": "2s", "nodeStatusUpdateFrequency": "2s", "configMapAndSecretChangeDetectionStrategy": "Watch",
        "maxPods": 110, "serializeImagePulls": false,
        "registryPullQPS": 0, "eventRecordQPS": 0, "kubeAPIQPS": 100, "kubeAPIBurst": 200,
        "healthzBindAddress": layout.node_address(),
    })
}

fn proxy(layout: &Layout) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
        "clientConnection": { "kubeconfig": Component::Proxy.kubeconfig(layout) },
        "hostnameOverride": NODE, "clusterCIDR": PODS, "bindAddress": "0.0.0.0",
        "healthzBindAddress": format!("{}:10256", layout.node_address()),
        "nftables": { "minSyncPeriod": "100ms", "syncPeriod": "10s" },
        // Sizes of the kernel's tables are the machine's, not this network's, to set.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}

fn token() -> Result<String> {
    Ok(random_bytes::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A key for P-256 as PEM: SEC 1 lets the public half be left out, so 32 random bytes are all there is to it.
fn private_key() -> Result<String> {
    const BEFORE: [u8; 7] = [0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
    const CURVE: [u8; 12] = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let der = [&BEFORE[..], &random_bytes::<32>()?, &CURVE].concat();
    Ok(format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", BASE64.encode(der)))
}

fn write_json(layout: &Layout, name: &str, value: &Value) -> Result<()> {
    write(layout, name, &value.to_string())
}

fn write(layout: &Layout, name: &str, text: &str) -> Result<()> {
    let path = layout.file(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
