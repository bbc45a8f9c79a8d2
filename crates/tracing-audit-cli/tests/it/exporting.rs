//! `export` and `report`.

#[path = "exporting/access.rs"]
mod access;
#[path = "exporting/exports.rs"]
mod exports;
#[path = "exporting/forge.rs"]
pub(crate) mod forge;
#[path = "exporting/hard.rs"]
mod hard;
#[path = "exporting/pages.rs"]
mod pages;
#[path = "exporting/pictures.rs"]
mod pictures;
