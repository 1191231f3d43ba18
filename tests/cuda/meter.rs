//! A card's own figures from an NVML without a card, and ranges in an NVTX without a tool.

use std::ffi::{CStr, CString, c_char, c_uint};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use attnscope::backend::cuda::libraries::{Found, Library};
use attnscope::backend::cuda::places::Way;
use attnscope::backend::cuda::shared::open;
use attnscope::meter::card::CardSample;
use attnscope::meter::nvml::{Card, Which};
use attnscope::meter::nvtx::Nvtx;
use attnscope::meter::watch::{CardMeter, Look};

use super::emulator;

const LONG: Duration = Duration::from_secs(20);

/// A folder with the fake libraries.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-meter");
        std::fs::create_dir_all(&folder).expect("a folder for the fakes");
        for (source, name) in [("fake_nvml", "libnvidia-ml.so.1"), ("fake_nvtx", "libnvToolsExt.so.1")] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda").join(source).with_extension("cpp");
            emulator::compile(&source, &folder.join(name), &["-lpthread"]);
        }
        folder
    })
}

/// A fake NVML of a test's own: what one test plans does not reach the others.
struct Fake {
    path: PathBuf,
    library: libloading::Library,
}

impl Fake {
    fn new(name: &str) -> Self {
        let path = folder().join(format!("{name}.so"));
        std::fs::copy(folder().join("libnvidia-ml.so.1"), &path).expect("a copy of the fake");
        // SAFETY: our own; loading it runs nothing.
        let library = unsafe { libloading::Library::new(&path) }.expect("the fake");
        Self { path, library }
    }

    fn plan(&self, what: &str, function: &str, number: u32) {
        let name = CString::new(function).expect("a name");
        // SAFETY: as fake_nvml.cpp declares both.
        unsafe {
            let plan: libloading::Symbol<unsafe extern "C" fn(*const c_char, c_uint)> =
                self.library.get(what.as_bytes()).expect("the fake's");
            plan(name.as_ptr(), number);
        }
    }

    fn look(&self) -> Option<CardSample> {
        let mut card = Card::at(&self.path, Which::Index(0)).expect("the fake card");
        card.look(&|| true)
    }
}

fn everything() -> CardSample {
    CardSample {
        age_ms: 0,
        busy_percent: Some(87),
        memory_busy_percent: Some(61),
        process_bytes: Some(3 << 30),
        used_bytes: Some(40 << 30),
        total_bytes: Some(141 << 30),
        power_mw: Some(412_500),
        power_limit_mw: Some(700_000),
        temperature_c: Some(57),
        sm_mhz: Some(1980),
        memory_mhz: Some(3201),
        to_card_kb_s: Some(12_000),
        from_card_kb_s: Some(2500),
        throttle: Some(4),
    }
}

#[test]
fn every_field_comes_through() {
    assert_eq!(Fake::new("all").look(), Some(everything()));
}

#[test]
fn each_field_may_be_missing_and_the_others_stay() {
    type Forget = fn(&mut CardSample);
    let missing: [(&str, Forget); 9] = [
        ("nvmlDeviceGetUtilizationRates", |s| (s.busy_percent, s.memory_busy_percent) = (None, None)),
        ("nvmlDeviceGetMemoryInfo_v2", |s| (s.used_bytes, s.total_bytes) = (None, None)),
        ("nvmlDeviceGetComputeRunningProcesses_v3", |s| s.process_bytes = None),
        ("nvmlDeviceGetPowerUsage", |s| s.power_mw = None),
        ("nvmlDeviceGetEnforcedPowerLimit", |s| s.power_limit_mw = None),
        ("nvmlDeviceGetTemperature", |s| s.temperature_c = None),
        ("nvmlDeviceGetClockInfo", |s| (s.sm_mhz, s.memory_mhz) = (None, None)),
        ("nvmlDeviceGetPcieThroughput", |s| (s.to_card_kb_s, s.from_card_kb_s) = (None, None)),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", |s| s.throttle = None),
    ];
    const NOT_SUPPORTED: u32 = 3;
    let fake = Fake::new("missing");
    for (function, forget) in missing {
        fake.plan("fake_fail", function, NOT_SUPPORTED);
        let mut expected = everything();
        forget(&mut expected);
        assert_eq!(fake.look(), Some(expected), "without {function}");
        fake.plan("fake_fail", function, 0);
    }
}

