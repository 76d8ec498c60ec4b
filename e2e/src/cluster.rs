//! A cluster: started, waited for, spoken to, disturbed, stopped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use crate::audit::AuditWebhook;
use crate::component::{self, Component};
use crate::image::Image;
use crate::kubectl::{self, Output};
use crate::layout::{self, Layout, NODE};
use crate::log;
use crate::namespace::Namespace;
use crate::node::Node;
use crate::reaper::{self, Reaper};
use crate::tools::Tools;
use crate::wait::try_wait_for;

/// Longer than any program takes that works, on a machine that does much else.
const LONG: Duration = Duration::from_secs(120);

/// What a cluster is to have.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// The programs; `None` is [`Tools::locate`].
    pub tools: Option<Tools>,
    /// The folder in which the cluster makes its own; `None` is the one for temporary files.
    pub parent: Option<PathBuf>,
    /// Whether there is a node that runs pods. Needs root. Without, there is only a control plane, on loopback.
    pub node: bool,
    /// Who hears of everything that is asked of the API server.
    pub audit_webhook: Option<AuditWebhook>,
    /// More arguments for the API server.
    pub api_server_args: Vec<String>,
}

/// A running cluster. Dropped, it is removed without a trace; so it is when this process ends otherwise.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    tools: Tools,
    node: Option<Node>,
    api_server_args: Vec<String>,
    running: Mutex<BTreeMap<Component, Child>>,
    reaper: Option<Reaper>,
}

