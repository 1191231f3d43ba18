//! KV-cache policies: one file per policy over the traits in `part`, one line each in `registry`.

pub mod part;
