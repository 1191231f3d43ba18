//! Opening whole models: the two real files where they are found, and the tiny folders.

use std::path::Path;
use std::time::Instant;
use attnscope::model::source::Model;

#[test]
fn tmp() {
    for p in ["/tmp/w/m/smol.gguf", "/tmp/w/m/gemma.gguf"] {
        let t = Instant::now();
        let m = Model::open(Path::new(p)).unwrap();
        println!("{p} {:?} {:?} {} {} {:?}", t.elapsed(), m.config, m.parameters, m.weight_types, m.weights.layers[0]);
        let t = Instant::now();
        println!("{} {:?}", m.sha256().unwrap(), t.elapsed());
    }
    for e in std::fs::read_dir("/work/shared/golden/tiny").unwrap() {
        let p = e.unwrap().path();
        if !p.is_dir() { continue }
        let m = Model::open(&p).unwrap();
        println!("{} {:?} {} {}", m.id, m.config, m.parameters, m.weight_types);
    }
}
