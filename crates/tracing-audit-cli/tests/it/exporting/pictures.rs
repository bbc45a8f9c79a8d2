//! The page in a browser: its light and dark colours, and its width on a phone.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::forge::two_days;
use crate::place::{Place, skip};

/// Runs the browser in this directory, with its own profile.
fn browser(place: &Place, arguments: &[&str]) -> Option<String> {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--allow-file-access-from-files",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .current_dir(place.path("."))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Loads the page at this width. Returns the width that it needs, and its background colour.
fn measured(place: &Place, page: &str, width: u32, settings: &str) -> Option<(u32, String)> {
    let frame = format!(
        "<!DOCTYPE html><body><iframe id=f src={page} width={width} height=900 style='border:0'></iframe><script>
        onload = () => {{
            const inside = document.getElementById('f').contentDocument;
            const style = getComputedStyle.call(document.getElementById('f').contentWindow, inside.body);
            document.body.innerHTML = '<p>FOUND ' + inside.documentElement.scrollWidth + ' ' + style.backgroundColor + ' END</p>';
        }}</script>"
    );
    fs::write(place.path("frame.html"), frame).unwrap();
    let url = format!("file://{}", place.path("frame.html").display());
    let dom = browser(
        place,
        &[settings, "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", &url],
    )?;
    let found = dom.split_once("FOUND ").unwrap_or_else(|| panic!("{dom}")).1.split_once(" END").unwrap().0;
    let (width, background) = found.split_once(' ').unwrap();
    Some((width.parse().unwrap(), background.to_owned()))
}

const LIGHT: &str = "--blink-settings=preferredColorScheme=1";
const DARK: &str = "--blink-settings=preferredColorScheme=0";

#[test]
fn a_page_is_light_and_dark_and_fits_a_phone() {
    let place = Place::new().0;
    two_days(&place.path("days"), 60);
    assert_eq!(place.run("report days -o intact.html").0, 0);
    let path = place.path("days/audit-000-00000002.jsonl");
    let line = fs::read_to_string(&path).unwrap();
    fs::write(&path, line.replacen("\"203.0.113.9\"", "\"203.0.113.8\"", 3)).unwrap();
    assert_eq!(place.run("report days -o damaged.html").0, 1);
    for page in ["intact", "damaged"] {
        for (theme, settings, background) in
            [("light", LIGHT, "rgb(255, 255, 255)"), ("dark", DARK, "rgb(20, 24, 30)")]
        {
            for (width, height) in [(360, 9000), (390, 9000), (1200, 5500)] {
                let Some(found) = measured(&place, &format!("{page}.html"), width, settings) else {
                    return skip("a_page_is_light_and_dark_and_fits_a_phone", "chromium is not there");
                };
                assert_eq!(found, (width, background.to_owned()), "{page} {theme} {width}");
                let name = format!("report-{page}-{theme}-{width}.png");
                let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
                let url = format!("file://{}", place.path(&format!("{page}.html")).display());
                let size = format!("--window-size={width},{height}");
                browser(&place, &[settings, &size, &format!("--screenshot={}", picture.display()), &url]);
                assert!(fs::metadata(&picture).unwrap().len() > 50_000, "{}", picture.display());
            }
        }
    }
}
