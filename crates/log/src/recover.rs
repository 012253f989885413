//! Opening: finds out what is durable, and cuts off what never was.
//!
//! Only one batch was ever in flight, so at most the last batch may be missing parts. Every
//! record says how far both lanes were durable when its batch was written. If a lane ends
//! before that, something acknowledged is damaged or gone, and the log is not opened. If not,
//! whatever is damaged at its end belongs to the last batch, which nobody was told of.
//!
//! Offsets have no hole across the lanes. Of the last batch everything from the first offset on
//! that is missing is cut, in both lanes, so what is left is what was appended up to some
//! point.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use hookbot_protocol::Offset;

use crate::commit::{End, begin};
use crate::disk::{Disk, File, UNFINISHED, replace};
use crate::error::OpenError;
use crate::index::Growing;
use crate::meta::{self, Meta};
use crate::record::micros;
use crate::scan::{Scan, read_header};
use crate::segment::{HEADER, Header, INDEX, Indexed, LOG, Place, Segment, Space};
use crate::sidecar;

/// A log as it is after a start.
pub(crate) struct Recovered {
    pub(crate) lanes: [Vec<Arc<Segment>>; 2],
    pub(crate) ends: [End; 2],
    pub(crate) next: Offset,
}

/// The last segment of a lane, while it is being looked at.
struct Tip {
    header: Header,
    seed: u32,
    file: Arc<dyn File>,
    scan: Scan,
}

