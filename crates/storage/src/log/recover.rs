//! Checking segments: how much of each is good, and what becomes of the rest.

use std::path::PathBuf;
use std::sync::Arc;

use ottla_records::BatchHeader;
use ottla_types::Offset;

use super::open::{Listing, OpenLog};
use crate::active::{ActiveSegment, FoundSegment};
use crate::error::{DiskError, LogError};
use crate::files::{Access, File, read_full_at, write_bytes_at};
use crate::index::{IndexFiles, Indexes, KnownEntries, OFFSET_ENTRY, TIME_ENTRY};
use crate::names;
use crate::scan::{HeadScan, SCAN_CHUNK, ScanError, check_body};
use crate::segment::{Segment, SegmentEnd};

/// The segments as they are after recovery.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) sealed: Vec<Arc<Segment>>,
    pub(super) active: ActiveSegment,
    pub(super) truncated_bytes: u64,
    pub(super) scanned_bytes: u64,
    pub(super) indexes_rebuilt: usize,
    pub(super) damaged: bool,
    /// Names in the directory changed.
    pub(super) changed: bool,
}

/// A segment file before it is known how much of it is good.
struct Candidate {
    base_offset: Offset,
    file: Arc<dyn File>,
    size: u64,
    /// From here on its batches were checked, and its indexes must be built anew.
    checked: bool,
}

/// How far a segment's batches are good.
struct Checked {
    good_bytes: u64,
    next_offset: Offset,
    bad: bool,
}

impl OpenLog {
    fn path(&self, base_offset: Offset, suffix: &str) -> PathBuf {
        self.dir.join(names::segment_file(base_offset, suffix))
    }

    fn candidates(&self, listing: &Listing) -> Result<Vec<Candidate>, LogError> {
        let mut all = Vec::with_capacity(listing.logs.len());
        for base_offset in listing.logs.iter().copied() {
            let path = self.path(base_offset, names::LOG);
            let file = self.state.read(
                "open",
                &path,
                self.state.files.open(&path, Access::ReadWrite),
            )?;
            let size = self.state.read("stat", &path, file.size())?;
            all.push(Candidate {
                base_offset,
                file,
                size,
                checked: false,
            });
        }
        Ok(all)
    }

    fn durable_mark(&self) -> Offset {
        let point = self.marks.recovery_point.unwrap_or(Offset::ZERO);
        let high_watermark = self.marks.high_watermark.unwrap_or(Offset::ZERO);
        let mark = if self.marks.high_watermark_is_durable {
            point.max(high_watermark)
        } else {
            point
        };
        self.marks
            .durable_floor
            .map_or(mark, |floor| mark.min(floor))
    }

    /// What a read or a walk of a file said, as this log's error.
    fn walked<T>(&self, base: Offset, answer: Result<T, ScanError>) -> Result<T, LogError> {
        answer.map_err(|error| match error {
            ScanError::Io(source) => {
                let path = self.path(base, names::LOG);
                self.state.note_read_error(&path, &source);
                LogError::Disk(DiskError::Io {
                    operation: "read",
                    path,
                    source,
                })
            }
            ScanError::Bad { .. } => LogError::Corrupt { offset: base },
        })
    }
}

