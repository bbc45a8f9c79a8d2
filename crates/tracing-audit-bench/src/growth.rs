//! How costs grow with events, threads, sizes and segments. Each figure is named `series.x`.

use std::{path::Path, time::Instant};

use tracing_audit::{AuditLog, FlushMode, Rotation, Verifier};

use crate::{
    Result,
    figures::Figures,
    machine,
    measure::Scale,
    special::inside,
    workload::{self, Event},
};

/// Returns the nanoseconds for each of `events`.
fn each(begun: Instant, events: u64) -> f64 {
    begun.elapsed().as_secs_f64() * 1e9 / events as f64
}

/// Measures 10 to 10 million events, until the last call returned and until all were durable.
pub(crate) fn events(dir: &Path, scale: Scale) -> Result<Figures> {
    let mut figures = Figures::default();
    let most = scale.count(10_000_000);
    let counts = std::iter::successors(Some(10), |count| Some(count * 10)).take_while(|count| *count <= most);
    for count in counts {
        let path = dir.join(count.to_string());
        let log = AuditLog::open(&path)?;
        // The first event of a thread allocates its buffers.
        inside(&log, || workload::emit(Event::routine(0)));
        log.flush()?;
        let begun = Instant::now();
        inside(&log, || (0..count).for_each(|number| workload::emit(Event::routine(number))));
        figures.add(format!("on the caller.{count}"), each(begun, count));
        log.flush()?;
        figures.add(format!("until durable.{count}"), each(begun, count));
        log.close()?;
        std::fs::remove_dir_all(path)?;
    }
    Ok(figures)
}

/// Measures the events per second of 1 to 64 threads, routine and durable.
pub(crate) fn threads(dir: &Path, scale: Scale) -> Result<Figures> {
    let mut figures = Figures::default();
    for threads in [1, 2, 4, 8, 16, 32, 64] {
        for (name, mode, all) in [
            ("routine", FlushMode::default(), scale.count(400_000)),
            ("durable", FlushMode::Immediate, scale.count(4_000)),
        ] {
            let path = dir.join(format!("{name}-{threads}"));
            let log = AuditLog::builder(&path).flush_mode(mode).open()?;
            let begun = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        inside(&log, || {
                            (0..all / threads).for_each(|number| workload::emit(Event::routine(number)));
                        });
                    });
                }
            });
            log.flush()?;
            figures.add(format!("{name}.{threads}"), 1e9 / each(begun, all));
            log.close()?;
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(figures)
}

/// Measures records with 100 bytes to 32 KB of text, in nanoseconds: on the caller, until durable, and to verify.
pub(crate) fn sizes(dir: &Path, scale: Scale) -> Result<Figures> {
    let mut figures = Figures::default();
    for size in [100, 300, 1_000, 3_000, 10_000, 32_000] {
        let path = dir.join(size.to_string());
        let log = AuditLog::open(&path)?;
        let text = "f2 e9-".repeat(size / 6 + 1);
        let event = |number| Event { text: text.get(..size), ..Event::routine(number) };
        let count = scale.count(4_000_000_000 / (size as u64 + 3_000) / 10);
        // As many as fit the queue, so that no call waits.
        let burst = 8_000_000 / (size as u64 + 500);
        inside(&log, || {
            workload::emit(event(0));
            std::thread::sleep(std::time::Duration::from_millis(50));
            let begun = Instant::now();
            (0..burst).for_each(|number| workload::emit(event(number)));
            figures.add(format!("on the caller.{size}"), each(begun, burst));
            let begun = Instant::now();
            (0..count).for_each(|number| workload::emit(event(number)));
            log.flush()?;
            figures.add(format!("until durable.{size}"), each(begun, count));
            Result::Ok(())
        })?;
        log.close()?;
        let begun = Instant::now();
        let records = Verifier::new(&path).threads(1).run()?.records();
        figures.add(format!("to verify.{size}"), each(begun, records));
        std::fs::remove_dir_all(path)?;
    }
    Ok(figures)
}

/// Measures the same records in 1 to 1,000 segments, in milliseconds: to open, and to verify.
pub(crate) fn segments(dir: &Path, scale: Scale) -> Result<Figures> {
    let mut figures = Figures::default();
    let records = scale.count(100_000);
    for segments in [1, 10, 100, 1_000] {
        let path = dir.join(segments.to_string());
        let log = AuditLog::builder(&path).rotation(Rotation::never()).open()?;
        inside(&log, || {
            for segment in 0..segments {
                if segment > 0 {
                    log.rotate()?;
                }
                (0..records / segments).for_each(|number| workload::emit(Event::routine(number)));
            }
            Result::Ok(())
        })?;
        log.close()?;
        let begun = Instant::now();
        let log = AuditLog::open(&path)?;
        figures.add(format!("to open.{segments}"), each(begun, 1_000_000));
        log.close()?;
        let begun = Instant::now();
        Verifier::new(&path).run()?.ensure_intact()?;
        figures.add(format!("to verify.{segments}"), each(begun, 1_000_000));
        if machine::files_in(&path)? < segments {
            return Err("there are fewer segments than requested".into());
        }
        std::fs::remove_dir_all(path)?;
    }
    Ok(figures)
}
