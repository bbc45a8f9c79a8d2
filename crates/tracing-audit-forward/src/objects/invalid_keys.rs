//! Keys of a bucket that are not valid paths, such as `logs//x`. `object_store` rejects the whole page of a
//! list that has one, so they are removed before it parses the page.

use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path;

/// The keys that were removed since the last call.
#[derive(Debug, Clone, Default)]
pub(super) struct InvalidKeys(Arc<Mutex<Vec<String>>>);

impl InvalidKeys {
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the page without the entries whose keys are not valid paths.
    pub(super) fn without(&self, page: &[u8]) -> Vec<u8> {
        let page = String::from_utf8_lossy(page);
        let page = self.without_entries(&page, "Contents", "Key");
        self.without_entries(&page, "CommonPrefixes", "Prefix").into_bytes()
    }

    fn without_entries(&self, page: &str, entry: &str, name: &str) -> String {
        let (start, end) = (format!("<{entry}>"), format!("</{entry}>"));
        let mut kept = String::with_capacity(page.len());
        let mut rest = page;
        while let Some((before, behind)) = rest.split_once(&start) {
            kept.push_str(before);
            let (inner, after) = behind.split_once(&end).unwrap_or((behind, ""));
            match key(inner, name) {
                Some(key) if !is_path(&key) => {
                    self.0.lock().unwrap_or_else(PoisonError::into_inner).push(key);
                }
                _ => kept.extend([&start, inner, &end]),
            }
            rest = after;
        }
        kept.push_str(rest);
        kept
    }
}

fn is_path(key: &str) -> bool {
    !key.starts_with('/') && Path::parse(key).is_ok()
}

/// Returns the unescaped text of an element.
fn key(entry: &str, name: &str) -> Option<String> {
    let (_, rest) = entry.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let mut key = String::with_capacity(text.len());
    let mut parts = text.split('&');
    key.push_str(parts.next()?);
    for part in parts {
        let (escape, behind) = part.split_once(';')?;
        key.push(match escape {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let number = number.strip_prefix('#')?;
                let number = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                char::from_u32(number.ok()?)?
            }
        });
        key.push_str(behind);
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_not_valid_paths_are_removed() {
        let of = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
        let prefix = |key: &str| format!("<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>");
        let good = [of("a/b"), of("a&amp;&#x41;"), prefix("a/b/")].concat();
        let invalid_keys = [of("a//b"), of("a/&#x1;"), of("a/../b"), prefix("a//"), prefix("/")];
        let keys = InvalidKeys::default();
        let page = |inner: &str| format!("<R><Prefix>a/</Prefix>{inner}<IsTruncated>false</IsTruncated></R>");
        assert_eq!(keys.without(page(&good).as_bytes()), page(&good).into_bytes());
        assert_eq!(keys.take(), [""; 0]);
        let mixed = page(
            &[
                &invalid_keys[0][..],
                &invalid_keys[1],
                &good,
                &invalid_keys[2],
                &invalid_keys[3],
                &invalid_keys[4],
            ]
            .concat(),
        );
        assert_eq!(keys.without(mixed.as_bytes()), page(&good).into_bytes());
        assert_eq!(keys.take(), ["a//b", "a/\u{1}", "a/../b", "a//", "/"]);
        assert_eq!(keys.take(), [""; 0]);
    }
}