/// Finds out how much of the segments is good, cuts the rest off, and opens them.
pub(super) fn recover_segments(open: &OpenLog, listing: &Listing) -> Result<Recovered, LogError> {
    let mut candidates = open.candidates(listing)?;
    let mut work = Work {
        open,
        truncated_bytes: 0,
        scanned_bytes: 0,
        damaged: false,
    };
    if !open.clean {
        work.check_from_recovery_point(&mut candidates)?;
    }
    let mut indexes_rebuilt = 0;
    let Some(last) = candidates.pop() else {
        let start = open.marks.log_start_offset.unwrap_or(Offset::ZERO);
        let active = ActiveSegment::create(&open.state, &open.dir, start, open.now)?;
        return Ok(work.finish(Vec::new(), active, indexes_rebuilt, true));
    };
    let (last, reopened) = match work.reopen(&last) {
        Err(ScanError::Bad { .. }) => {
            // The marker promised more than there is: recover this segment after all.
            let mut alone = vec![last];
            work.check(&mut alone, 0, 0)?;
            let last = alone.remove(0);
            let reopened = work.reopen(&last);
            (last, reopened)
        }
        reopened => (last, reopened),
    };
    let mut active = open.walked(last.base_offset, reopened)?;
    active.cut_index_files()?;
    let mut sealed = Vec::with_capacity(candidates.len());
    let next_bases: Vec<Offset> = candidates
        .iter()
        .skip(1)
        .map(|c| c.base_offset)
        .chain([active.base_offset()])
        .collect();
    for (candidate, next_base) in candidates.iter().zip(next_bases) {
        let sane =
            listing.indexed.contains(&candidate.base_offset) && work.indexes_are_sane(candidate)?;
        if candidate.checked || !sane {
            indexes_rebuilt += 1;
            work.rebuild_indexes(candidate)?;
        }
        let files = Arc::clone(&open.state.files);
        let files = IndexFiles::new(files, open.dir.clone(), candidate.base_offset);
        let end = SegmentEnd {
            position: candidate.size,
            offset: next_base,
        };
        let (file, indexes) = (Arc::clone(&candidate.file), Indexes::in_files(files));
        sealed.push(Arc::new(Segment::new(
            candidate.base_offset,
            file,
            indexes,
            end,
        )));
    }
    if !open.clean {
        let path = open.path(last.base_offset, names::LOG);
        // What was checked may be in the page cache only.
        open.state
            .synced("sync", &path, active.segment.file.sync())?;
    }
    Ok(work.finish(sealed, active, indexes_rebuilt, false))
}

/// A recovery under way.
struct Work<'a> {
    open: &'a OpenLog,
    truncated_bytes: u64,
    scanned_bytes: u64,
    damaged: bool,
}

