//! What the API refuses, and why, in words that say what to do.

use std::path::PathBuf;

use kube::core::response::Status;
use serde::Serialize;

use super::K3S;
use crate::base::with_causes;
use crate::deploy::change::Cause;

/// A field that somebody else manages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldConflict {
    /// The field: `.spec.replicas`.
    pub field: String,
    /// Who manages it, in the server's words.
    pub manager: String,
}

/// Why the API was no help.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no kubeconfig.
    #[error(
        "no kubeconfig found: KUBECONFIG is not set, and neither {K3S} nor ~/.kube/config can be read; name one with --kubeconfig"
    )]
    NoKubeconfig,
    /// A kubeconfig cannot be used.
    #[error("cannot use the kubeconfig{}", path.as_ref().map_or_else(String::new, |path| format!(" {}", path.display())))]
    Kubeconfig {
        /// The file, where it is one.
        path: Option<PathBuf>,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// It does not answer.
    #[error("the API server {server} does not answer; check the address and that the server runs")]
    Unreachable {
        /// Its address.
        server: String,
        /// What went wrong.
        #[source]
        source: Cause,
    },
    /// The account may not do it.
    #[error(
        "the account of the kubeconfig may not {action}: {message}; have an administrator grant it, or use another --context"
    )]
    Forbidden {
        /// What was tried: `apply Deployment/search`.
        action: String,
        /// The server's words.
        message: String,
    },
    /// Others manage some of the fields.
    #[error("{object}: {}; --force-conflicts takes these fields over", conflicts(fields))]
    Conflict {
        /// Which object: `Deployment/search`.
        object: String,
        /// Which fields.
        fields: Vec<FieldConflict>,
    },
    /// The object is wrong.
    #[error("the API server refuses {object}: {message}")]
    Invalid {
        /// Which one.
        object: String,
        /// The server's words.
        message: String,
    },
    /// The server does not know the kind.
    #[error(
        "{object}: the cluster does not know the kind {kind} of {api_version}; install what brings it, or remove the object"
    )]
    UnknownKind {
        /// Which object.
        object: String,
        /// The group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
    /// It refused for another reason.
    #[error("the API server refused to {action}: {message}")]
    Refused {
        /// What was tried.
        action: String,
        /// HTTP's code; 0 where there was no answer of this form.
        code: u16,
        /// The server's words.
        message: String,
    },
}

fn conflicts(fields: &[FieldConflict]) -> String {
    fields.iter().map(|one| format!("{} is managed by {}", one.field, one.manager)).collect::<Vec<_>>().join(", ")
}

impl ApiError {
    /// Whether there was no answer at all, rather than a refusal: later there may be one.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => *code == 429 || *code >= 500,
            _ => false,
        }
    }

    /// Whether it is about a field that cannot change after an object was made.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        matches!(self, Self::Invalid { message, .. } if message.contains("immutable") || message.contains("updates to "))
    }

    /// The same about an object of another name, for one that was tried under a name of its own.
    #[must_use]
    pub fn renamed(mut self, from: &str, to: &str) -> Self {
        match &mut self {
            Self::Forbidden { action: what, message }
            | Self::Invalid { object: what, message }
            | Self::Refused { action: what, message, .. } => {
                *what = what.replace(from, to);
                *message = message.replace(from, to);
            }
            Self::Conflict { object, .. } | Self::UnknownKind { object, .. } => *object = object.replace(from, to),
            Self::NoKubeconfig | Self::Kubeconfig { .. } | Self::Unreachable { .. } => {}
        }
        self
    }

    pub(super) fn of(action: String, object: &str, server: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(action, object, &status),
            kube::Error::HyperError(_) | kube::Error::Service(_) => {
                Self::Unreachable { server: server.to_owned(), source: error.into() }
            }
            error => Self::Refused { action, code: 0, message: with_causes(&error) },
        }
    }

    fn of_status(action: String, object: &str, status: &Status) -> Self {
        let message = status.message.clone();
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let fields: Vec<FieldConflict> = causes
            .filter(|cause| cause.reason == "FieldManagerConflict")
            .map(|cause| FieldConflict {
                field: cause.field.clone(),
                manager: cause.message.trim_start_matches("conflict with ").replace('"', ""),
            })
            .collect();
        let object = object.to_owned();
        match status.code {
            401 | 403 => Self::Forbidden { action, message },
            409 if !fields.is_empty() => Self::Conflict { object, fields },
            400 | 422 => Self::Invalid { object, message },
            code => Self::Refused { action, code, message },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_conflict_names_field_and_manager_and_a_refusal_its_kind() {
        let status = |value: Value| serde_json::from_value::<Status>(value).expect("a status");
        // As the server answers a conflict.
        let conflict = status(json!({
            "status": "Failure", "reason": "Conflict", "code": 409, "message": "Apply failed with 1 conflict",
            "details": {"causes": [
                {"reason": "FieldManagerConflict", "message": "conflict with \"hpa\" using apps/v1", "field": ".spec.replicas"}
            ]},
        }));
        let error = ApiError::of_status("apply".to_owned(), "Deployment/web", &conflict);
        assert!(
            error.to_string().starts_with("Deployment/web: .spec.replicas is managed by hpa using apps/v1;"),
            "{error}"
        );
        let of = |code: u16| {
            ApiError::of_status(
                "apply".to_owned(),
                "Job/x",
                &status(json!({"code": code, "message": "field is immutable"})),
            )
        };
        assert!(matches!(of(403), ApiError::Forbidden { .. }));
        assert!(of(422).is_immutable() && !of(409).is_immutable());
        assert!(of(503).is_silence() && of(429).is_silence() && !of(404).is_silence());
    }
}
