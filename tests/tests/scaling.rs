//! The autoscaler with real workers: from zero to the load and back, and what it survives.
//!
//! Workers run the tiny model, and jobs take as long as a test says: what matters is who is launched when.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scaling {
    mod deadlines;
    mod faults;
    mod lead;
    mod scale_in;
    mod size;
    mod tokens;
    mod unknown;
}