impl Work<'_> {
    fn finish(
        self,
        sealed: Vec<Arc<Segment>>,
        active: ActiveSegment,
        indexes_rebuilt: usize,
        changed: bool,
    ) -> Recovered {
        let Work {
            truncated_bytes,
            scanned_bytes,
            damaged,
            ..
        } = self;
        Recovered {
            sealed,
            active,
            truncated_bytes,
            scanned_bytes,
            indexes_rebuilt,
            damaged,
            changed,
        }
    }

    fn check_from_recovery_point(&mut self, all: &mut Vec<Candidate>) -> Result<(), LogError> {
        let point = match self.open.marks.recovery_point {
            Some(point) if !self.open.check_all => point,
            Some(_) | None => Offset::ZERO,
        };
        let from = all
            .partition_point(|c| c.base_offset <= point)
            .saturating_sub(1);
        let Some(first) = all.get(from) else {
            return Ok(());
        };
        let position = self.position_of(first, point)?;
        self.check(all, from, position)?;
        let mark = self.open.durable_mark();
        if let Some(last) = all.last()
            && last.base_offset < mark
        {
            // Whether the end is below what had been durable is known once the end is.
            let reopened = self.reopen(last);
            let end = self.open.walked(last.base_offset, reopened)?.end().offset;
            self.damaged |= end < mark;
        }
        Ok(())
    }

    /// Where the checking of a segment may begin: at an indexed batch below the recovery point, if
    /// the index can be trusted so far.
    fn position_of(&self, candidate: &Candidate, point: Offset) -> Result<u64, LogError> {
        let (open, base) = (self.open, candidate.base_offset);
        let mut known = KnownEntries::read(&*open.state.files, &open.dir, base);
        let below = point.since(base);
        known
            .offsets
            .retain(|entry| i64::from(entry.relative) < below);
        let kept = known.checked_below(&*candidate.file, base, candidate.size);
        let kept = open.walked(base, kept)?;
        Ok(kept
            .offsets
            .last()
            .map_or(0, |entry| u64::from(entry.position)))
    }

    /// Checks segments from one on, the first from `position` on; cuts at the first bad batch.
    fn check(
        &mut self,
        all: &mut Vec<Candidate>,
        from: usize,
        position: u64,
    ) -> Result<(), LogError> {
        let mut expected = None;
        for at in from..all.len() {
            let candidate = &all[at];
            if expected.is_some_and(|expected| candidate.base_offset != expected) {
                // The end of the segment before is missing: this one does not continue it.
                let end = expected.unwrap_or(candidate.base_offset);
                return self.cut(all, at - 1, all[at - 1].size, end, true);
            }
            let start = if at == from { position } else { 0 };
            let checked = self.check_segment(candidate, start)?;
            all[at].checked = true;
            if checked.bad {
                return self.cut(all, at, checked.good_bytes, checked.next_offset, true);
            }
            expected = Some(checked.next_offset);
        }
        Ok(())
    }

    fn check_segment(&mut self, candidate: &Candidate, from: u64) -> Result<Checked, LogError> {
        let (file, size) = (&*candidate.file, candidate.size);
        let mut scan = HeadScan::new(file, from, size, SCAN_CHUNK);
        let mut buffer = Vec::new();
        let mut checked = Checked {
            good_bytes: from,
            next_offset: candidate.base_offset,
            bad: false,
        };
        loop {
            let found = match scan.next() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(checked),
                Err(ScanError::Bad { .. }) => {
                    checked.bad = true;
                    return Ok(checked);
                }
                Err(error) => return self.open.walked(candidate.base_offset, Err(error)),
            };
            let whole = check_body(file, &found, &mut buffer).map_err(ScanError::Io);
            let whole = self.open.walked(candidate.base_offset, whole)?;
            if !whole || !continues(candidate.base_offset, &checked, &found.header) {
                checked.bad = true;
                return Ok(checked);
            }
            self.scanned_bytes += found.header.size_bytes() as u64;
            checked.good_bytes = found.end();
            checked.next_offset = found.header.next_offset();
        }
    }

    /// Ends the log after `good_bytes` of a segment, at offset `end`.
    fn cut(
        &mut self,
        all: &mut Vec<Candidate>,
        at: usize,
        good_bytes: u64,
        end: Offset,
        found_bad: bool,
    ) -> Result<(), LogError> {
        let (open, later) = (self.open, all.split_off(at + 1));
        let candidate = &mut all[at];
        let lost = candidate.size - good_bytes + later.iter().map(|c| c.size).sum::<u64>();
        self.truncated_bytes += lost;
        let damaged = found_bad && end < open.durable_mark();
        if damaged {
            self.damaged = true;
            self.move_aside(candidate, good_bytes, &later)?;
            tracing::error!(
                dir = %open.dir.display(), offset = %end, bytes = lost,
                "log is damaged below what was durable, moved aside"
            );
        } else if lost > 0 {
            tracing::info!(dir = %open.dir.display(), offset = %end, bytes = lost, "cut torn tail");
        }
        for candidate in later.iter().rev() {
            for suffix in [
                names::LOG,
                names::OFFSET_INDEX,
                names::TIME_INDEX,
                names::TXN_INDEX,
            ] {
                open.state
                    .remove_file(&open.path(candidate.base_offset, suffix))?;
            }
        }
        let path = open.path(candidate.base_offset, names::LOG);
        open.state
            .written("truncate", &path, candidate.file.set_size(good_bytes))?;
        open.state.synced("sync", &path, candidate.file.sync())?;
        candidate.size = good_bytes;
        Ok(())
    }

    /// Keeps what is about to be cut, for whoever looks into it, and as a reminder until the
    /// controller knows.
    fn move_aside(
        &self,
        candidate: &Candidate,
        good_bytes: u64,
        later: &[Candidate],
    ) -> Result<(), LogError> {
        let open = self.open;
        let aside = |base| {
            let name = names::segment_file(base, names::LOG);
            open.dir.join(format!("{name}{}", names::DAMAGED))
        };
        for candidate in later.iter().rev() {
            let from = open.path(candidate.base_offset, names::LOG);
            let renamed = open
                .state
                .files
                .rename(&from, &aside(candidate.base_offset));
            open.state.written("rename", &from, renamed)?;
        }
        let path = aside(candidate.base_offset);
        let copy = open.state.read(
            "create",
            &path,
            open.state.files.open(&path, Access::Replace),
        )?;
        let mut buffer = vec![0; SCAN_CHUNK];
        let mut position = good_bytes;
        while position < candidate.size {
            let read = read_full_at(&*candidate.file, &mut buffer, position);
            let read = open.state.read("read", &path, read)?;
            if read == 0 {
                break;
            }
            match write_bytes_at(&*copy, &buffer[..read], position - good_bytes) {
                // The reminder matters more than the bytes.
                Err(error) if crate::files::is_no_space(&error) => break,
                answer => open.state.written("write", &path, answer)?,
            }
            position += read as u64;
        }
        open.state.synced("sync", &path, copy.sync())?;
        Ok(open.state.sync_dir(&open.dir)?)
    }

    /// A segment as one that can be appended to.
    fn reopen(&self, candidate: &Candidate) -> Result<ActiveSegment, ScanError> {
        let open = self.open;
        let (base_offset, file, size) = (candidate.base_offset, &candidate.file, candidate.size);
        let known = KnownEntries::read(&*open.state.files, &open.dir, base_offset);
        ActiveSegment::reopen(
            &open.state,
            &open.dir,
            FoundSegment {
                base_offset,
                file,
                size,
            },
            &known,
            open.config.index_interval_bytes,
            open.now,
        )
    }

    /// Whether the index files of a segment that was durable look like what sealing left.
    fn indexes_are_sane(&self, candidate: &Candidate) -> Result<bool, LogError> {
        let open = self.open;
        for (suffix, entry) in [
            (names::OFFSET_INDEX, OFFSET_ENTRY),
            (names::TIME_INDEX, TIME_ENTRY),
        ] {
            let path = open.path(candidate.base_offset, suffix);
            let file = open.state.files.open(&path, Access::Read);
            let size = open
                .state
                .read("stat", &path, file.and_then(|file| file.size()))?;
            if size % entry as u64 != 0 {
                return Ok(false);
            }
            // Sealing adds a last time entry, so an empty time index is not one of a sealed
            // segment.
            if suffix == names::TIME_INDEX && size == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn rebuild_indexes(&self, candidate: &Candidate) -> Result<(), LogError> {
        let mut active = self
            .open
            .walked(candidate.base_offset, self.reopen(candidate))?;
        active.cut_index_files()?;
        active.seal();
        Ok(active.sync_all()?)
    }
}

/// Whether a batch may follow what was checked.
fn continues(base_offset: Offset, checked: &Checked, header: &BatchHeader) -> bool {
    header.first_offset() >= checked.next_offset
        && header.last_offset().since(base_offset) <= i64::from(i32::MAX)
}

/// Puts a compacted segment in the place of those that it covers: a compaction ended in between.
pub(super) fn finish_swap(open: &OpenLog, base: Offset) -> Result<(), LogError> {
    let swap = |suffix| {
        open.dir.join(format!(
            "{}{}",
            names::segment_file(base, suffix),
            names::SWAP
        ))
    };
    let path = swap(names::LOG);
    let file = open
        .state
        .read("open", &path, open.state.files.open(&path, Access::Read))?;
    let size = open.state.read("stat", &path, file.size())?;
    let mut scan = HeadScan::new(&*file, 0, size, SCAN_CHUNK);
    let mut end = base;
    while let Some(found) = open.walked(base, scan.next())? {
        end = found.header.next_offset();
    }
    let entries = open
        .state
        .read("list", &open.dir, open.state.files.list(&open.dir))?;
    for entry in entries {
        let covered = names::parse_segment_file(&entry.name).is_some_and(|(other, suffix)| {
            let of_segment = [
                names::LOG,
                names::OFFSET_INDEX,
                names::TIME_INDEX,
                names::TXN_INDEX,
            ]
            .contains(&suffix);
            of_segment && (other == base || (other > base && other < end))
        });
        if covered {
            open.state.remove_file(&open.dir.join(&entry.name))?;
        }
    }
    for suffix in [
        names::OFFSET_INDEX,
        names::TIME_INDEX,
        names::TXN_INDEX,
        names::LOG,
    ] {
        let to = open.path(base, suffix);
        match open.state.files.rename(&swap(suffix), &to) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            answer => open.state.written("rename", &to, answer)?,
        }
    }
    Ok(())
}
