//! `tail`, `show`, `doctor`, `demo`, `completions` and `man`.

mod access;
pub(crate) mod crafted;
mod demo;
mod doctor;
mod hostile;
mod large;
mod live;
mod mended;
mod record;
mod shell;
mod tail;
mod terminal;
