//! A file that a cache is saved to is the old or the new one, whenever the writer is killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use burn::module::Module;
use burn_decoder::cache::{CacheConfig, KvCache};
use burn_decoder::decoder::{Batch, LanguageModel, LanguageModelConfig};

use super::{plain, tokens};
use crate::backends::any_device;

/// Tells the test below that it is the writer, and where.
const FOLDER: &str = "BURN_DECODER_TEST_WRITER";
const LENGTHS: [usize; 2] = [300, 500];
/// Kills at least, and at most until enough of them came while the writer wrote: which ones do is chance.
const KILLS: [usize; 2] = [25, 1000];
const WHILE_WRITING: usize = 3;

fn config() -> LanguageModelConfig {
    plain()
}

fn cache_of(model: &LanguageModel, length: usize) -> KvCache {
    let row: Vec<i64> = (0..length as i64).map(|i| i * i % 17).collect();
    let all = tokens(&vec![row; 8], &model.embedding.weight.device());
    let mut cache = CacheConfig::new().init().unwrap();
    model.forward_cached(all, Batch::new(), &mut cache).unwrap();
    cache
}

fn paths(folder: &Path) -> [PathBuf; 3] {
    ["model.bpk", "cache.safetensors", "started"].map(|name| folder.join(name))
}

/// A user who names a link means the file behind it.
#[cfg(unix)]
#[test]
fn a_link_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = config().init(&any_device()).unwrap();
    std::fs::create_dir(at("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere/cache", at("link")).unwrap();
    for length in LENGTHS {
        cache_of(&model, length).save(at("link"), &model).unwrap();
        assert!(std::fs::symlink_metadata(at("link")).unwrap().is_symlink());
        let loaded = KvCache::load(at("elsewhere/cache"), &model).unwrap();
        assert_eq!(loaded.tokens(), length);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// Run by the test below in a process of its own: saves one cache and the other until it is killed.
#[test]
#[ignore = "runs for ever; started by the_file_is_whole_whenever_its_writer_is_killed"]
fn writer() {
    let folder = PathBuf::from(std::env::var(FOLDER).expect("the folder to write to"));
    let [model, cache, started] = paths(&folder);
    let model = config().init(&any_device()).unwrap().load_file(&model);
    let caches = LENGTHS.map(|length| cache_of(&model, length));
    std::fs::write(started, "").unwrap();
    loop {
        caches.iter().for_each(|kept| kept.save(&cache, &model).unwrap());
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["cache::kept::writer", "--exact", "--ignored"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn the_file_is_whole_whenever_its_writer_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let [model_path, path, started] = paths(folder.path());
    let model = config().init(&any_device()).unwrap();
    model.clone().save_file(&model_path).unwrap();
    cache_of(&model, LENGTHS[0]).save(&path, &model).unwrap();
    let [mut kills, mut unfinished] = [0; 2];
    while kills < KILLS[0] || unfinished < WHILE_WRITING {
        assert!(kills < KILLS[1], "{unfinished} of {kills} writers were killed while they wrote");
        kills += 1;
        let mut writer = start(folder.path());
        while !started.exists() {
            assert!(writer.try_wait().unwrap().is_none(), "the writer ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(now.subsec_nanos()) % 30_000));
        writer.kill().unwrap();
        writer.wait().unwrap();
        std::fs::remove_file(&started).unwrap();
        let loaded = KvCache::load(&path, &model).unwrap();
        assert!(LENGTHS.contains(&loaded.tokens()), "{} tokens", loaded.tokens());
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().ends_with(".unfinished") {
                unfinished += 1;
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}
