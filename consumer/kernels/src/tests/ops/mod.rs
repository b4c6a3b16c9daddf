//! The operations' checks.

mod decoder_refusals;
mod latent_refusals;
mod refusals;

use crate::KernelError;

fn assert_shape_refused<T: std::fmt::Debug>(
    result: Result<T, KernelError>,
    op: &str,
    operand: &str,
) {
    match result.unwrap_err() {
        KernelError::Shape { op: actual_op, operand: actual, .. } => {
            assert_eq!((actual_op, actual), (op, operand));
        }
        other => panic!("{other}"),
    }
}
