//! Rules for what is put into a cluster: those of kube-linter and kube-score that concern a single-replica StatefulSet, Pod
//! Security `restricted`, and Cairn's own. Each has a way to break it, and a test proves that the break is seen.
//!
//! The scanners themselves are programs that no package registry of this build has; names are theirs, so that a finding can be
//! looked up. Left out, because they demand what would be wrong here:
//!
//! * kube-score `container-image-pull-policy` wants `Always`, which asks a registry that a node without internet cannot reach.
//!   The digest says as much as asking would.
//! * kube-linter `minimum-three-replicas`, `no-anti-affinity`, kube-score `pod-topology-spread-constraints`: one writer owns the
//!   data, so there is one pod, and nothing to spread. Both tools leave explicit single replicas alone, too.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Every object of a rendering.
#[derive(Debug, Clone)]
pub struct Objects(pub Vec<Value>);

impl Objects {
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    pub fn one(&self, kind: &str) -> &Value {
        self.0.iter().find(|object| object["kind"] == kind).unwrap_or(&Value::Null)
    }

    pub fn workload(&self) -> &Value {
        &self.one("StatefulSet")["spec"]
    }

    pub fn pod(&self) -> &Value {
        &self.workload()["template"]["spec"]
    }

    pub fn pod_labels(&self) -> &Value {
        &self.workload()["template"]["metadata"]["labels"]
    }

    /// The labels of the pods of every workload.
    fn all_pod_labels(&self) -> Vec<&Value> {
        let jobs = self.of_kind("CronJob").map(|job| &job["spec"]["jobTemplate"]["spec"]["template"]);
        jobs.map(|template| &template["metadata"]["labels"]).chain([self.pod_labels()]).collect()
    }

    pub fn containers(&self) -> Vec<&Value> {
        ["containers", "initContainers"].iter().flat_map(|kind| items(&self.pod()[kind])).collect()
    }

    fn named(&self, kind: &str, name: &Value) -> bool {
        self.of_kind(kind).any(|object| object["metadata"]["name"] == *name)
    }

    /// What a break changes: the first object of a kind.
    pub fn edit(&mut self, kind: &str, pointer: &str, value: Value) {
        let object = self.0.iter_mut().find(|object| object["kind"] == kind).expect("an object of the kind");
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        match object.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} in {kind}")) {
            Value::Array(list) if name == "-" => list.push(value),
            Value::Array(list) => list[name.parse::<usize>().expect("a place")] = value,
            Value::Object(fields) if value.is_null() => {
                fields.remove(name);
            }
            Value::Object(fields) => {
                fields.insert(name.replace("~1", "/"), value);
            }
            other => panic!("{parent} in {kind} is {other}"),
        }
    }

    pub fn edit_pod(&mut self, pointer: &str, value: Value) {
        self.edit("StatefulSet", &format!("/spec/template/spec{pointer}"), value);
    }

    pub fn edit_container(&mut self, pointer: &str, value: Value) {
        self.edit_pod(&format!("/containers/0{pointer}"), value);
    }
}

pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether labels have all that a selector asks for. One that asks for nothing selects everything, which none here should.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object();
    wanted.is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value))
}

fn probes(container: &Value) -> [&Value; 3] {
    ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe])
}

/// Whether something names a port that the container has.
fn has_port(container: &Value, port: &Value) -> bool {
    items(&container["ports"]).any(|known| known["name"] == *port || known["containerPort"] == *port)
}

/// Bytes or thousandths of a quantity, for comparison.
pub fn quantity(value: &Value) -> f64 {
    let text = text(value);
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "m" => 0.001,
        "Ki" => 1024.0,
        "Mi" => 1048576.0,
        "Gi" => 1073741824.0,
        "Ti" => 1099511627776.0,
        _ => 1.0,
    };
    number.parse::<f64>().unwrap_or(f64::NAN) * factor
}

/// A rule: whether it holds, and a way to break it.
pub struct Rule {
    pub name: &'static str,
    pub holds: fn(&Objects) -> bool,
    pub breaks: fn(&mut Objects),
}

pub const fn rule(name: &'static str, holds: fn(&Objects) -> bool, breaks: fn(&mut Objects)) -> Rule {
    Rule { name, holds, breaks }
}

pub fn each_container(objects: &Objects, holds: impl Fn(&Value) -> bool) -> bool {
    let containers = objects.containers();
    !containers.is_empty() && containers.into_iter().all(holds)
}

fn each_service(objects: &Objects, holds: impl Fn(&Value) -> bool) -> bool {
    objects.of_kind("Service").count() >= 2 && objects.of_kind("Service").all(holds)
}

