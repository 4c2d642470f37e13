//! Bytes as the only segment of a log: opened, replayed, written into, opened again.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use cairn::base::{Lsn, SystemClock};
use cairn::store::{self, NewCollection, Operation, WriteRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let data_dir = PathBuf::from(format!("/dev/shm/cairn-fuzz-{}", std::process::id()));
    let _ = fs::remove_dir_all(&data_dir);
    fs::create_dir_all(data_dir.join("log")).expect("memory for the directory");
    fs::write(data_dir.join("log/00000000000000000001.seg"), bytes).expect("memory for the file");
    let open = || {
        let config = store::Config { reserve_bytes: 0, ..store::Config::new(data_dir.clone(), Arc::new(SystemClock)) };
        store::open(config)
    };
    let Ok((mut writer, reader, _)) = open() else { return };
    let before = reader.changes_after(Lsn::ZERO).filter(Result::is_ok).count();
    let _ = reader.affected(10);
    let [name, description, model] = ["fuzz", "", ""].map(str::to_owned);
    let create = Operation::CreateCollection(NewCollection { name, description, model, dimensions: 1 });
    let written = writer.commit(vec![WriteRequest { operations: vec![create], ..WriteRequest::default() }]).is_ok();
    let _ = writer.close();
    drop(reader);
    let (_writer, reader, _) = open().expect("what was opened once can be opened again");
    let after = reader.changes_after(Lsn::ZERO).filter(Result::is_ok).count();
    assert!(after >= before, "{after} of {before} changes are left");
    if written {
        assert!(reader.collection("fuzz").is_some());
    }
});
