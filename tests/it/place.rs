//! The location of a log: its file system, its parents, its name, and who else may read it.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tracing_audit::{AuditLog, Error, verify};

use crate::support::{child, fresh, is_root, run, segments, skip, with_layer};

/// Plays the role of the child process, and prints the result.
pub(crate) fn play(scenario: &str, path: &Path) {
    match scenario {
        "open" => match AuditLog::open(path) {
            Ok(log) => {
                println!("\n@opened");
                for notice in &log.recovery().notices {
                    println!("@{notice}");
                }
                log.close().unwrap();
            }
            Err(error) => println!("\n@{error}"),
        },
        "verify" => {
            let report = verify(path).unwrap();
            println!("\n@{}", report.verdict());
            for what in report.not_checked() {
                println!("@{}: {}", what.kind(), what.message());
            }
        }
        other => panic!("no such scenario: {other}"),
    }
}

/// Returns the command of a child with another program in front of it.
fn behind(program: &[&str], command: &Command) -> Command {
    let own = command.get_program().to_str().unwrap();
    copied_behind(&[program, &[own]].concat(), command)
}

/// Returns the same command, with a copy of the child's program.
fn copied_behind(program: &[&str], command: &Command) -> Command {
    let mut whole = Command::new(program[0]);
    whole.args(&program[1..]).args(command.get_args());
    whole.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    whole.stdin(Stdio::null());
    whole
}

