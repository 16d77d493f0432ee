//! What the kernel says about this process, under the names that every dashboard knows.

use std::fs;

/// Numbers from `/proc/self`; what cannot be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProcessNumbers {
    /// Memory in RAM.
    pub(crate) resident_bytes: Option<u64>,
    /// Address space.
    pub(crate) virtual_bytes: Option<u64>,
    /// Time on a processor, user and system.
    pub(crate) cpu_seconds: Option<f64>,
    /// Open files and sockets.
    pub(crate) open_files: Option<u64>,
    /// Threads.
    pub(crate) threads: Option<u64>,
}

impl ProcessNumbers {
    /// Reads them now.
    pub(crate) fn read() -> ProcessNumbers {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let mut numbers = parse_stat(&stat, page_bytes(), ticks_per_second());
        numbers.open_files = fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| u64::try_from(entries.count()).unwrap_or(u64::MAX));
        numbers
    }
}

/// proc_pid_stat(5): the second field may hold blanks and brackets, so count from its end.
fn parse_stat(stat: &str, page_bytes: u64, ticks_per_second: f64) -> ProcessNumbers {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // Field 3 of the manual is the first one here.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14).zip(field(15)).and_then(|(user, system)| {
        // A float holds every count of ticks that a process lives to see.
        u32::try_from(user.saturating_add(system))
            .ok()
            .map(f64::from)
    });
    ProcessNumbers {
        resident_bytes: field(24).map(|pages| pages.saturating_mul(page_bytes)),
        virtual_bytes: field(23),
        cpu_seconds: ticks.map(|ticks| ticks / ticks_per_second),
        open_files: None,
        threads: field(20),
    }
}

fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

fn ticks_per_second() -> f64 {
    u32::try_from(rustix::param::clock_ticks_per_second()).map_or(100.0, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_end_of_the_name() {
        let stat = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 9 0 0 4096000 500 0";
        let numbers = parse_stat(stat, 4096, 100.0);
        assert_eq!(numbers.resident_bytes, Some(2_048_000));
        assert_eq!(numbers.virtual_bytes, Some(4_096_000));
        assert_eq!(numbers.cpu_seconds, Some(2.0));
        assert_eq!(numbers.threads, Some(9));
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let numbers = ProcessNumbers::read();
        assert!(numbers.resident_bytes.unwrap() > 100_000);
        assert!(numbers.threads.unwrap() >= 1);
        assert!(numbers.open_files.unwrap() >= 3);
    }
}
