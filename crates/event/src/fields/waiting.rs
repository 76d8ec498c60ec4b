//! The fields whose data nothing delivers yet: they are accepted, have no value, and are shown as waiting. One list for
//! the command line, the docs and the tests; whoever delivers one takes it out.

/// Names, sorted.
#[rustfmt::skip]
pub(super) static WAITING: &[&str] = &[
    "container.duration",
    "container.healthcheck",
    "container.liveness_probe",
    "container.readiness_probe",
    "container.start_ts",
    "evt.around",
    "evt.deltatime",
    "evt.deltatime.ns",
    "evt.deltatime.s",
    "evt.infra.docker.container.id",
    "evt.infra.docker.container.image",
    "evt.infra.docker.container.name",
    "evt.infra.docker.name",
    "evt.plugininfo",
    "fdlist.cips",
    "fdlist.cports",
    "fdlist.names",
    "fdlist.nums",
    "fdlist.sips",
    "fdlist.sports",
    "k8s.deployment.id",
    "k8s.deployment.label",
    "k8s.deployment.labels",
    "k8s.ns.id",
    "k8s.rc.id",
    "k8s.rc.label",
    "k8s.rc.labels",
    "k8s.rs.id",
    "k8s.rs.label",
    "k8s.rs.labels",
    "k8s.svc.id",
    "k8s.svc.label",
    "k8s.svc.labels",
    "k8s.svc.name",
    "proc.exe_ino.ctime_duration_pidns_start",
    "proc.fdopencount",
    "proc.fdusage",
    "proc.is_container_healthcheck",
    "proc.is_container_liveness_probe",
    "proc.is_container_readiness_probe",
    "proc.nchilds",
    "proc.nthreads",
    "proc.pidns_init_start_ts",
    "proc.vmrss",
    "proc.vmswap",
    "thread.cgroup",
    "thread.cgroups",
    "thread.cpu",
    "thread.cpu.system",
    "thread.cpu.user",
    "thread.exectime",
    "thread.totexectime",
    "thread.vmrss",
    "thread.vmrss.b",
    "util.cnt",
];

#[cfg(test)]
mod tests {
    use super::WAITING;
    use crate::fields;

    #[test]
    fn every_field_has_an_extractor_or_waits() {
        assert!(WAITING.is_sorted());
        assert!(WAITING.iter().all(|name| fields::by_name(name).is_some()), "a name that is no field");
        let silent = fields::all()
            .filter(|field| field.extract.is_none() && field.audit.is_none() && !field.is_waiting())
            .map(|field| field.name);
        assert_eq!(silent.collect::<Vec<_>>(), [""; 0], "to be listed as waiting");
    }
}
