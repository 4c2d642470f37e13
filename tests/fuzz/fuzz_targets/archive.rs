//! Bytes as a snapshot in one file, brought into a repository.
#![no_main]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cairn::base::{Lsn, SystemClock, UnixMillis};
use cairn::snapshot::{self, Host, Live, NoProgress, Probe, Retention, Schedule, Snapshots};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

/// Nothing is opened: bringing a file in needs no node.
struct Nobody;

impl Host for Nobody {
    fn open(
        &self,
        _: &Path,
        _: UnixMillis,
        _: &dyn Fn(Lsn, Lsn),
    ) -> Result<Box<dyn Probe>, Box<dyn Error + Send + Sync>> {
        Err("not here".into())
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

fuzz_target!(|bytes: &[u8]| {
    let place = PathBuf::from(format!("/dev/shm/cairn-fuzz-archive-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).expect("memory for the directory");
    let file = place.join("x.cairn-snapshot");
    fs::write(&file, bytes).expect("memory for the file");
    let config = snapshot::Config {
        fetch: cairn::fetch::Config::default(),
        fetched: cairn::fetch::Metrics::default(),
        data_dir: place.join("data"),
        target: None,
        key_file: None,
        live: Live {
            schedule: Schedule { interval: Duration::from_secs(60), verify_interval: Duration::from_secs(60) },
            retention: Retention {
                daily: 7,
                weekly: 4,
                monthly: 6,
                max_bytes: None,
                point_in_time: Duration::from_secs(60),
            },
            configuration: String::new(),
        },
        clock: Arc::new(SystemClock),
    };
    let snapshots = Snapshots::new(config, Arc::new(Nobody), RUNTIME.handle().clone());
    if let Ok(manifest) = snapshots.import(&file, &NoProgress) {
        assert!(manifest.segments.iter().all(|segment| !segment.file.contains('/')));
    }
});
