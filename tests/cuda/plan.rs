//! What a driver can be given for a card.

use attnscope::backend::cuda::image::{ImageError, Plan, plan};
use attnscope::backend::cuda::nvrtc::Target;
use attnscope::backend::cuda::version::Version;

const CARDS: [u32; 8] = [75, 80, 86, 87, 89, 90, 100, 120];

fn planned(nvrtc: Option<(u32, u32)>, driver: (u32, u32), card: u32) -> Result<Plan, ImageError> {
    let nvrtc = nvrtc.map(|(major, minor)| (Version::new(major, minor), CARDS.as_slice()));
    plan(nvrtc, Version::new(driver.0, driver.1), card)
}

#[test]
fn a_driver_gets_what_it_takes() {
    let compiled = |nvrtc, driver, card| match planned(Some(nvrtc), driver, card).expect("a plan") {
        Plan::Compile(target) => target.to_string(),
        Plan::Embedded { why } => why,
    };
    assert_eq!(compiled((12, 8), (13, 0), 90), "compute_90");
    assert_eq!(compiled((13, 0), (13, 0), 100), "compute_100");
    // A card that NVRTC does not know yet: the next older one's PTX.
    assert_eq!(compiled((13, 0), (13, 0), 103), "compute_100");
    // A newer minor version makes PTX that the driver refuses, but machine code that it takes.
    assert_eq!(compiled((13, 1), (13, 0), 103), "sm_100");
    assert_eq!(compiled((12, 8), (12, 2), 90), "sm_90");
    assert_eq!(compiled((12, 8), (12, 2), 89), "sm_89");
    // Machine code of another generation does not run.
    assert!(compiled((12, 8), (12, 2), 110).contains("newer than the driver"));
    assert!(compiled((13, 0), (12, 9), 90).contains("NVRTC 13.0 is newer than the driver, which knows CUDA 12.9"));
    assert_eq!(planned(None, (12, 1), 90).expect("a plan"), Plan::Embedded { why: "no NVRTC was found".into() });
    let old = plan(Some((Version::new(12, 0), &[50, 75])), Version::new(12, 4), 80).expect("a plan");
    assert_eq!(old, Plan::Embedded { why: "NVRTC 12.0 compiles for no such card".into() });
}

#[test]
fn what_is_too_old_is_said() {
    let said = |nvrtc, driver, card| planned(nvrtc, driver, card).expect_err("too old").to_string();
    assert_eq!(said(None, (12, 0), 90), "the driver is too old: it knows CUDA 12.0, 12.1 is needed");
    assert_eq!(said(Some((13, 0)), (11, 8), 80), "the driver is too old: it knows CUDA 11.8, 12.1 is needed");
    let card = "a card of compute capability 7.5 is too old: kernels need 8.0 or newer";
    assert_eq!(said(Some((13, 0)), (13, 0), 75), card);
}

#[test]
fn versions_compare_and_read_as_cuda_writes_them() {
    assert_eq!(Version::of_number(12080), Version::new(12, 8));
    assert_eq!(Version::of_number(13000).to_string(), "13.0");
    assert_eq!(Version::of_number(-1), Version::new(0, 0));
    assert!(Version::new(12, 10) > Version::new(12, 9) && Version::new(13, 0) > Version::new(12, 10));
    assert_eq!((Target::Ptx(80).to_string(), Target::Cubin(90).to_string()), ("compute_80".into(), "sm_90".into()));
}
