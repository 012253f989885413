//! Reading all of a log to see what is damaged.

use std::io::{self, ErrorKind};
use std::path::Path;

use hookbot_protocol::Offset;

use crate::disk::{Disk, Folder};
use crate::disk_log::lock;
use crate::error::{Located, OpenError};
use crate::meta::{self, Meta};
use crate::recover::list;
use crate::scan::{Scan, read_header};
use crate::segment::{HEADER, Header, Place, Space};
use crate::sidecar::{self, Frozen};

/// Reads all of a log that no process has open, and says what of it is damaged. Mends
/// nothing.
///
/// # Errors
///
/// When the folder can't be read, is in use, or is not a log of this version.
pub fn verify(folder: &Path) -> Result<Vec<Located>, OpenError> {
    let name = folder.display().to_string();
    let disk = Folder::open(folder).map_err(OpenError::io(name))?;
    let _lock = lock(folder)?;
    let meta = Meta::read(&disk)?;
    let meta = meta.ok_or_else(|| OpenError::corrupt(meta::NAME, 0, "the file is missing"))?;
    let survey = Survey::new(&disk, &meta)?;
    let mut damage = survey.damage;
    for segment in survey.lanes.iter().flatten() {
        let file = segment.place.index_name();
        match check_sidecar(&disk, segment.place, segment.place.seed(&meta)) {
            Ok(()) => {}
            // The next start makes it again, as it does one that is damaged.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => damage.push(Located {
                file,
                at: 0,
                what: error.to_string(),
            }),
        }
    }
    Ok(damage)
}

fn check_sidecar(disk: &dyn Disk, place: Place, seed: u32) -> io::Result<()> {
    let summary = sidecar::read_summary(disk, place, seed)?;
    Frozen::open(disk, place, seed, &summary)?.check()
}

/// What is known of a log once all of it has been read.
pub(crate) struct Survey {
    pub(crate) damage: Vec<Located>,
    pub(crate) lanes: [Vec<Examined>; 2],
    /// How far each lane was durable, as far as any record says.
    durable: [Offset; 2],
    /// The last offset of each lane that any record says it has.
    newest: [Offset; 2],
}

/// One segment.
pub(crate) struct Examined {
    pub(crate) place: Place,
    pub(crate) header: Option<Header>,
    /// Where it can't be read on, if that is not its end. At the end of a lane this need not be
    /// a loss.
    pub(crate) stops: Option<Located>,
    /// Whether messages are missing between the segment before and this one.
    pub(crate) follows_loss: bool,
    /// The last offset in the lane up to here.
    last: Offset,
}

impl Survey {
    pub(crate) fn new(disk: &dyn Disk, meta: &Meta) -> Result<Self, OpenError> {
        let mut survey = Self {
            damage: Vec::new(),
            lanes: [Vec::new(), Vec::new()],
            durable: [Offset(0); 2],
            newest: [Offset(0); 2],
        };
        let names = disk.list().map_err(OpenError::io("the folder"))?;
        let places = list(&names);
        for place in places.iter().flatten() {
            survey.examine(disk, meta, *place)?;
        }
        for space in Space::ALL {
            let durable = survey.durable[space as usize];
            let (last, stops) = match survey.lanes[space as usize].last() {
                Some(tip) => (tip.last, tip.stops.clone()),
                None => (Offset(0), None),
            };
            if last < durable {
                let places = &places[space as usize];
                let place = places.last().copied();
                let place = place.unwrap_or(Place { space, number: 1 });
                survey.damage.push(stops.unwrap_or_else(|| Located {
                    file: place.log_name(),
                    at: 0,
                    what: format!("messages up to offset {durable} are missing"),
                }));
            }
        }
        // A header is told of once.
        survey.damage.dedup();
        Ok(survey)
    }

    /// The last offset of each lane, as far as is known: some of the messages may be gone.
    pub(crate) fn last(&self) -> [Offset; 2] {
        Space::ALL.map(|space| {
            let at = space as usize;
            let last = self.lanes[at].last().map_or(Offset(0), |tip| tip.last);
            last.max(self.durable[at]).max(self.newest[at])
        })
    }

    fn examine(&mut self, disk: &dyn Disk, meta: &Meta, place: Place) -> Result<(), OpenError> {
        let name = place.log_name();
        let seed = place.seed(meta);
        let file = disk.open(&name).map_err(OpenError::io(&name))?;
        let header = read_header(&*file, place, seed).map_err(OpenError::io(&name))?;
        let length = file.length().map_err(OpenError::io(&name))?;

        let lane = &mut self.lanes[place.space as usize];
        let before = lane.last().map_or(Offset(0), |before| before.last);
        let number = lane
            .last()
            .map_or(place.number, |before| before.place.number + 1);
        let mut follows_loss = false;
        if let Some(before) = lane.last() {
            // It is not the last of its lane, so it must be whole.
            self.damage.extend(before.stops.clone());
            let durable = header.map(|header| header.durable[place.space as usize]);
            let is_short = durable.is_some_and(|durable| before.last < durable);
            follows_loss = before.stops.is_some() || is_short || header.is_none();
            let is_known = header.is_some_and(|header| header.after_repair);
            if number != place.number {
                let missing = Place { number, ..place };
                follows_loss = true;
                self.damage.push(located(missing, 0, "the file is missing"));
            } else if is_short && before.stops.is_none() && !is_known {
                self.damage
                    .push(located(before.place, 0, "messages at its end are missing"));
            }
        }

        // Something to scan by, if there is none.
        let by = header.unwrap_or_else(|| Header {
            place,
            after_repair: true,
            epoch: meta.epoch,
            base: before.next(),
            time: 0,
            durable: [before; 2],
        });
        let scan = Scan::new(&*file, &by, seed, meta).map_err(OpenError::io(&name))?;
        for (own, durable) in self.durable.iter_mut().zip(scan.durable) {
            *own = (*own).max(durable);
        }
        let newest = &mut self.newest[place.space as usize];
        *newest = scan.newest.max(*newest);
        let extent = scan.index.extent;
        let last = if extent.count > 0 {
            extent.last
        } else {
            by.durable[place.space as usize]
        };
        let stops = match (header, scan.damage) {
            // It was about to be begun, if it is the last.
            (None, _) if length <= HEADER as u64 => Some(located(place, 0, "it has no header")),
            (None, _) => {
                self.damage.push(located(place, 0, "the header is damaged"));
                Some(located(place, 0, "the header is damaged"))
            }
            (_, damage) => damage.map(|damage| located(place, extent.end, &damage.to_string())),
        };
        self.lanes[place.space as usize].push(Examined {
            place,
            header,
            stops,
            follows_loss,
            last: last.max(before),
        });
        Ok(())
    }
}

fn located(place: Place, at: u64, what: &str) -> Located {
    Located {
        file: place.log_name(),
        at,
        what: what.to_owned(),
    }
}