#[test]
fn a_card_that_is_lost_is_not_seen() {
    const LOST: u32 = 15;
    let fake = Fake::new("lost");
    let mut card = Card::at(&fake.path, Which::Index(0)).expect("the fake card");
    assert!(card.look(&|| true).is_some());
    fake.plan("fake_fail", "nvmlDeviceGetHandleByIndex_v2", LOST);
    assert_eq!(card.look(&|| true), None);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let fake = Fake::new("opening");
    let why = |which| Card::at(&fake.path, which).err().expect("no card");
    assert!(why(Which::Index(1)).starts_with("NVML, Index(1): "), "{}", why(Which::Index(1)));
    assert!(why(Which::Uuid("GPU-0".into())).contains("GPU-0"));
    assert!(Card::at(&fake.path, Which::Uuid("GPU-11111111-2222-3333-4444-555555555555".into())).is_ok());
    fake.plan("fake_fail", "nvmlInit_v2", 9);
    assert!(why(Which::Index(0)).starts_with("NVML: "));
    assert!(Card::at(Path::new("/nowhere/libnvidia-ml.so.1"), Which::Index(0)).is_err());
}

#[test]
fn a_call_that_hangs_leaves_the_last_sample_with_its_age() {
    let fake = Fake::new("hanging");
    let path = fake.path.clone();
    let (every, deadline) = (Duration::from_millis(30), Duration::from_millis(300));
    let meter = CardMeter::with(move || Card::at(&path, Which::Index(0)), every, deadline).expect("a thread");
    let first = meter.first(LONG).expect("the first look");
    assert_eq!(CardSample { age_ms: 0, ..first }, everything());
    fake.plan("fake_fail", "nvmlDeviceGetTemperature", 3);
    fake.plan("fake_sleep", "nvmlDeviceGetPowerUsage", 5000);
    // what was under way may still come
    std::thread::sleep(Duration::from_millis(400));
    let then = Instant::now();
    let [early, late] = [0, 300].map(|ms| {
        std::thread::sleep(Duration::from_millis(ms));
        meter.latest().expect("still there")
    });
    assert!(late.age_ms >= early.age_ms + 300 && early.age_ms >= 100, "{early:?} {late:?}");
    drop(meter);
    assert!(then.elapsed() < Duration::from_secs(3), "nobody waits for the driver");
}

/// `attnscope doctor --json` with the fakes and nothing else of CUDA.
fn doctor(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attnscope"));
    command.args(["doctor", "--json"]);
    for name in ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "HOME"] {
        command.env_remove(name);
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-home");
    command.env("ATTNSCOPE_HOME", home).env("PATH", "/nowhere").env("ATTNSCOPE_CUDA_LIBRARIES", folder());
    command.envs(variables.iter().copied()).output().expect("the program runs")
}

fn card_now(variables: &[(&str, &str)]) -> (String, bool) {
    let output = doctor(variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let fact = &report["sections"]["NVIDIA"]["card 0 now"];
    (fact["found"].as_str().unwrap_or_default().to_owned(), fact["warn"].as_bool().unwrap_or_default())
}

#[test]
fn the_doctor_tells_what_a_card_is_doing() {
    let (words, warn) = card_now(&[]);
    assert_eq!(
        words,
        "busy 87 %, memory busy 61 %, 40.00 GiB of 141.00 GiB used, 412 W of 700 W, 57 °C, SM 1980 MHz, memory 3201 MHz, to card 12.0 MB/s, from card 2.5 MB/s, clocks held down: power cap"
    );
    assert!(!warn);
    let (words, _) = card_now(&[("FAKE_NVML_FAIL", "nvmlDeviceGetPowerUsage:3,nvmlDeviceGetUtilizationRates:3")]);
    assert!(words.starts_with("busy –, memory busy –, 40.00 GiB") && words.contains(", – of 700 W"), "{words}");
}

#[test]
fn the_doctor_does_not_wait_for_a_card_that_hangs() {
    let start = Instant::now();
    let (words, warn) = card_now(&[("FAKE_NVML_SLEEP", "nvmlDeviceGetTemperature:30000")]);
    assert!(words.contains("does not answer") && warn, "{words}");
    assert!(start.elapsed() < LONG);
}

#[test]
fn ranges_stand_inside_each_other() {
    let path = folder().join("libnvToolsExt.so.1");
    let found = Found {
        library: Library::Nvtx,
        version: 1,
        opened_by: path.clone(),
        file: path,
        way: Way::Named,
        before: Vec::new(),
    };
    let library = open(&found).expect("the fake");
    let nvtx = Nvtx::of(&library).expect("both functions");
    nvtx.push(c"layer 3");
    nvtx.push(c"layer 3 → norm");
    nvtx.pop();
    nvtx.push(c"layer 3 → down");
    nvtx.pop();
    nvtx.pop();
    nvtx.pop();
    // SAFETY: as fake_nvtx.cpp declares it; the text stays until the next range ends.
    let ended = unsafe {
        let ended: unsafe extern "C" fn() -> *const c_char = library.function("fake_ended").expect("the fake's");
        CStr::from_ptr(ended()).to_str().expect("text")
    };
    assert_eq!(ended, "2 layer 3 → norm\n2 layer 3 → down\n1 layer 3\n");
}
