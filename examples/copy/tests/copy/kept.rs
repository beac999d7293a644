//! What is kept of a run: whole or not at all, whenever the writer dies, and never lost at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use burn::tensor::Device;
use copy::args::Settings;
use copy::model::{self, CopyModel};
use copy::run_folder::{Run, RunConfig, RunFolder, SavedRun};
use copy::train::Look;
use copy::{Failure, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shared::replace_file;

use crate::{TINY, assert_says, copy, device, names, parse, refused};

/// A model that was not trained, and what is kept of it.
struct Sample {
    config: RunConfig,
    model: CopyModel,
    looks: Vec<Look>,
}

impl Sample {
    fn new(device: &Device) -> Self {
        let settings: Settings = parse(TINY).unwrap().settings;
        let config = model::config(&settings, settings.vocab + 2);
        let model = CopyModel::new(&config, settings.architecture, device).unwrap();
        let look = |step| Look {
            step,
            loss: 1.0,
            first: 1.0,
            copied: 1.0,
            exact: 0.0,
            learning_rate: 0.1,
            seconds: 0.5,
        };
        let config = RunConfig { settings, model: config, text: None };
        Self { config, model, looks: (1..=LOOKS).map(look).collect() }
    }

    fn write(&self, to: &Path) -> Result<(), Failure> {
        self.write_with(to, &|folder| {
            fs::write(folder.join("picture.svg"), picture()).unwrap();
            Ok(())
        })
    }

    fn write_with(
        &self,
        to: &Path,
        pictures: &dyn Fn(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Self { config, model, looks } = self;
        RunFolder::check(to)?.write(&Run { config, model, looks, pictures })
    }

    /// Asserts that all of the run is in the folder.
    #[track_caller]
    fn assert_whole(&self, folder: &Path) {
        let saved = SavedRun::open(folder).unwrap();
        saved.load(self.model.clone(), &self.config.model).unwrap();
        let history = fs::read_to_string(folder.join("history.csv")).unwrap();
        assert_eq!(history.lines().count(), 1 + LOOKS, "{}", folder.display());
        assert_eq!(fs::read_to_string(folder.join("picture.svg")).unwrap(), picture());
    }
}

const LOOKS: usize = 500;

fn picture() -> String {
    "<svg/>\n".repeat(5000)
}

/// Says to the writer below where it writes.
const TO: &str = "COPY_TEST_WRITES_TO";
/// Bytes of the file that the writer replaces.
const BYTES: usize = 1 << 20;

#[test]
#[ignore = "the writer of the test below, which kills it"]
fn writes_until_it_is_killed() {
    let Some(to) = std::env::var_os(TO).map(PathBuf::from) else { return };
    let sample = Sample::new(&device());
    for run in 0.. {
        sample.write(&to.join(format!("new-{run}"))).unwrap();
        let there = to.join(format!("there-{run}"));
        fs::create_dir(&there).unwrap();
        sample.write(&there).unwrap();
        let letter = if run % 2 == 0 { b'a' } else { b'b' };
        replace_file(&to.join("file"), &[letter; BYTES]).unwrap();
    }
}

#[test]
fn a_writer_that_is_killed_leaves_the_old_or_the_new_whole() {
    let sample = Sample::new(&device());
    let mut random = StdRng::seed_from_u64(3);
    let [mut kills, mut whole, mut unfinished] = [0; 3];
    // When a kill comes is chance: some have to come while it writes.
    while kills < 12 || unfinished < 3 {
        assert!(kills < 500, "{unfinished} pieces unfinished after {kills} kills");
        kills += 1;
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kept::writes_until_it_is_killed", "--ignored"])
            .env(TO, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !folder.path().join("file").exists() {
            assert_eq!(writer.try_wait().unwrap(), None, "the writer ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
        writer.kill().unwrap();
        writer.wait().unwrap();

        for name in names(folder.path()) {
            let path = folder.path().join(&name);
            if name == "file" {
                let bytes = fs::read(path).unwrap();
                assert_eq!(bytes.len(), BYTES);
                assert!(bytes.iter().all(|byte| byte == &bytes[0]));
            } else if name.starts_with(".unfinished-") {
                unfinished += 1;
            } else if path.join("config.json").exists() {
                sample.assert_whole(&path);
                whole += 1;
            } else {
                // One that was there before may not be a run yet; a new one has its name when it is.
                assert!(name.starts_with("there-"), "{name}: {:?}", names(&path));
                unfinished += 1;
            }
        }
    }
    assert!(whole >= 12, "{whole} whole runs");
}

#[test]
fn a_folder_that_is_there_is_written_into() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there");
    fs::create_dir(&there).unwrap();
    // Whoever stands in it, as a shell after `cd there` and with `--out .`, still does.
    let inside = fs::File::open(&there).unwrap();
    let sample = Sample::new(&device());
    sample.write(&there).unwrap();
    sample.assert_whole(&there);
    assert_eq!(names(&there), ["config.json", "history.csv", "model.bpk", "picture.svg"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |of: fs::Metadata| (of.dev(), of.ino());
        assert_eq!(id(inside.metadata().unwrap()), id(fs::metadata(&there).unwrap()));
    }
    drop(inside);
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_or_refused_before_training() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("place")).unwrap();
    symlink(at("place"), at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    let out = |name: &str| format!("{TINY} --out {}", at(name).display());
    let (verdict, printed, _) = copy(&out("link")).unwrap();
    assert_eq!(verdict, Verdict::NotProved, "{printed}");
    assert!(at("place").join("model.bpk").exists());
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
    // Training would take hours.
    let long = |name: &str| format!("--steps 1000000 --out {}", at(name).display());
    assert_says(&refused(&long("dangling")), &["--out", "a link that leads nowhere"]);
    assert_says(&refused(&long("dangling/run")), &["--out: cannot write to"]);
    assert_says(&refused(&long("new/..")), &["--out", "the name of a folder"]);
    assert_says(&refused(&long("place")), &["--out", "empty folder"]);
}

#[test]
fn what_cannot_be_written_at_the_end_is_kept_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::new(&device());
    let Sample { config, model, looks } = &sample;
    let pictures = |to: &Path| {
        fs::write(to.join("picture.svg"), picture()).unwrap();
        Ok(())
    };
    let run = Run { config, model, looks, pictures: &pictures };
    // While the model was trained, somebody put a file where its folder was to be.
    let out = RunFolder::check(&folder.path().join("deep/run")).unwrap();
    fs::write(folder.path().join("deep"), "").unwrap();
    let failure = out.write(&run).unwrap_err();
    assert_eq!(failure.code(), 4);
    let message = failure.to_string();
    assert_says(&message, &["--out", "deep/run", "the run is kept in "]);
    let kept = message.split("the run is kept in ").nth(1).unwrap();
    let kept = Path::new(kept.strip_suffix(" instead").unwrap());
    sample.assert_whole(kept);
    fs::remove_dir_all(kept).unwrap();

    // Pictures that can't be drawn take nothing with them.
    let out = folder.path().join("run");
    let failed = |_: &Path| Err(Failure::Run("no pencil".into()));
    let failure = sample.write_with(&out, &failed).unwrap_err();
    assert_says(&failure.to_string(), &["no pencil", "kept without all of its pictures"]);
    assert_eq!(names(&out), ["config.json", "history.csv", "model.bpk"]);
}
