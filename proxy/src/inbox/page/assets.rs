//! The page's own script, style and icon, kept in the binary and named by their content.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use holdfast_store::hash_fields;

/// One file.
struct Asset {
    stem: &'static str,
    ending: &'static str,
    kind: &'static str,
    content: &'static str,
    /// `stem-HASH.ending`, so that a browser never mixes versions and may keep each for ever.
    name: String,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    let asset = |stem, ending, kind, content: &'static str| {
        let hash = hash_fields("holdfast/asset", &[content.as_bytes()]).to_string();
        Asset { stem, ending, kind, content, name: format!("{stem}-{}.{ending}", &hash[..12]) }
    };
    [
        asset("page", "css", "text/css; charset=utf-8", include_str!("assets/page.css")),
        asset("page", "js", "text/javascript; charset=utf-8", include_str!("assets/page.js")),
        asset("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ]
});

/// Where the file with this ending is.
pub(super) fn url(ending: &str) -> String {
    let asset = ASSETS.iter().find(|asset| asset.ending == ending).expect("there is one of each");
    format!("/assets/{}", asset.name)
}

/// `GET /assets/{name}`
pub(super) async fn get(Path(name): Path<String>) -> Response {
    let plain = |asset: &&Asset| name.strip_prefix(asset.stem) == Some(&format!(".{}", asset.ending));
    if let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) {
        let kept = "public, max-age=31536000, immutable";
        return ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, kept)], asset.content)
            .into_response();
    }
    match ASSETS.iter().find(plain) {
        Some(asset) => ([(header::CONTENT_TYPE, asset.kind)], asset.content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