/// A field of the container's security context, or of the pod's where the container says nothing.
pub fn context<'a>(objects: &'a Objects, container: &'a Value, field: &str) -> &'a Value {
    let own = &container["securityContext"][field];
    if own.is_null() { &objects.pod()["securityContext"][field] } else { own }
}

pub const KUBE_LINTER: &[Rule] = &[
    rule(
        "dangling-service",
        |objects| each_service(objects, |service| selects(&service["spec"]["selector"], objects.pod_labels())),
        |objects| objects.edit("Service", "/spec/selector/app.kubernetes.io~1name", json!("other")),
    ),
    rule(
        "dangling-networkpolicy",
        |objects| {
            objects.of_kind("NetworkPolicy").all(|policy| {
                let selector = &policy["spec"]["podSelector"]["matchLabels"];
                // Of two, a pod would have what both allow.
                objects.all_pod_labels().into_iter().filter(|labels| selects(selector, labels)).count() == 1
            })
        },
        |objects| objects.edit("NetworkPolicy", "/spec/podSelector/matchLabels", json!({"app": "other"})),
    ),
    rule(
        "dangling-servicemonitor",
        |objects| {
            objects.of_kind("ServiceMonitor").all(|monitor| {
                let selector = &monitor["spec"]["selector"]["matchLabels"];
                let selected: Vec<&Value> = objects
                    .of_kind("Service")
                    .filter(|service| selects(selector, &service["metadata"]["labels"]))
                    .collect();
                // Of two, everything would be scraped twice.
                selected.len() == 1
                    && items(&monitor["spec"]["endpoints"]).all(|endpoint| {
                        items(&selected[0]["spec"]["ports"]).any(|port| port["name"] == endpoint["port"])
                    })
            })
        },
        |objects| {
            objects.0.push(json!({"kind": "ServiceMonitor", "spec": {"selector": {"matchLabels": {"app": "other"}}}}));
        },
    ),
    rule(
        "drop-net-raw-capability",
        |objects| {
            each_container(objects, |container| {
                items(&container["securityContext"]["capabilities"]["drop"]).any(|one| one == "ALL" || one == "NET_RAW")
            })
        },
        |objects| objects.edit_container("/securityContext/capabilities/drop", json!([])),
    ),
    rule(
        "duplicate-env-var",
        |objects| {
            each_container(objects, |container| {
                let mut seen = BTreeSet::new();
                items(&container["env"]).all(|variable| seen.insert(text(&variable["name"]).to_owned()))
            })
        },
        |objects| objects.edit_container("/env/-", json!({"name": "CAIRN_CONFIG", "value": "/elsewhere"})),
    ),
    rule(
        "env-var-secret",
        |objects| {
            each_container(objects, |container| {
                items(&container["env"]).all(|variable| !text(&variable["name"]).to_uppercase().contains("SECRET"))
            })
        },
        |objects| objects.edit_container("/env/-", json!({"name": "AWS_SECRET_ACCESS_KEY", "value": "x"})),
    ),
    rule(
        "read-secret-from-env-var",
        |objects| {
            each_container(objects, |container| {
                items(&container["env"]).all(|variable| variable["valueFrom"]["secretKeyRef"].is_null())
                    && container["envFrom"].is_null()
            })
        },
        |objects| {
            let from = json!({"secretKeyRef": {"name": "cairn-token", "key": "token"}});
            objects.edit_container("/env/-", json!({"name": "CAIRN_TOKEN", "valueFrom": from}));
        },
    ),
    rule(
        "host-ipc, host-network, host-pid",
        |objects| ["hostIPC", "hostNetwork", "hostPID"].iter().all(|field| objects.pod()[field] != json!(true)),
        |objects| objects.edit_pod("/hostNetwork", json!(true)),
    ),
    rule(
        "invalid-target-ports",
        |objects| {
            let containers = objects.containers();
            let valid =
                |port: &Value| text(port).len() <= 15 && containers.iter().any(|container| has_port(container, port));
            each_service(objects, |service| items(&service["spec"]["ports"]).all(|port| valid(&port["targetPort"])))
        },
        |objects| objects.edit("Service", "/spec/ports/0/targetPort", json!("elsewhere")),
    ),
    rule(
        "latest-tag, stable-version",
        |objects| {
            each_container(objects, |container| {
                let image = text(&container["image"]);
                image.contains("@sha256:")
                    || image
                        .rsplit_once(':')
                        .is_some_and(|(_, tag)| !tag.contains('/') && !tag.is_empty() && tag != "latest")
            })
        },
        |objects| objects.edit_container("/image", json!("cairn.local/cairn:latest")),
    ),
    rule(
        "liveness-port, readiness-port, startup-port",
        |objects| {
            each_container(objects, |container| {
                probes(container).iter().all(|probe| has_port(container, &probe["httpGet"]["port"]))
            })
        },
        |objects| objects.edit_container("/readinessProbe/httpGet/port", json!(8080)),
    ),
    rule(
        "no-liveness-probe, no-readiness-probe",
        |objects| each_container(objects, |container| probes(container).iter().all(|probe| probe.is_object())),
        |objects| objects.edit_container("/livenessProbe", Value::Null),
    ),
    rule(
        "mismatching-selector",
        |objects| selects(&objects.workload()["selector"]["matchLabels"], objects.pod_labels()),
        |objects| objects.edit("StatefulSet", "/spec/template/metadata/labels/app.kubernetes.io~1name", json!("other")),
    ),
    rule(
        "no-read-only-root-fs",
        |objects| each_container(objects, |container| container["securityContext"]["readOnlyRootFilesystem"] == true),
        |objects| objects.edit_container("/securityContext/readOnlyRootFilesystem", json!(false)),
    ),
    rule(
        "non-existent-service-account, default-service-account",
        |objects| {
            let account = &objects.pod()["serviceAccountName"];
            *account != json!("default") && objects.named("ServiceAccount", account)
        },
        |objects| objects.edit_pod("/serviceAccountName", json!("other")),
    ),
    rule(
        "non-isolated-pod",
        |objects| {
            objects
                .of_kind("NetworkPolicy")
                .any(|policy| selects(&policy["spec"]["podSelector"]["matchLabels"], objects.pod_labels()))
        },
        |objects| objects.0.retain(|object| object["kind"] != "NetworkPolicy"),
    ),
    rule(
        "pdb-max-unavailable, pdb-min-available",
        |objects| {
            let spec = &objects.one("PodDisruptionBudget")["spec"];
            spec["minAvailable"].is_null() && spec["maxUnavailable"].as_i64().is_some_and(|most| most >= 1)
        },
        |objects| objects.edit("PodDisruptionBudget", "/spec/maxUnavailable", json!(0)),
    ),
    rule(
        "pdb-unhealthy-pod-eviction-policy",
        |objects| objects.one("PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow",
        |objects| objects.edit("PodDisruptionBudget", "/spec/unhealthyPodEvictionPolicy", Value::Null),
    ),
    rule(
        "privilege-escalation-container, privileged-container",
        |objects| {
            each_container(objects, |container| {
                let context = &container["securityContext"];
                context["allowPrivilegeEscalation"] == false && context["privileged"] != true
            })
        },
        |objects| objects.edit_container("/securityContext/allowPrivilegeEscalation", Value::Null),
    ),
    rule(
        "privileged-ports, ssh-port",
        |objects| {
            each_container(objects, |container| {
                items(&container["ports"]).all(|port| port["containerPort"].as_i64().is_some_and(|port| port >= 1024))
            })
        },
        |objects| objects.edit_container("/ports/0/containerPort", json!(22)),
    ),
    rule(
        "run-as-non-root",
        |objects| each_container(objects, |container| *context(objects, container, "runAsNonRoot") == json!(true)),
        |objects| {
            objects.edit_container("/securityContext/runAsNonRoot", Value::Null);
            objects.edit_pod("/securityContext/runAsNonRoot", json!(false));
        },
    ),
    rule(
        "sensitive-host-mounts, writable-host-mount, docker-sock",
        |objects| items(&objects.pod()["volumes"]).all(|volume| volume["hostPath"].is_null()),
        |objects| objects.edit_pod("/volumes/-", json!({"name": "host", "hostPath": {"path": "/"}})),
    ),
    rule(
        "unsafe-sysctls",
        |objects| objects.pod()["securityContext"]["sysctls"].is_null(),
        |objects| objects.edit_pod("/securityContext/sysctls", json!([{"name": "kernel.msgmax", "value": "1"}])),
    ),
    rule(
        "unset-cpu-requirements, unset-memory-requirements",
        |objects| {
            each_container(objects, |container| {
                ["cpu", "memory"].iter().all(|resource| {
                    let (request, limit) =
                        (&container["resources"]["requests"][resource], &container["resources"]["limits"][resource]);
                    quantity(request) > 0.0 && quantity(request) <= quantity(limit)
                })
            })
        },
        |objects| objects.edit_container("/resources/limits/memory", json!("1Mi")),
    ),
    rule(
        "use-namespace",
        |objects| {
            objects.0.iter().all(|object| {
                let is_of_the_cluster = matches!(text(&object["kind"]), "Namespace" | "RuntimeClass");
                let namespace = text(&object["metadata"]["namespace"]);
                if is_of_the_cluster { namespace.is_empty() } else { !matches!(namespace, "" | "default") }
            })
        },
        |objects| objects.edit("Service", "/metadata/namespace", json!("default")),
    ),
    rule(
        "access-to-secrets, cluster-admin-role-binding, wildcard-in-rules",
        |objects| objects.0.iter().all(|object| !text(&object["kind"]).contains("Role")),
        |objects| objects.0.push(json!({"kind": "ClusterRoleBinding", "metadata": {"namespace": "cairn"}})),
    ),
];

pub const KUBE_SCORE: &[Rule] = &[
    rule(
        "container-ephemeral-storage-request-and-limit",
        |objects| {
            each_container(objects, |container| {
                ["requests", "limits"]
                    .iter()
                    .all(|kind| quantity(&container["resources"][kind]["ephemeral-storage"]) > 0.0)
            })
        },
        |objects| objects.edit_container("/resources/limits/ephemeral-storage", Value::Null),
    ),
    rule(
        "container-security-context-user-group-id",
        |objects| {
            each_container(objects, |container| {
                ["runAsUser", "runAsGroup"]
                    .iter()
                    .all(|field| context(objects, container, field).as_i64().is_some_and(|id| id > 10_000))
            })
        },
        |objects| objects.edit_container("/securityContext/runAsGroup", json!(0)),
    ),
    rule(
        "container-ports-check",
        |objects| {
            each_container(objects, |container| {
                let mut names = BTreeSet::new();
                items(&container["ports"])
                    .all(|port| !text(&port["name"]).is_empty() && names.insert(text(&port["name"]).to_owned()))
            })
        },
        |objects| objects.edit_container("/ports/1/name", json!("mcp")),
    ),
    rule(
        "pod-probes-identical",
        |objects| {
            each_container(objects, |container| {
                let [startup, liveness, readiness] = probes(container);
                startup != liveness && liveness != readiness && startup != readiness
                    // What tells that it works must not be what ends it.
                    && liveness["httpGet"]["path"] != readiness["httpGet"]["path"]
            })
        },
        |objects| objects.edit_container("/livenessProbe/httpGet/path", json!("/ready")),
    ),
    rule(
        "pod-networkpolicy, networkpolicy-targets-pod",
        |objects| {
            let types = &objects.one("NetworkPolicy")["spec"]["policyTypes"];
            ["Ingress", "Egress"].iter().all(|direction| items(types).any(|one| one == direction))
        },
        |objects| objects.edit("NetworkPolicy", "/spec/policyTypes", json!(["Ingress"])),
    ),
    rule(
        "statefulset-has-servicename",
        |objects| {
            objects.of_kind("Service").any(|service| {
                service["metadata"]["name"] == objects.workload()["serviceName"]
                    && service["spec"]["clusterIP"] == "None"
                    && selects(&service["spec"]["selector"], objects.pod_labels())
            })
        },
        |objects| objects.edit("StatefulSet", "/spec/serviceName", json!("cairn")),
    ),
    rule(
        "service-type",
        |objects| {
            each_service(objects, |service| matches!(text(&service["spec"]["type"]), "ClusterIP" | "LoadBalancer"))
        },
        |objects| objects.edit("Service", "/spec/type", json!("NodePort")),
    ),
    rule(
        "ingress-targets-service",
        |objects| {
            objects.of_kind("Ingress").all(|ingress| {
                items(&ingress["spec"]["rules"]).flat_map(|rule| items(&rule["http"]["paths"])).all(|path| {
                    let backend = &path["backend"]["service"];
                    objects.of_kind("Service").any(|service| {
                        service["metadata"]["name"] == backend["name"]
                            && items(&service["spec"]["ports"]).any(|port| port["name"] == backend["port"]["name"])
                    })
                })
            })
        },
        |objects| {
            let backend = json!({"service": {"name": "other", "port": {"name": "mcp"}}});
            let rules = json!([{"http": {"paths": [{"backend": backend}]}}]);
            objects.0.push(json!({"kind": "Ingress", "metadata": {"namespace": "cairn"}, "spec": {"rules": rules}}));
        },
    ),
    rule(
        "poddisruptionbudget-has-policy",
        |objects| selects(&objects.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], objects.pod_labels()),
        |objects| objects.edit("PodDisruptionBudget", "/spec/selector/matchLabels", json!({"app": "other"})),
    ),
    rule(
        "label-values",
        |objects| {
            objects.0.iter().flat_map(|object| object["metadata"]["labels"].as_object()).flatten().all(|(_, value)| {
                let value = text(value);
                let is_outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
                value.len() <= 63
                    && is_outer(value.as_bytes().first())
                    && is_outer(value.as_bytes().last())
                    && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            })
        },
        |objects| objects.edit("Service", "/metadata/labels/app.kubernetes.io~1version", json!("+1")),
    ),
];
