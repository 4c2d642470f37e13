//! The profile `restricted` of Pod Security, control by control, and what Cairn itself asks of its manifests.

use cairn::base::Digest;
use serde_json::{Value, json};

use crate::k3s_rules::{Rule, context, each_container, items, rule, selects, text};

/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>, the controls of `baseline` and `restricted` that
/// concern Linux.
pub const POD_SECURITY: &[Rule] = &[
    rule(
        "host namespaces",
        |objects| ["hostIPC", "hostNetwork", "hostPID"].iter().all(|field| objects.pod()[field] != json!(true)),
        |objects| objects.edit_pod("/hostPID", json!(true)),
    ),
    rule(
        "privileged containers",
        |objects| each_container(objects, |container| container["securityContext"]["privileged"] != true),
        |objects| objects.edit_container("/securityContext/privileged", json!(true)),
    ),
    rule(
        "capabilities",
        |objects| {
            each_container(objects, |container| {
                let capabilities = &container["securityContext"]["capabilities"];
                items(&capabilities["drop"]).any(|one| one == "ALL")
                    && items(&capabilities["add"]).all(|one| one == "NET_BIND_SERVICE")
            })
        },
        |objects| objects.edit_container("/securityContext/capabilities/add", json!(["SYS_ADMIN"])),
    ),
    rule(
        "host ports",
        |objects| {
            each_container(objects, |container| items(&container["ports"]).all(|port| port["hostPort"].is_null()))
        },
        |objects| objects.edit_container("/ports/0/hostPort", json!(7171)),
    ),
    rule(
        "AppArmor and SELinux",
        |objects| {
            let is_default = |context: &Value| {
                let profile = &context["appArmorProfile"]["type"];
                let label = &context["seLinuxOptions"];
                *profile != json!("Unconfined") && label["user"].is_null() && label["role"].is_null()
            };
            is_default(&objects.pod()["securityContext"])
                && each_container(objects, |container| is_default(&container["securityContext"]))
        },
        |objects| objects.edit_pod("/securityContext/appArmorProfile", json!({"type": "Unconfined"})),
    ),
    rule(
        "/proc mount type",
        |objects| {
            each_container(objects, |container| {
                matches!(text(&container["securityContext"]["procMount"]), "" | "Default")
            })
        },
        |objects| objects.edit_container("/securityContext/procMount", json!("Unmasked")),
    ),
    rule(
        "sysctls",
        |objects| objects.pod()["securityContext"]["sysctls"].is_null(),
        |objects| {
            objects.edit_pod("/securityContext/sysctls", json!([{"name": "kernel.shm_rmid_forced", "value": "1"}]))
        },
    ),
    rule(
        "volume types",
        |objects| {
            let allowed = [
                "configMap",
                "csi",
                "downwardAPI",
                "emptyDir",
                "ephemeral",
                "persistentVolumeClaim",
                "projected",
                "secret",
            ];
            items(&objects.pod()["volumes"]).all(|volume| {
                let kinds = volume.as_object().into_iter().flatten().filter(|(name, _)| *name != "name");
                kinds.map(|(name, _)| name.as_str()).all(|kind| allowed.contains(&kind))
            })
        },
        |objects| objects.edit_pod("/volumes/-", json!({"name": "share", "nfs": {"server": "s", "path": "/"}})),
    ),
    rule(
        "privilege escalation",
        |objects| {
            each_container(objects, |container| container["securityContext"]["allowPrivilegeEscalation"] == false)
        },
        |objects| objects.edit_container("/securityContext/allowPrivilegeEscalation", json!(true)),
    ),
    rule(
        "running as non-root",
        |objects| each_container(objects, |container| *context(objects, container, "runAsNonRoot") == json!(true)),
        |objects| objects.edit_container("/securityContext/runAsNonRoot", json!(false)),
    ),
    rule(
        "running as non-root user",
        |objects| each_container(objects, |container| *context(objects, container, "runAsUser") != json!(0)),
        |objects| objects.edit_container("/securityContext/runAsUser", json!(0)),
    ),
    rule(
        "seccomp",
        |objects| {
            each_container(objects, |container| {
                matches!(text(&context(objects, container, "seccompProfile")["type"]), "RuntimeDefault" | "Localhost")
            })
        },
        |objects| objects.edit_container("/securityContext/seccompProfile/type", json!("Unconfined")),
    ),
];