pub(crate) fn recover(disk: &dyn Disk, meta: &Meta) -> Result<Recovered, OpenError> {
    let names = disk.list().map_err(OpenError::io("the folder"))?;
    tidy(disk, &names)?;
    let mut places = list(&names);
    let mut tips = [None, None];
    for space in Space::ALL {
        let places = &mut places[space as usize];
        drop_unbegun(disk, meta, places)?;
        check_numbers(places)?;
        if let Some(place) = places.last() {
            tips[space as usize] = Some(Tip::read(disk, meta, *place)?);
        }
    }
    refuse_losses(&tips)?;
    cut_last_batch(meta, &mut tips)?;

    let next = tips.iter().flatten().map(Tip::next).max();
    let next = next.unwrap_or(Offset(1));
    let durable = [0, 1].map(|at| tips[at].as_ref().map_or(Offset(0), |tip| tip.last()));
    let mut tips = tips.into_iter();
    let mut lane = |space: Space| -> Result<(Vec<Arc<Segment>>, End), OpenError> {
        let places = &places[space as usize];
        let tip = match tips.next().flatten() {
            Some(tip) => tip,
            None => Tip::begin(disk, meta, space, next, durable)?,
        };
        let mut segments = Vec::new();
        let mut after = tip.header;
        for place in places.iter().rev().skip(1) {
            let segment = closed(disk, meta, *place, &after)?;
            after = segment.header;
            segments.push(Arc::new(segment));
        }
        segments.reverse();
        let end = tip.end();
        segments.push(end.segment.clone());
        Ok((segments, end))
    };
    let (safe, safe_end) = lane(Space::Safe)?;
    let (r#unsafe, unsafe_end) = lane(Space::Unsafe)?;
    Ok(Recovered {
        lanes: [safe, r#unsafe],
        ends: [safe_end, unsafe_end],
        next,
    })
}

/// The segments of each lane, oldest first.
pub(crate) fn list(names: &[String]) -> [Vec<Place>; 2] {
    let mut places = [Vec::new(), Vec::new()];
    for place in names.iter().filter_map(|name| Place::of_file(name, LOG)) {
        places[place.space as usize].push(place);
    }
    for places in &mut places {
        places.sort_unstable_by_key(|place: &Place| place.number);
    }
    places
}

/// Removes what was never finished, and sidecars whose segments are gone. Files that are not
/// the log's stay.
fn tidy(disk: &dyn Disk, names: &[String]) -> Result<(), OpenError> {
    for name in names {
        let finished = name.strip_suffix(UNFINISHED);
        let is_unfinished = finished.is_some_and(|name| {
            let endings = [LOG, INDEX];
            name == meta::NAME
                || endings
                    .iter()
                    .any(|ending| Place::of_file(name, ending).is_some())
        });
        let is_left_over =
            Place::of_file(name, INDEX).is_some_and(|place| !names.contains(&place.log_name()));
        if is_unfinished || is_left_over {
            disk.remove(name).map_err(OpenError::io(name))?;
        }
    }
    Ok(())
}

/// Removes a last segment that does not even have a header: it was about to be begun.
fn drop_unbegun(disk: &dyn Disk, meta: &Meta, places: &mut Vec<Place>) -> Result<(), OpenError> {
    let Some(place) = places.last() else {
        return Ok(());
    };
    let name = place.log_name();
    let file = disk.open(&name).map_err(OpenError::io(&name))?;
    let header = read_header(&*file, *place, place.seed(meta)).map_err(OpenError::io(&name))?;
    let length = file.length().map_err(OpenError::io(&name))?;
    if header.is_none() && length <= HEADER as u64 {
        disk.remove(&name)
            .and_then(|()| disk.sync())
            .map_err(OpenError::io(name))?;
        places.pop();
    }
    Ok(())
}

fn check_numbers(places: &[Place]) -> Result<(), OpenError> {
    for pair in places.windows(2) {
        let missing = Place {
            number: pair[0].number + 1,
            ..pair[0]
        };
        if pair[1] != missing {
            return Err(OpenError::corrupt(
                missing.log_name(),
                0,
                "the file is missing",
            ));
        }
    }
    Ok(())
}

/// Refuses if a lane ends before what some record says was durable.
fn refuse_losses(tips: &[Option<Tip>; 2]) -> Result<(), OpenError> {
    for space in Space::ALL {
        let durable = tips
            .iter()
            .flatten()
            .map(|tip| tip.scan.durable[space as usize]);
        let durable = durable.max().unwrap_or_default();
        let tip = &tips[space as usize];
        if tip.as_ref().map_or(Offset(0), Tip::last) >= durable {
            continue;
        }
        let Some(tip) = tip else {
            let number = 1;
            let name = Place { space, number }.log_name();
            return Err(OpenError::corrupt(
                name,
                0,
                "the files of this lane are missing",
            ));
        };
        let what = tip.scan.damage.map_or_else(
            || format!("messages up to offset {durable} are missing"),
            |damage| damage.to_string(),
        );
        let name = tip.header.place.log_name();
        return Err(OpenError::corrupt(name, tip.scan.index.extent.end, what));
    }
    Ok(())
}

/// Cuts the last batch where it begins to have holes.
fn cut_last_batch(meta: &Meta, tips: &mut [Option<Tip>; 2]) -> Result<(), OpenError> {
    let batch = tips.iter().flatten().map(|tip| tip.scan.last_batch()).max();
    let batch = batch.unwrap_or_default();
    let there: BTreeSet<Offset> = tips
        .iter()
        .flatten()
        .flat_map(|tip| {
            let index = &tip.scan.index;
            (index.number(batch)..index.extent.count).map(|number| index.offset(number))
        })
        .collect();
    let mut missing = batch;
    while there.contains(&missing) {
        missing = missing.next();
    }
    for tip in tips.iter_mut().flatten() {
        tip.cut(meta, missing)
            .map_err(OpenError::io(tip.header.place.log_name()))?;
    }
    Ok(())
}

/// A segment that grows no more: all of it was durable before the one after it was begun.
fn closed(
    disk: &dyn Disk,
    meta: &Meta,
    place: Place,
    after: &Header,
) -> Result<Segment, OpenError> {
    let name = place.log_name();
    let seed = place.seed(meta);
    let file = disk.open(&name).map_err(OpenError::io(&name))?;
    let header = read_header(&*file, place, seed).map_err(OpenError::io(&name))?;
    let header = header.ok_or_else(|| OpenError::corrupt(&name, 0, "the header is damaged"))?;
    let length = file.length().map_err(OpenError::io(&name))?;
    let index = match sidecar::read_summary(disk, place, seed) {
        Ok(summary) if summary.extent.end == length => Indexed::Sealed(summary),
        _ => {
            let scan = Scan::new(&*file, &header, seed, meta).map_err(OpenError::io(&name))?;
            let end = scan.index.extent.end;
            if let Some(damage) = scan.damage {
                return Err(OpenError::corrupt(name, end, damage));
            }
            if end < length {
                file.truncate(end).map_err(OpenError::io(&name))?;
            }
            sealed(disk, meta, place, scan.index)
        }
    };
    let segment = Segment::new(header, seed, index);
    let extent = segment.extent();
    let space = place.space as usize;
    let last = if extent.count > 0 {
        extent.last
    } else {
        header.durable[space]
    };
    if last != after.durable[space] && !after.after_repair {
        let what = format!("messages up to offset {} are missing", after.durable[space]);
        return Err(OpenError::corrupt(name, extent.end, what));
    }
    Ok(segment)
}

/// Writes a sidecar, or keeps the index in memory where that can't be done.
fn sealed(disk: &dyn Disk, meta: &Meta, place: Place, index: Growing) -> Indexed {
    let (bytes, summary) = sidecar::encode(&index, place.seed(meta), meta);
    match replace(disk, &place.index_name(), &bytes) {
        Ok(()) => Indexed::Sealed(summary),
        Err(error) => {
            tracing::warn!("cannot write {}: {error}", place.index_name());
            Indexed::Growing(index)
        }
    }
}

impl Tip {
    fn read(disk: &dyn Disk, meta: &Meta, place: Place) -> Result<Self, OpenError> {
        let name = place.log_name();
        let seed = place.seed(meta);
        let file = disk.open(&name).map_err(OpenError::io(&name))?;
        let header = read_header(&*file, place, seed).map_err(OpenError::io(&name))?;
        let header = header.ok_or_else(|| OpenError::corrupt(&name, 0, "the header is damaged"))?;
        let scan = Scan::new(&*file, &header, seed, meta).map_err(OpenError::io(name))?;
        Ok(Self {
            header,
            seed,
            file,
            scan,
        })
    }

    /// The first segment of a lane.
    fn begin(
        disk: &dyn Disk,
        meta: &Meta,
        space: Space,
        next: Offset,
        durable: [Offset; 2],
    ) -> Result<Self, OpenError> {
        let header = Header {
            place: Place { space, number: 1 },
            after_repair: false,
            epoch: meta.epoch,
            base: next,
            time: micros(std::time::SystemTime::now()),
            durable,
        };
        begin(disk, &header, header.place.seed(meta))
            .map_err(io::Error::from)
            .map_err(OpenError::io(header.place.log_name()))?;
        Self::read(disk, meta, header.place)
    }

    /// The last offset of the lane.
    fn last(&self) -> Offset {
        match self.scan.index.extent {
            extent if extent.count > 0 => extent.last,
            _ => self.header.durable[self.header.place.space as usize],
        }
    }

    fn next(&self) -> Offset {
        self.last().next().max(self.header.base)
    }

    /// Cuts off what is damaged or from `missing` on, and makes sure of the rest: the process
    /// may have ended before it was synced, and from now on it is relied upon.
    fn cut(&mut self, meta: &Meta, missing: Offset) -> io::Result<()> {
        let index = &self.scan.index;
        let end = index.position(index.number(missing));
        if self.scan.damage.is_some() || end < index.extent.end {
            let name = self.header.place.log_name();
            tracing::info!(
                "{name}: cut at byte {end}, where a batch ends that was never acknowledged"
            );
        }
        if end < self.scan.length {
            self.file.truncate(end)?;
        }
        self.file.sync()?;
        if end < index.extent.end {
            self.scan = Scan::new(&*self.file, &self.header, self.seed, meta)?;
        }
        Ok(())
    }

    fn end(self) -> End {
        let last = self.last();
        let at = self.scan.index.extent.end;
        let segment = Segment::new(self.header, self.seed, Indexed::Growing(self.scan.index));
        End {
            segment: Arc::new(segment),
            file: self.file,
            at,
            room: at,
            last,
        }
    }
}
