//! The part of the autoscaler's environment that a worker gets: where the broker and the store are, and settings, but
//! no passwords of anything else.

/// The settings that a worker reads, by the beginning of their variables' names.
const FOR_WORKERS: [&str; 12] = [
    "FOREBAY_AMQP_URL",
    "FOREBAY_REDIS_URL",
    "FOREBAY_MODELS_DIR",
    "FOREBAY_TLS__",
    "FOREBAY_MODELS__",
    "FOREBAY_LIMITS__",
    "FOREBAY_QUEUES__",
    "FOREBAY_BROKER__",
    "FOREBAY_STORE__",
    "FOREBAY_WORKER__",
    "FOREBAY_TELEMETRY__",
    "FOREBAY_FAIL_POINTS",
];
/// The parts of names by which variables with secrets of other programs are known.
const SECRET: [&str; 5] = ["PASSWORD", "SECRET", "TOKEN", "CREDENTIAL", "_KEY"];

/// Whether a worker gets this variable of Forebay's own.
pub fn is_workers_setting(name: &str) -> bool {
    FOR_WORKERS.iter().any(|known| name.starts_with(known))
}

/// Whether a process that is a worker gets this variable: what the system and the libraries need it does, secrets and
/// settings of others it does not.
pub fn is_for_workers(name: &str) -> bool {
    if name == "FOREBAY_CONFIG" || is_workers_setting(name) {
        return true;
    }
    let upper = name.to_uppercase();
    let others = upper.starts_with("FOREBAY_") || upper.starts_with("KEDA_");
    !others && !SECRET.iter().any(|part| upper.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gets_broker_store_and_its_settings_and_no_other_secret() {
        for name in [
            "PATH",
            "HOME",
            "LD_LIBRARY_PATH",
            "CUDA_VISIBLE_DEVICES",
            "FOREBAY_CONFIG",
            "FOREBAY_AMQP_URL",
            "FOREBAY_REDIS_URL",
            "FOREBAY_MODELS_DIR",
            "FOREBAY_MODELS__M__DTYPE",
            "FOREBAY_WORKER__GRACE_S",
            "FOREBAY_TLS__KEY_FILE",
        ] {
            assert!(is_for_workers(name), "{name}");
        }
        for name in [
            "FOREBAY_MANAGEMENT_URL",
            "FOREBAY_GATEWAY_URL",
            "FOREBAY_API_KEY",
            "FOREBAY_ADMIN_KEY",
            "FOREBAY_AUTOSCALER__DOCKER__SOCKET",
            "KEDA_RABBITMQ_HOST",
            "RABBITMQ_PASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "github_token",
        ] {
            assert!(!is_for_workers(name), "{name}");
        }
    }
}