/// What Cairn asks for besides, each for a reason that is measured or has happened to others.
pub const OWN: &[Rule] = &[
    rule(
        "the namespace enforces what the pod keeps",
        |objects| {
            let labels = &objects.one("Namespace")["metadata"]["labels"];
            ["enforce", "audit", "warn"]
                .iter()
                .all(|mode| labels[format!("pod-security.kubernetes.io/{mode}")] == "restricted")
        },
        |objects| objects.edit("Namespace", "/metadata/labels/pod-security.kubernetes.io~1enforce", json!("baseline")),
    ),
    rule(
        "one writer: one replica, one pod a volume",
        |objects| {
            let workload = objects.workload();
            let claims: Vec<&Value> = items(&workload["volumeClaimTemplates"]).collect();
            workload["replicas"] == 1
                && claims.len() == 1
                && claims[0]["spec"]["accessModes"] == json!(["ReadWriteOncePod"])
        },
        |objects| {
            objects.edit("StatefulSet", "/spec/volumeClaimTemplates/0/spec/accessModes", json!(["ReadWriteMany"]))
        },
    ),
    rule(
        "the volume outlives the StatefulSet, and no file lists it",
        |objects| {
            let policy = &objects.workload()["persistentVolumeClaimRetentionPolicy"];
            policy["whenDeleted"] == "Retain"
                && policy["whenScaled"] == "Retain"
                && objects.0.iter().all(|object| !text(&object["kind"]).starts_with("PersistentVolume"))
        },
        |objects| objects.0.push(json!({"kind": "PersistentVolumeClaim", "metadata": {"namespace": "cairn"}})),
    ),
    rule(
        "what cannot be changed once installed does not follow the version",
        |objects| {
            let version = "app.kubernetes.io/version";
            let workload = objects.workload();
            workload["selector"]["matchLabels"][version].is_null()
                && items(&workload["volumeClaimTemplates"]).all(|claim| claim["metadata"]["labels"][version].is_null())
        },
        |objects| {
            let pointer = "/spec/volumeClaimTemplates/0/metadata/labels/app.kubernetes.io~1version";
            objects.edit("StatefulSet", pointer, json!("0.1.0"));
        },
    ),
    rule(
        "a pod that does not get ready can be replaced",
        |objects| {
            objects.workload()["podManagementPolicy"] == "Parallel"
                && objects.workload()["updateStrategy"]["type"] == "RollingUpdate"
        },
        |objects| objects.edit("StatefulSet", "/spec/podManagementPolicy", Value::Null),
    ),
    rule(
        "a stop has time for requests and the flush",
        |objects| objects.pod()["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds >= 60),
        |objects| objects.edit_pod("/terminationGracePeriodSeconds", json!(30)),
    ),
    rule(
        "the pod has no access to the cluster",
        |objects| {
            objects.pod()["automountServiceAccountToken"] == false
                && objects.of_kind("ServiceAccount").all(|account| account["automountServiceAccountToken"] == false)
        },
        |objects| objects.edit("ServiceAccount", "/automountServiceAccountToken", Value::Null),
    ),
    rule(
        "no variables of services",
        |objects| objects.pod()["enableServiceLinks"] == false,
        |objects| objects.edit_pod("/enableServiceLinks", json!(true)),
    ),
    rule(
        "the group owns the volume, and is set once",
        |objects| {
            let context = &objects.pod()["securityContext"];
            context["fsGroup"] == 65532 && context["fsGroupChangePolicy"] == "OnRootMismatch"
        },
        |objects| objects.edit_pod("/securityContext/fsGroupChangePolicy", Value::Null),
    ),
    rule(
        "no registry is asked for what is there",
        |objects| each_container(objects, |container| container["imagePullPolicy"] == "IfNotPresent"),
        |objects| objects.edit_container("/imagePullPolicy", json!("Always")),
    ),
    rule(
        "temporary files are bounded",
        |objects| {
            let volumes: Vec<&Value> =
                items(&objects.pod()["volumes"]).filter(|volume| !volume["emptyDir"].is_null()).collect();
            !volumes.is_empty() && volumes.iter().all(|volume| volume["emptyDir"]["sizeLimit"].is_string())
        },
        |objects| objects.edit_pod("/volumes/1/emptyDir/sizeLimit", Value::Null),
    ),
    rule(
        "other settings make another pod",
        |objects| {
            let configuration = text(&objects.one("ConfigMap")["data"]["cairn.toml"]);
            objects.workload()["template"]["metadata"]["annotations"]["cairn.local/configuration"]
                == json!(Digest::of(configuration.as_bytes()).to_string())
        },
        |objects| objects.edit("ConfigMap", "/data/cairn.toml", json!("[log]\nlevel = \"debug\"\n")),
    ),
    rule(
        "names can be looked up, and nothing else is reached unless it is asked for",
        |objects| {
            let rules: Vec<&Value> = items(&objects.one("NetworkPolicy")["spec"]["egress"]).collect();
            rules.len() == 1
                && items(&rules[0]["to"]).all(|peer| !peer["podSelector"].is_null())
                && items(&rules[0]["ports"]).count() == 2
                && items(&rules[0]["ports"]).all(|port| port["port"] == 53)
        },
        |objects| objects.edit("NetworkPolicy", "/spec/egress/-", json!({})),
    ),
    rule(
        "a node that refuses writes can still be searched, and emptied",
        |objects| objects.of_kind("Service").all(|service| service["spec"]["publishNotReadyAddresses"] == true),
        |objects| objects.edit("Service", "/spec/publishNotReadyAddresses", Value::Null),
    ),
    rule(
        "the pod starts without the token's Secret",
        |objects| {
            items(&objects.pod()["volumes"])
                .any(|volume| volume["secret"]["secretName"] == "cairn-token" && volume["secret"]["optional"] == true)
        },
        |objects| objects.edit_pod("/volumes/2/secret/optional", Value::Null),
    ),
    rule(
        "the data are on the volume",
        |objects| {
            each_container(objects, |container| {
                items(&container["volumeMounts"])
                    .any(|mount| mount["name"] == "data" && mount["mountPath"] == "/var/lib/cairn")
            })
        },
        |objects| objects.edit_container("/volumeMounts/0/mountPath", json!("/data")),
    ),
    rule(
        "every mount has its volume, and every volume its mount",
        |objects| {
            let claims = items(&objects.workload()["volumeClaimTemplates"]).map(|claim| &claim["metadata"]["name"]);
            let mut volumes: Vec<&str> =
                items(&objects.pod()["volumes"]).map(|volume| &volume["name"]).chain(claims).map(text).collect();
            volumes.sort_unstable();
            each_container(objects, |container| {
                let mut mounts: Vec<&str> =
                    items(&container["volumeMounts"]).map(|mount| text(&mount["name"])).collect();
                mounts.sort_unstable();
                mounts == volumes
            })
        },
        |objects| objects.edit_container("/volumeMounts/1/name", json!("other")),
    ),
    rule(
        "every object has the recommended labels",
        |objects| {
            let names = ["name", "instance", "version", "component", "part-of", "managed-by"];
            objects.0.iter().all(|object| {
                let labels = &object["metadata"]["labels"];
                names.iter().all(|name| labels[format!("app.kubernetes.io/{name}")].is_string())
            }) && selects(&json!({"app.kubernetes.io/name": "cairn"}), objects.pod_labels())
        },
        |objects| objects.edit("ServiceAccount", "/metadata/labels", json!({"app": "cairn"})),
    ),
];