impl Cluster {
    /// Starts a cluster and waits until it is of use: the API server is ready and service accounts are made; with a node,
    /// that is ready too, Services have addresses, and the images [`crate::image::BUSYBOX`] and [`crate::image::PAUSE`] are loaded.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        let tools = options.tools.map_or_else(Tools::locate, Ok)?;
        tools.check(options.node)?;
        let parent = options.parent.unwrap_or_else(std::env::temp_dir);
        reaper::reap_stale(&parent);
        let mut layout = Layout::create(&parent, options.node)?;
        let reaper = Some(Reaper::start(&layout.dir)?);
        let node = if options.node { Some(Node::create(&mut layout)?) } else { None };
        let mut api_server_args = options.api_server_args;
        if let Some(webhook) = &options.audit_webhook {
            api_server_args.extend(webhook.arguments(&layout)?);
        }
        component::write_control_plane_files(&layout)?;
        // From here on an error drops the cluster, and with it what was started.
        let cluster = Self { layout, tools, node, api_server_args, running: Mutex::default(), reaper };
        cluster.come_up()?;
        Ok(cluster)
    }

    fn come_up(&self) -> Result<()> {
        let early = [Component::Etcd, Component::ApiServer, Component::Containerd];
        if self.node.is_some() {
            component::write_node_files(&self.layout, &self.tools)?;
        }
        let all = Component::CONTROL_PLANE
            .into_iter()
            .chain(if self.node.is_some() { &Component::NODE[..] } else { &[] }.iter().copied());
        let (first, then): (Vec<_>, Vec<_>) = all.partition(|component| early.contains(component));
        first.into_iter().try_for_each(|component| self.spawn(component))?;
        self.await_ready(Component::ApiServer)?;
        then.iter().try_for_each(|component| self.spawn(*component))?;
        if self.node.is_some() {
            self.await_ready(Component::Containerd)?;
            self.load_own_images()?;
        }
        then.into_iter().try_for_each(|component| self.await_ready(component))
    }

    fn load_own_images(&self) -> Result<()> {
        for (image, name) in [(Image::pause()?, "pause.tar"), (Image::busybox()?, "busybox.tar")] {
            let path = self.layout.file(name);
            image.write(&path)?;
            self.load_image(&path)?;
        }
        Ok(())
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.file(component::KUBECONFIG)
    }

    /// The folder of the cluster; logs are in `logs`.
    pub fn dir(&self) -> &Path {
        &self.layout.dir
    }

    /// Where the API server is, as a URL.
    pub fn server(&self) -> String {
        self.layout.server()
    }

    /// The address at which this process can listen for the cluster's programs and pods.
    pub fn host_address(&self) -> String {
        self.layout.host_address()
    }

    /// The address of the node, at which this process reaches pods on the host's network.
    pub fn node_address(&self) -> String {
        self.layout.node_address()
    }

    /// Runs kubectl as administrator.
    pub fn kubectl<const N: usize>(&self, args: [&str; N]) -> Result<Output> {
        self.kubectl_args(&args, None)
    }

    /// Runs kubectl as administrator and reads the JSON that it prints.
    pub fn kubectl_json<const N: usize>(&self, args: [&str; N]) -> Result<Value> {
        self.kubectl_args(&[&args[..], &["--output=json"]].concat(), None)?.json()
    }

    /// Applies manifests, given as YAML or JSON.
    pub fn kubectl_apply(&self, manifests: &str) -> Result<String> {
        self.kubectl_args(&["apply", "--filename=-"], Some(manifests))?.success()
    }

    /// Runs kubectl as administrator, with this on its standard input.
    pub fn kubectl_args(&self, args: &[&str], stdin: Option<&str>) -> Result<Output> {
        kubectl::run(self.command("kubectl")?.args(args), stdin)
    }

    /// Runs helm as administrator.
    pub fn helm(&self, args: &[&str]) -> Result<Output> {
        kubectl::run(self.command("helm")?.args(args), None)
    }

    /// Runs ctr, which speaks with containerd.
    pub fn ctr<const N: usize>(&self, args: [&str; N]) -> Result<Output> {
        let mut command = self.command("ctr")?;
        // On the node, for that is where the socket is.
        self.on_node()?.enter(&mut command)?;
        kubectl::run(
            command.args(["--address", component::CONTAINERD_SOCKET, "--namespace", "k8s.io"]).args(args),
            None,
        )
    }

    /// A client program with the cluster's kubeconfig, for who wants to start it otherwise than [`Self::kubectl`] does.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.tools.path(program)?);
        command.env("KUBECONFIG", self.kubeconfig()).env(layout::MARK, &self.layout.id);
        // Not what the user's own clusters have left there.
        for (variable, folder) in [("HOME", "home"), ("KUBECACHEDIR", "home/kubectl"), ("HELM_CACHE_HOME", "home/helm")]
        {
            command.env(variable, self.layout.file(folder));
        }
        Ok(command)
    }

    /// A program of the system that will run in the node's namespaces.
    pub fn node_command(&self, program: &str) -> Result<Command> {
        let mut command = self.on_node()?.command(program)?;
        command.env(layout::MARK, &self.layout.id);
        Ok(command)
    }

    fn on_node(&self) -> Result<&Node> {
        self.node.as_ref().context("the cluster has no node (ClusterOptions::node)")
    }

    /// Gives the node an image from an archive, as docker and podman save them.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let path = archive.to_str().context("the path of an image is no UTF-8")?;
        self.ctr(["images", "import", path])?.success().map(|_| ())
    }

    /// A namespace for a test, whose name begins with this word.
    pub fn namespace(&self, word: &str) -> Result<Namespace<'_>> {
        Namespace::create(self, word)
    }

    /// Ends a component at once, as a crash would (SIGKILL).
    pub fn kill(&self, component: Component) -> Result<()> {
        self.end(component, Signal::SIGKILL)
    }

    /// Ends a component as an administrator would (SIGTERM).
    pub fn stop_component(&self, component: Component) -> Result<()> {
        self.end(component, Signal::SIGTERM)
    }

    /// Starts a component that was ended, and waits until it is ready.
    pub fn start_component(&self, component: Component) -> Result<()> {
        self.spawn(component)?;
        self.await_ready(component)
    }

    /// Ends a component and starts it again.
    pub fn restart(&self, component: Component) -> Result<()> {
        self.stop_component(component)?;
        self.start_component(component)
    }

    /// The id of a component's process, if it runs.
    pub fn pid(&self, component: Component) -> Option<u32> {
        self.running().get(&component).map(Child::id)
    }

    /// What a component has written so far.
    pub fn log(&self, component: Component) -> String {
        let bytes = fs::read(self.layout.log(component.program())).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the cluster and waits until nothing is left of it.
    pub fn stop(mut self) -> Result<()> {
        self.shut_down()
    }

    /// Leaves the cluster running when this process ends. [`reaper::reap`] ends it, given its folder.
    pub fn detach(mut self) -> Result<PathBuf> {
        if let Some(reaper) = self.reaper.take() {
            reaper.dismiss(&self.layout.dir)?;
        }
        Ok(self.layout.dir.clone())
    }

    fn shut_down(&mut self) -> Result<()> {
        let Some(reaper) = self.reaper.take() else { return Ok(()) };
        // Otherwise the namespaces would outlive the processes in them.
        self.node = None;
        let reaped = reaper.reap();
        for child in self.running.get_mut().unwrap_or_else(PoisonError::into_inner).values_mut() {
            let _ = child.wait();
        }
        reaped
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Component, Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, component: Component) -> Result<()> {
        let program = component.program();
        let log = self.layout.log(program);
        let open = || File::options().create(true).append(true).open(&log);
        let out = open().with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(self.tools.path(program)?);
        command
            .args(component.arguments(&self.layout, &self.api_server_args))
            .current_dir("/")
            .env(layout::MARK, &self.layout.id)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        if let Some(node) = &self.node {
            node.enter(&mut command)?;
        }
        // Not in the terminal's group of processes: Ctrl-C is for this process, which ends the others in its own way.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        if let Some(mut earlier) = self.running().insert(component, child) {
            // One at a time: two would fight for the port.
            let _ = earlier.kill();
            let _ = earlier.wait();
        }
        Ok(())
    }

    fn end(&self, component: Component, signal: Signal) -> Result<()> {
        let child = self.running().remove(&component);
        let mut child = child.with_context(|| format!("{} does not run", component.program()))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id that is none")?);
        signal::kill(pid, signal).with_context(|| format!("cannot end {}", component.program()))?;
        let what = format!("{} ends", component.program());
        try_wait_for(LONG, &what, || child.try_wait().context("cannot wait for a component")).map(|_| ())
    }

    /// Waits until a component is of use; fails early when a process has died.
    fn await_ready(&self, component: Component) -> Result<()> {
        let what = format!("{} is ready", component.program());
        let ready = try_wait_for(LONG, &what, || {
            self.all_alive()?;
            Ok(self.is_ready(component).then_some(()))
        });
        ready.map_err(|error| error.context(log::tail(&self.layout.log(component.program()))))
    }

    fn all_alive(&self) -> Result<()> {
        for (component, child) in self.running().iter_mut() {
            if let Some(status) = child.try_wait().context("cannot wait for a component")? {
                let program = component.program();
                bail!("{program} ended with {status}\n{}", log::tail(&self.layout.log(program)));
            }
        }
        Ok(())
    }

    fn is_ready(&self, component: Component) -> bool {
        let well = |args: &[&str]| self.kubectl_args(args, None).is_ok_and(|output| output.status.success());
        match component {
            Component::Etcd => self.pid(component).is_some(),
            Component::ApiServer => self.port_open(self.layout.api_port) && well(&["get", "--raw=/readyz"]),
            Component::ControllerManager => {
                well(&["get", "serviceaccount/default", "configmap/kube-root-ca.crt", "--namespace=default"])
            }
            // It serves nothing that could be asked; a pod that waits for it waits a moment.
            Component::Scheduler => true,
            Component::Containerd => self.ctr(["version"]).is_ok_and(|output| output.status.success()),
            Component::Kubelet => {
                let ready = "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}";
                self.kubectl(["get", "node", NODE, ready]).is_ok_and(|output| output.stdout == "True")
                    && self.http_well(10248, "/healthz")
            }
            Component::Proxy => self.http_well(10256, "/healthz"),
            Component::Dns => self.port_open(53),
        }
    }

    fn connect(&self, port: u16) -> Option<TcpStream> {
        let address: SocketAddr = format!("{}:{port}", self.layout.node_address()).parse().ok()?;
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
    }

    fn port_open(&self, port: u16) -> bool {
        self.connect(port).is_some()
    }

    fn http_well(&self, port: u16, path: &str) -> bool {
        let Some(mut stream) = self.connect(port) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut head = [0; 12];
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).is_ok()
            && stream.read_exact(&mut head).is_ok()
            && head.ends_with(b" 200")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            eprintln!("{error:#}");
        }
    }
}
