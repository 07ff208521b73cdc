//! Request bodies, read under a cap and within their time.

use std::error::Error;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::front::Broken;

/// Decisions are small, but for an answer that an operator gives by hand.
pub(super) const LARGEST: usize = 2 << 20;

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is larger than [`LARGEST`].
    TooLarge,
    /// Its sender took too long.
    TooSlow,
    /// The connection ended.
    Broken,
}

/// Reads all of it.
///
/// # Errors
/// See [`Unread`].
pub(super) async fn read(body: Body) -> Result<Bytes, Unread> {
    match Limited::new(body, LARGEST).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) => Err(why(&*error)),
    }
}

fn why(error: &(dyn Error + 'static)) -> Unread {
    match error.downcast_ref::<Broken>() {
        Some(Broken::TooSlow) => Unread::TooSlow,
        Some(Broken::Off) => Unread::Broken,
        None if error.is::<LengthLimitError>() => Unread::TooLarge,
        None => error.source().map_or(Unread::Broken, why),
    }
}