#[track_caller]
fn said(output: &Output) -> Vec<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let said: Vec<String> =
        stdout.lines().filter_map(|line| line.strip_prefix('@')).map(str::to_owned).collect();
    assert!(!said.is_empty(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    said
}

// ---- Parents.

/// A volume below a directory of the system itself, which cannot be synced.
#[test]
fn a_parent_that_cannot_be_synced_does_not_prevent_a_log_below_it() {
    let name = "a_parent_that_cannot_be_synced_does_not_prevent_a_log_below_it";
    let mount = "mount -t tmpfs -o mode=0700 tmpfs /proc/fs && exec \"$@\"";
    let enter = ["unshare", "--mount", "sh", "-c", mount, "sh"];
    if !run(enter[0], &[&enter[1..], &["true"]].concat()) {
        return skip(name, "it needs a mount of its own");
    }
    for path in ["/proc/fs", "/proc/fs/log", "/proc/fs/new/parents/log"] {
        let opened = behind(&enter, &child("place", Path::new(path), &["open"])).output().unwrap();
        assert_eq!(said(&opened)[0], "opened", "{path}");
    }
    // Parents that we create must be made durable.
    let inject = ["strace", "-f", "-o", "/dev/null", "-e", "inject=fsync:error=EINVAL:when=1+"];
    if !run("strace", &["-V"]) {
        return skip(name, "it needs strace");
    }
    let (_dir, path) = fresh();
    let opened = behind(&inject, &child("place", &path, &["open"])).output().unwrap();
    assert_eq!(said(&opened), [format!("cannot create the log directory {}", path.display())]);
}

/// The process that created a parent may have died before its name was durable. The whole log could then be lost.
#[test]
fn the_names_of_all_parents_are_made_durable_whoever_created_them() {
    if !run("strace", &["-V"]) {
        return skip("the_names_of_all_parents_are_made_durable_whoever_created_them", "it needs strace");
    }
    for made_before in [0, 1, 2, 3] {
        let (dir, _) = fresh();
        let parents = [dir.path().join("a"), dir.path().join("a/b"), dir.path().join("a/b/c")];
        for parent in parents.iter().take(made_before) {
            fs::create_dir(parent).unwrap();
        }
        let (path, trace) = (dir.path().join("a/b/c/log"), dir.path().join("trace"));
        let strace = ["strace", "-f", "-y", "-e", "trace=fsync", "-o", trace.to_str().unwrap()];
        let opened = behind(&strace, &child("place", &path, &["open"])).output().unwrap();
        assert_eq!(said(&opened), ["opened"]);
        let trace = fs::read_to_string(&trace).unwrap();
        for synced in parents.iter().map(PathBuf::as_path).chain([dir.path(), &path]) {
            let is_synced = trace.contains(&format!("<{}>)", synced.display()));
            assert!(is_synced, "{} with {made_before} made before: {trace}", synced.display());
        }
    }
}

#[test]
fn a_symlink_is_refused_however_many_slashes_follow_it() {
    let (dir, elsewhere) = fresh();
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
    let link = dir.path().join("link");
    symlink(&elsewhere, &link).unwrap();
    for name in ["link", "link/", "link//", "link/.", "./link/./"] {
        let error = AuditLog::open(dir.path().join(name)).unwrap_err();
        assert!(matches!(error, Error::InsecureDirectory { .. }), "{name}: {error}");
        assert!(error.to_string().contains("symlink"), "{name}: {error}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{name}");
    }
    // A path that is not a symlink may have trailing slashes too.
    for name in ["log/", "log//.", "log/../log/"] {
        AuditLog::open(dir.path().join(name)).unwrap().close().unwrap();
    }
    verify(&elsewhere).unwrap().ensure_intact().unwrap();
}

// ---- File systems. strace makes the kernel report another file system type.

#[test]
fn unsuitable_file_systems_are_refused_with_the_reason() {
    let name = "unsuitable_file_systems_are_refused_with_the_reason";
    let (_dir, path) = fresh();
    let on = |magic: u32| {
        let inject = format!("inject=fstatfs:poke_exit=@arg2={:016x}", u64::from(magic).swap_bytes());
        let strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fstatfs", "-e", &inject];
        behind(&strace, &child("place", &path, &["open"])).output().unwrap()
    };
    if !on(0xEF53).status.success() {
        return skip(name, "it needs a strace that can write to memory");
    }
    assert_eq!(said(&on(0xEF53)), ["opened"]);
    let locks = "its locks and syncs cannot be relied on";
    for (magic, kind, words) in [
        (0x6969, "nfs", locks),
        (0x00C3_6400, "ceph", locks),
        (0x0BD0_0BD0, "lustre", locks),
        (0x4750_4653, "gpfs", locks),
        (0x7461_636F, "ocfs2", locks),
        (0x0116_1970, "gfs2", locks),
        (0x4D44, "", "its file system keeps no permissions"),
        (0x2011_BAB0, "", "its file system keeps no permissions"),
    ] {
        let said = said(&on(magic)).remove(0);
        assert!(said.starts_with("refusing to "), "{magic:x}: {said}");
        assert!(said.contains(kind) && said.contains(words), "{magic:x}: {said}");
    }
    // No file is left on a file system where nothing is private.
    fs::remove_dir_all(&path).unwrap();
    on(0x4D44);
    assert!(!path.exists());
}

/// A volume was forgotten, so the log is inside the container.
#[test]
fn a_log_on_overlayfs_gives_a_notice() {
    let (dir, _) = fresh();
    let name = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for part in ["lower", "store", "merged"] {
        fs::create_dir(name(part)).unwrap();
    }
    // An overlay needs an upper layer that is not an overlay itself.
    let mount = format!(
        "mount -t tmpfs tmpfs {store} && mkdir {store}/upper {store}/work && mount -t overlay overlay -o \
         lowerdir={lower},upperdir={store}/upper,workdir={store}/work {merged} && exec \"$@\"",
        store = name("store"),
        lower = name("lower"),
        merged = name("merged"),
    );
    let enter = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    if !run(enter[0], &[&enter[1..], &["true"]].concat()) {
        return skip("a_log_on_overlayfs_gives_a_notice", "it needs an overlay of its own");
    }
    let log = dir.path().join("merged/log");
    let opened = behind(&enter, &child("place", &log, &["open"])).output().unwrap();
    let said = said(&opened);
    assert_eq!(said[0], "opened");
    assert!(said[1].starts_with("volatile_filesystem: the log is on overlayfs"), "{said:?}");
}

/// A system on which restarts cannot be detected gives a notice at once.
#[test]
fn a_system_without_a_boot_id_gives_a_notice() {
    let hide = "mount -t tmpfs tmpfs /proc/sys/kernel/random && exec \"$@\"";
    let enter = ["unshare", "--mount", "sh", "-c", hide, "sh"];
    if !run(enter[0], &[&enter[1..], &["true"]].concat()) {
        return skip("a_system_without_a_boot_id_gives_a_notice", "it needs a mount of its own");
    }
    let (_dir, path) = fresh();
    let said = said(&behind(&enter, &child("place", &path, &["open"])).output().unwrap());
    assert_eq!(said[0], "opened");
    let words = "boot_id_missing: this system has no boot id";
    assert!(said.iter().any(|line| line.starts_with(words)), "{said:?}");
}

// ---- Readers.

/// A member of the group cannot hold the lock of a chain, but can still see whether a writer does.
#[test]
fn a_reader_of_the_group_verifies_a_live_log_without_false_alarm_and_cannot_hold_its_lock() {
    let name = "a_reader_of_the_group_verifies_a_live_log_without_false_alarm_and_cannot_hold_its_lock";
    if !is_root() || !run("setpriv", &["--version"]) {
        return skip(name, "it needs root and setpriv to become nobody");
    }
    let (dir, path) = fresh();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // The test programs may be in a directory that others cannot read.
    fs::copy(std::env::current_exe().unwrap(), at("program")).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py"), at("verify.py")).unwrap();
    for path in [at("program"), at("verify.py"), at("")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let group = fs::metadata(dir.path()).unwrap().gid().to_string();
    let nobody = ["setpriv", "--reuid", "65534", "--regid", &group, "--clear-groups"];
    let elsewhere = [&["unshare", "--pid", "--fork", "--mount-proc"], &nobody[..]].concat();
    let check = |enter: &[&str]| {
        let ours = child("place", &path, &["verify"]);
        let mut command = copied_behind(&[enter, &[at("program").as_str()]].concat(), &ours);
        said(&command.current_dir("/").output().unwrap())
    };
    let python = |enter: &[&str]| {
        let mut command = Command::new(enter[0]);
        // A shell skips programs that the user may not run.
        command.args(&enter[1..]).args(["sh", "-c", "python3 \"$@\"", "sh", &at("verify.py")]).arg(&path);
        command.current_dir("/").output().unwrap().status.code()
    };
    let is_unasked =
        |said: &[String]| said.iter().any(|line| line.starts_with("lock: whether a writer holds it"));

    let log = AuditLog::builder(&path).group_readable(true).open().unwrap();
    with_layer(&log, || log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap());
    let lock = path.join("control/chain-000.lock");
    assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o777, 0o600);
    let hold = format!("exec 9<{}", lock.display());
    assert!(!run(nobody[0], &[&nobody[1..], &["sh", "-c", &hold]].concat()));

    let live = check(&nobody);
    assert_eq!((live[0].as_str(), is_unasked(&live)), ("intact", false), "{live:?}");
    assert!(live.iter().any(|line| line.starts_with("noted_head: ")), "{live:?}");
    assert_eq!(python(&nobody), Some(0));
    // /proc/locks does not show all locks to everybody.
    let unseen = check(&elsewhere);
    assert_eq!((unseen[0].as_str(), is_unasked(&unseen)), ("unclean", true), "{unseen:?}");
    // The reason is unknown: /proc/locks does not show a free lock either.
    let words = "since its lock could not be read, and /proc/locks does not show a lock on it";
    assert!(unseen.iter().any(|line| line.starts_with("lock: ") && line.ends_with(words)), "{unseen:?}");
    assert_eq!(python(&elsewhere), Some(3));
    log.close().unwrap();
    let closed = check(&elsewhere);
    assert_eq!((closed[0].as_str(), is_unasked(&closed)), ("intact", true), "{closed:?}");

    // Nor can the lock be checked if `control` cannot be read.
    fs::set_permissions(path.join("control"), fs::Permissions::from_mode(0o700)).unwrap();
    let shut = check(&nobody);
    assert_eq!((shut[0].as_str(), is_unasked(&shut)), ("intact", true), "{shut:?}");
    let heads = "noted_head: the noted heads of the chains, since `control` cannot be read";
    assert!(shut.iter().any(|line| line == heads), "{shut:?}");

    // The permissions that an earlier version left open are removed.
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o640)).unwrap();
    AuditLog::builder(&path).group_readable(true).open().unwrap().close().unwrap();
    assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&segments(&path)[0]).unwrap().mode() & 0o777, 0o640);
}
